"""A checker that cannot see a fault is no checker: each deliberate breakage is noticed within fifty seeds.

The seed that is known to notice it is tried first. In `make soak` (``KILONOVA_SOAK=1``) the seeds are searched from the
first, and the same seeds are run without the breakage.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.sim.breakages import BREAKAGES, WITHIN, Breakage

from kilonova.sim import simulation
from kilonova.sim.campaign import run_until_broken

SOAK = os.environ.get("KILONOVA_SOAK") == "1"


def _seeds(breakage: Breakage) -> Iterable[int]:
    return range(1, WITHIN + 1) if SOAK else dict.fromkeys((breakage.seed, *range(1, WITHIN + 1)))


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_it_is_noticed(breakage: Breakage, monkeypatch: pytest.MonkeyPatch) -> None:
    breakage.apply(monkeypatch)
    if not SOAK:
        monkeypatch.setattr(simulation, "QUIET_WITHIN_S", 900.0)  # what never comes to rest need not be awaited long
    for seed in _seeds(breakage):
        result = run_until_broken(breakage.plan(seed))
        if any(breakage.rule in text for text in result.violations):
            print(f"{breakage.name}: seed {seed}: {result.violations[0]}")
            break
    else:
        pytest.fail(f"{breakage.name}: not noticed as '{breakage.rule}' within {WITHIN} seeds")
    if not SOAK:
        return
    monkeypatch.undo()
    assert run_until_broken(breakage.plan(seed)).violations == [], "the seed breaks a rule without it, too"


def test_the_page_of_reliability_lists_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    told = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in page.splitlines() if row[:1] == "|"]
    for breakage in BREAKAGES:
        assert (breakage.name, breakage.what, str(breakage.seed), breakage.rule) in told, breakage.name
