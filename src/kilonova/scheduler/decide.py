"""The decision: filter, weigh, choose, explain. Pure: a table and a request in, hosts and reasons out.

```
 all hosts ─▶ requested / excluded ─▶ traits ─▶ filter 1 ─▶ … ─▶ filter n ─▶ room ─▶ weigh ─▶ ranked list
             (each step's survivors are counted, its removed hosts noted)         (scores of the best)
```

Every filter is a mask over all hosts. Two steps need no filter to be enabled: `TRAITS`, when the request
names some, and `ROOM`, which asks what the claim will ask. With CoreFilter, RamFilter and DiskFilter enabled
ROOM removes nothing; without them, a cloud would choose hosts that cannot win.

`decide` finds every answer anew. `kilonova.scheduler.memory` gives the same answers, remembered.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

from kilonova.model.request_spec import LISTED_HOSTS, Candidate, Choice, Explanation, PciRequest, RequestSpec
from kilonova.scheduler.missing import missing_sentence
from kilonova.scheduler.needs import Needs, needs_of
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Filter, Remembered, Weigher
from kilonova.scheduler.steps import CONSIDERED, FORCED, ExcludedHosts, RequestedHost, Room, Traits
from kilonova.scheduler.table import Column, HostTable, Mask, Rows

Counts: TypeAlias = tuple[tuple[str, int], ...]
Removed: TypeAlias = dict[str, tuple[str, ...]]
Parts: TypeAlias = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Weighted:
    """A weigher with its place on the common scale."""

    weigher: Weigher
    multiplier: float
    minimum: float | None = None
    """Lower end of the scale; the smallest score among the survivors, if None."""
    maximum: float | None = None

    def clamped(self, raw: Column) -> Column:
        """`raw` within the given ends."""
        if self.minimum is not None:
            raw = np.maximum(raw, self.minimum)
        if self.maximum is not None:
            raw = np.minimum(raw, self.maximum)
        return raw

    def key(self, table: HostTable, spec: RequestSpec) -> Hashable:
        """As `Remembered.key`; `NOT_ASKED` too if nothing multiplies the score."""
        if self.multiplier == 0.0 and self.weigher.multiplier_option not in table.aggregates.keys:
            return NOT_ASKED
        return self.weigher.key(table, spec) if isinstance(self.weigher, Remembered) else ONCE

    def multipliers(self, table: HostTable) -> Column | float:
        """The configured multiplier; where a host's aggregates name one, the smallest of theirs."""
        option = self.weigher.multiplier_option
        if option not in table.aggregates.keys:
            return self.multiplier
        sign = float(getattr(self.weigher, "sign", 1.0))
        return sign * table.aggregate_min(option, sign * self.multiplier)


@dataclass(frozen=True)
class Rules:
    """How this cloud chooses hosts."""

    filters: tuple[Filter, ...]
    weighers: tuple[Weighted, ...] = ()
    host_subset_size: int = 1
    shuffle_best: bool = False
    max_candidates: int = 8
    pci_aliases: Mapping[str, PciRequest] = field(default_factory=dict)

    @cached_property
    def steps(self) -> tuple[Filter, ...]:
        """All filters in the order in which they are asked, with those that are always on."""
        return (RequestedHost(), ExcludedHosts(), Traits(), *self.filters, Room())

    def needs(self, spec: RequestSpec) -> Needs:
        """What a server of `spec` takes from its host."""
        return needs_of(spec, self.pci_aliases)


def decide(table: HostTable, spec: RequestSpec, rules: Rules, rng: random.Random, *, server_id: str) -> Choice:
    """The ranked hosts for one server of `spec`, and why. Changes nothing: the caller takes the first."""
    if spec.force_host is not None:
        return forced(table, spec.force_host, server_id)
    return decide_by(
        table,
        spec,
        rules,
        rng,
        server_id=server_id,
        mask_of=lambda step: step.mask(table, spec),
        raw_of=lambda weighted: weighted.clamped(weighted.weigher.weigh(table, spec)),
    )


def decide_by(
    table: HostTable,
    spec: RequestSpec,
    rules: Rules,
    rng: random.Random,
    *,
    server_id: str,
    mask_of: Callable[[Filter], Mask],
    raw_of: Callable[[Weighted], Column],
) -> Choice:
    """As `decide`, with answers of filters and (clamped) scores of weighers from elsewhere."""
    survivors, counts, removed = _filter(table, spec, rules, mask_of)
    rows = np.flatnonzero(survivors)
    if not len(rows):
        return nowhere(table, spec, rules, counts, removed, server_id=server_id)
    totals = np.where(survivors, 0.0, -np.inf)
    scales: list[Scale] = []
    for weighted in rules.weighers:
        if weighted.key(table, spec) is not NOT_ASKED:
            scale = Scale.of(weighted, raw_of(weighted), rows, weighted.multipliers(table))
            totals += scale.part()
            scales.append(scale)
    best = rank(totals, len(rows), rules, rng)
    return somewhere(table, counts, removed, best, totals, scales, server_id=server_id)


# ---- filter ----------------------------------------------------------------------------------------------------


def is_asked(step: Filter, table: HostTable, spec: RequestSpec) -> bool:
    """Whether a request touches a filter at all; one that it does not touch passes all."""
    return not isinstance(step, Remembered) or step.key(table, spec) is not NOT_ASKED


def _filter(
    table: HostTable, spec: RequestSpec, rules: Rules, mask_of: Callable[[Filter], Mask]
) -> tuple[Mask, Counts, Removed]:
    survivors = table.alive.copy()
    left = len(table)
    counts = [(CONSIDERED, left)]
    removed: Removed = {}
    for step in rules.steps:
        if is_asked(step, table, spec):
            mask = mask_of(step)
            gone = survivors & ~mask
            if gone.any():
                removed[step.name] = listed(table, gone)
                survivors &= mask
                left = int(np.count_nonzero(survivors))
        elif is_silent(step):
            continue
        counts.append((step.name, left))
        if not left:
            break
    return survivors, tuple(counts), removed


def is_silent(step: Filter) -> bool:
    """Whether a step shows up in explanations only when it was asked: it was not enabled by anybody."""
    return isinstance(step, RequestedHost | ExcludedHosts | Traits)


def listed(table: HostTable, gone: Mask) -> tuple[str, ...]:
    """Names of the first of these hosts."""
    return tuple(table.names[row] for row in np.flatnonzero(gone)[:LISTED_HOSTS])


def forced(table: HostTable, host: str, server_id: str) -> Choice:
    """The choice that an administrator made."""
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


@dataclass
class Scale:
    """One weigher's scores of all hosts, and how they become parts of the total."""

    name: str
    raw: Column
    low: float
    high: float
    multiplier: Column | float

    @classmethod
    def of(cls, weighted: Weighted, raw: Column, rows: Rows, multiplier: Column | float) -> "Scale":
        """The scale from the smallest to the largest score among `rows`, unless the weigher has its own ends."""
        of_rows = raw[rows]
        return cls(
            name=weighted.weigher.name,
            raw=raw,
            low=float(of_rows.min()) if weighted.minimum is None else weighted.minimum,
            high=float(of_rows.max()) if weighted.maximum is None else weighted.maximum,
            multiplier=multiplier,
        )

    def part(self, rows: Rows | slice = slice(None)) -> Column | float:
        """Scores brought to 0..1, times the multiplier. All equal: all 0."""
        if self.low == self.high:
            return 0.0
        raw = self.raw[rows]
        scaled = (raw - self.low if self.low else raw) / (self.high - self.low)
        if isinstance(self.multiplier, float):
            return scaled if self.multiplier == 1.0 else scaled * self.multiplier
        of_rows: Column = scaled * self.multiplier[rows]
        return of_rows


# ---- choose ----------------------------------------------------------------------------------------------------


def rank(totals: Column, count: int, rules: Rules, rng: random.Random) -> list[int]:
    """Rows of the best, best first; of equals, the first row, unless chance is wanted.

    Args:
        totals: minus infinity for hosts that did not pass; `count` did.
    """
    left = totals.copy()
    wanted = min(count, max(rules.max_candidates, 1))
    pool = min(count, max(rules.host_subset_size, 1))
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


# ---- explain ---------------------------------------------------------------------------------------------------


def somewhere(
    table: HostTable,
    counts: Counts,
    removed: Removed,
    best: Sequence[int],
    totals: Column,
    scales: Sequence[Scale],
    *,
    server_id: str,
) -> Choice:
    """The answer when hosts passed: the best of them, with their scores."""
    rows = np.array(best)
    weights = totals[rows].tolist()
    candidates = tuple(_candidate(table, row, weight) for row, weight in zip(best, weights, strict=True))
    columns = []
    for scale in scales:
        part = scale.part(rows)
        # Adding 0.0 makes minus zero a zero.
        columns.append([0.0] * len(best) if isinstance(part, float) else (part + 0.0).tolist())
    names = [scale.name for scale in scales]
    scores: Parts = (
        {
            candidate.host: dict(zip(names, parts, strict=True))
            for candidate, parts in zip(candidates, zip(*columns, strict=True), strict=True)
        }
        if columns
        else {}
    )
    return Choice(
        server_id=server_id,
        candidates=candidates,
        explanation=Explanation(filters=counts, removed=removed, scores=scores, chosen=(candidates[0].host,)),
    )


def nowhere(
    table: HostTable, spec: RequestSpec, rules: Rules, counts: Counts, removed: Removed, *, server_id: str
) -> Choice:
    """The answer when no host passed: why, in words."""
    asked = [step for step in rules.steps if is_asked(step, table, spec)]
    missing = missing_sentence(table, spec, asked)
    explanation = Explanation(filters=counts, removed=removed, missing=missing)
    return Choice(server_id=server_id, candidates=(), explanation=explanation)


def _candidate(table: HostTable, row: int, weight: float) -> Candidate:
    state = table.states[row]
    assert state is not None
    return Candidate(host_id=state.id, host=state.name, weight=weight)
