"""Small simulated clouds, with and without faults."""

import os
import subprocess
import sys

import pytest
from tests.sim.breakages import REFUSED_AT_LAST, Rewrite

from kilonova.conductor.tasks import boot
from kilonova.sim import simulation
from kilonova.sim.plan import Plan
from kilonova.sim.simulation import Simulation


def test_a_cloud_without_faults_boots_servers() -> None:
    result = Simulation(Plan(seed=1, faults=())).run()
    assert (result.servers_created, result.servers_error) == (5, 0)
    assert (result.kills, result.struck, result.violations) == (0, {}, [])


@pytest.mark.parametrize("seed", range(1, 6))
def test_whatever_breaks_all_comes_to_rest_and_agrees(seed: int) -> None:
    result = Simulation(Plan(seed=seed, hosts=4, servers=8)).run()
    assert result.violations == []
    assert result.kills > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_cells_and_devices_agree_too(seed: int) -> None:
    """Hosts with CPUs, pages and devices to give away, so few that many servers find no room."""
    result = Simulation(Plan(seed=seed, hosts=3, servers=24, hardware="fine")).run()
    assert result.violations == []
    assert result.servers_error > 0


@pytest.mark.slow
def test_a_large_cloud_in_which_all_goes_wrong() -> None:
    result = Simulation(Plan(seed=1, hosts=100, servers=500)).run()
    assert result.violations == []
    assert result.kills > 100


def test_a_kind_that_cannot_write_its_end_leaves_no_server_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect itself is told; nothing else is wrong. Without the last resort such tasks would be tried for ever."""
    monkeypatch.setattr(boot, "MAX_ATTEMPTS", 1)
    REFUSED_AT_LAST.apply(monkeypatch)
    Rewrite("conductor.tasks.boot:_give_up", "message = failure.message", "raise KeyError('end')").apply(monkeypatch)
    plan = Plan(seed=2, hosts=4, servers=12)
    defects = Simulation(plan).run().violations
    assert defects and all(text.startswith("odd: no service meets an error") for text in defects)
    assert all(text.endswith("KeyError: 'end'") for text in defects)
    without = Rewrite("tasks.engine:_Worker._pass_over", "except (LeaseLost, Unavailable):", "except Exception:")
    without.apply(monkeypatch)
    monkeypatch.setattr(simulation, "QUIET_WITHIN_S", 400.0)
    assert Simulation(plan).run().stuck > 0


_RUN = """
import sys
from kilonova.sim.plan import Plan
from kilonova.sim.simulation import Simulation
print(Simulation(Plan(seed=int(sys.argv[1]), hosts=3, servers=6)).run().history_hash)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_is_the_same_history_in_every_process(seed: int) -> None:
    hashes = [
        subprocess.run(
            [sys.executable, "-c", _RUN, str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""


def test_another_seed_is_another_history() -> None:
    first, second = (Simulation(Plan(seed=seed, hosts=2, servers=2)).run().history_hash for seed in (1, 2))
    assert first != second
