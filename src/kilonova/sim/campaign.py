"""Many seeds, one after the other or in several processes, and what they showed together."""

import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from kilonova.sim.plan import Plan, Result
from kilonova.sim.simulation import Simulation


def run_plan(plan: Plan) -> Result:
    """One run, with nobody watching."""
    # Most of what is made lives long: looking for cycles more often only takes time.
    gc.set_threshold(200_000, 20, 100)
    return Simulation(plan).run()


def run_all(plans: Sequence[Plan], *, jobs: int) -> Iterator[Result]:
    """Run plans in so many processes; each result as it is there."""
    if jobs <= 1 or len(plans) == 1:
        yield from map(run_plan, plans)
        return
    # Fresh processes: what one has loaded or counted must not matter to another.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_plan, plans)


def together(results: Sequence[Result]) -> dict[str, Any]:
    """The sums over all runs, by the names that one run's result has."""
    summed: dict[str, Any] = {}
    for field in fields(Result):
        values = [getattr(result, field.name) for result in results]
        if field.name in _OF_ONE_RUN:
            continue
        if isinstance(values[0], dict):
            total: Counter[str] = Counter()
            for value in values:
                total.update(value)
            summed[field.name] = dict(sorted(total.items()))
        elif field.name == "violations":
            summed[field.name] = [f"seed {result.seed}: {text}" for result in results for text in result.violations]
        else:
            summed[field.name] = round(sum(values), 3)
    summed["quiet_after_s"] = max(result.quiet_after_s for result in results)
    return summed


_OF_ONE_RUN = frozenset({"seed", "hosts", "servers", "faults", "history_hash"})
