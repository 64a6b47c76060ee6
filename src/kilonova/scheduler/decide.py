"""The decision: filter, weigh, choose, explain. Pure: a table and a request in, hosts and reasons out.

```
 all hosts ──▶ requested / excluded ──▶ filter 1 ──▶ … ──▶ filter n ──▶ room ──▶ weigh ──▶ ranked list
              (each step's survivors are counted, its removed hosts noted)        (scores of the best)
```

Every filter is a mask over all hosts. The last step, `ROOM`, asks what the claim will ask; with
CoreFilter, RamFilter and DiskFilter enabled it removes nothing, but without it a cloud whose operator
left them out would choose hosts that cannot win.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kilonova.model.request_spec import LISTED_HOSTS, Candidate, Choice, Explanation, RequestSpec
from kilonova.scheduler.missing import missing_sentence
from kilonova.scheduler.plugin import Filter, Weigher
from kilonova.scheduler.table import Column, HostTable, Mask

CONSIDERED = ""
REQUESTED = "requested_host"
EXCLUDED = "excluded_hosts"
FORCED = "force_host"
ROOM = "room"
"""Names of the steps that are no filters, as they stand in explanations."""


@dataclass(frozen=True)
class Weighted:
    """A weigher with its place on the common scale."""

    weigher: Weigher
    multiplier: float
    minimum: float | None = None
    """Lower end of the scale; the smallest score among the survivors, if None."""
    maximum: float | None = None


@dataclass(frozen=True)
class Rules:
    """How this cloud chooses hosts."""

    filters: tuple[Filter, ...]
    weighers: tuple[Weighted, ...] = ()
    host_subset_size: int = 1
    shuffle_best: bool = False
    max_candidates: int = 8


def decide(table: HostTable, spec: RequestSpec, rules: Rules, rng: random.Random, *, server_id: str) -> Choice:
    """The ranked hosts for one server of `spec`, and why. Changes nothing: the caller takes the first."""
    if spec.force_host is not None:
        return _forced(table, spec.force_host, server_id)
    survivors, counts, removed = _filter(table, spec, rules)
    rows = np.flatnonzero(survivors)
    if not len(rows):
        missing = missing_sentence(table, spec, steps(table, spec, rules))
        explanation = Explanation(filters=counts, removed=removed, missing=missing)
        return Choice(server_id=server_id, candidates=(), explanation=explanation)
    totals, parts = weigh(table, spec, rules.weighers, rows)
    best = rank(totals, rules, rng)
    candidates = tuple(_candidate(table, int(rows[i]), float(totals[i])) for i in best)
    explanation = Explanation(
        filters=counts,
        removed=removed,
        scores={
            candidate.host: {name: float(column[i]) + 0.0 for name, column in parts}
            for candidate, i in zip(candidates, best, strict=True)
        },
        chosen=(candidates[0].host,),
    )
    return Choice(server_id=server_id, candidates=candidates, explanation=explanation)


# ---- filter ----------------------------------------------------------------------------------------------------


def steps(table: HostTable, spec: RequestSpec, rules: Rules) -> Iterable[tuple[str, Filter | None, Callable[[], Mask]]]:
    """Every step's name, its filter if it is one, and its own mask when asked."""
    if spec.requested_host is not None:
        yield REQUESTED, None, lambda: only(table, (spec.requested_host or "",))
    if spec.excluded_hosts:
        yield EXCLUDED, None, lambda: ~only(table, spec.excluded_hosts)
    for each in rules.filters:
        yield each.name, each, lambda each=each: each.mask(table, spec)  # type: ignore[misc]
    yield ROOM, None, lambda: room(table, spec)


_Counts: TypeAlias = tuple[tuple[str, int], ...]
_Removed: TypeAlias = dict[str, tuple[str, ...]]


def _filter(table: HostTable, spec: RequestSpec, rules: Rules) -> tuple[Mask, _Counts, _Removed]:
    survivors = table.alive.copy()
    counts = [(CONSIDERED, len(table))]
    removed: _Removed = {}
    for name, _, mask_of in steps(table, spec, rules):
        mask = mask_of()
        gone = survivors & ~mask
        if gone.any():
            removed[name] = tuple(table.names[row] for row in np.flatnonzero(gone)[:LISTED_HOSTS])
            survivors &= mask
        counts.append((name, int(survivors.sum())))
        if not counts[-1][1]:
            break
    return survivors, tuple(counts), removed


def only(table: HostTable, names: Sequence[str]) -> Mask:
    """The hosts of these names."""
    mask = table.everywhere(False)
    mask[[table.row_of[name] for name in names if name in table.row_of]] = True
    return mask


def room(table: HostTable, spec: RequestSpec) -> Mask:
    """Hosts on which the claim would find room now."""
    mask = table.everywhere(True)
    for free, amount in (
        (table.free_vcpus, spec.vcpus),
        (table.free_memory_mib, spec.memory_mib),
        (table.free_disk_gib, spec.disk_gib),
    ):
        if amount:
            mask &= free >= amount
    return mask


def _forced(table: HostTable, host: str, server_id: str) -> Choice:
    row = table.row_of.get(host)
    counts = ((CONSIDERED, len(table)), (FORCED, 0 if row is None else 1))
    if row is None:
        explanation = Explanation(filters=counts, missing="The host that was asked for is not known.")
        return Choice(server_id=server_id, candidates=(), explanation=explanation)
    return Choice(
        server_id=server_id,
        candidates=(_candidate(table, row, 0.0),),
        explanation=Explanation(filters=counts, chosen=(host,)),
    )


# ---- weigh -----------------------------------------------------------------------------------------------------


def weigh(
    table: HostTable, spec: RequestSpec, weighers: Sequence[Weighted], rows: npt.NDArray[np.intp]
) -> tuple[Column, list[tuple[str, Column]]]:
    """Total weight of each of `rows`, and each weigher's part in it: score, brought to 0..1, times multiplier."""
    totals = np.zeros(len(rows))
    parts = []
    for weighted in weighers:
        raw = weighted.weigher.weigh(table, spec)[rows]
        part = scaled(raw, weighted.minimum, weighted.maximum) * multiplier(table, weighted, rows)
        totals += part
        parts.append((weighted.weigher.name, part))
    return totals, parts


def scaled(raw: Column, minimum: float | None, maximum: float | None) -> Column:
    """`raw` brought to 0..1 between the ends given, else between its own. All equal: all 0."""
    if minimum is not None:
        raw = np.maximum(raw, minimum)
    if maximum is not None:
        raw = np.minimum(raw, maximum)
    low = float(raw.min()) if minimum is None else minimum
    high = float(raw.max()) if maximum is None else maximum
    if low == high:
        return np.zeros(len(raw))
    return (raw - low) / (high - low)


def multiplier(table: HostTable, weighted: Weighted, rows: npt.NDArray[np.intp]) -> Column | float:
    """The configured multiplier; where a host's aggregates name one, the smallest of theirs."""
    option = weighted.weigher.multiplier_option
    if option not in table.aggregates.keys:
        return weighted.multiplier
    sign = getattr(weighted.weigher, "sign", 1.0)
    column: Column = sign * table.aggregate_min(option, sign * weighted.multiplier)[rows]
    return column


# ---- choose ----------------------------------------------------------------------------------------------------


def rank(totals: Column, rules: Rules, rng: random.Random) -> list[int]:
    """Positions of the best, best first; of equals, the one that comes first, unless chance is wanted."""
    left = totals.copy()
    wanted = min(len(left), max(rules.max_candidates, 1))
    pool = min(len(left), max(rules.host_subset_size, 1))
    order: list[int] = []
    if rules.shuffle_best:
        equals = np.flatnonzero(left == left.max())
        order.append(int(equals[rng.randrange(len(equals))]))
        left[order[0]] = -np.inf
    while len(order) < max(wanted, pool):
        best = int(left.argmax())
        order.append(best)
        left[best] = -np.inf
    if pool > 1:
        order.insert(0, order.pop(rng.randrange(pool)))
    return order[:wanted]


def _candidate(table: HostTable, row: int, weight: float) -> Candidate:
    state = table.states[row]
    assert state is not None
    return Candidate(host_id=state.id, host=state.name, weight=weight)
