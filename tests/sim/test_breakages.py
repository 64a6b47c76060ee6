"""A checker that cannot see a fault is no checker: each deliberate breakage is noticed within fifty seeds.

The seed that is known to notice it is tried first. In `make soak` (``KILONOVA_SOAK=1``) the seeds are searched from the
first, and the same seeds are run without the breakage.
"""

import os
from collections.abc import Iterable

import pytest
from tests.sim.breakages import BREAKAGES, WITHIN, Breakage

from kilonova.sim.campaign import run_until_broken

SOAK = os.environ.get("KILONOVA_SOAK") == "1"


def _seeds(breakage: Breakage) -> Iterable[int]:
    return range(1, WITHIN + 1) if SOAK else dict.fromkeys((breakage.seed, *range(1, WITHIN + 1)))


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_it_is_noticed(breakage: Breakage, monkeypatch: pytest.MonkeyPatch) -> None:
    breakage.apply(monkeypatch)
    for seed in _seeds(breakage):
        result = run_until_broken(breakage.plan(seed))
        if result.violations:
            print(f"{breakage.name}: seed {seed}: {result.violations[0]}")
            break
    else:
        pytest.fail(f"{breakage.name}: not noticed within {WITHIN} seeds")
    if not SOAK:
        return
    monkeypatch.undo()
    assert run_until_broken(breakage.plan(seed)).violations == [], "the seed breaks a rule without it, too"
