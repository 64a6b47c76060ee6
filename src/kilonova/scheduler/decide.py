"""The decision: filter, weigh, choose, explain. Pure: a table and a request in, hosts and reasons out.

```
 all hosts ─▶ requested / excluded ─▶ traits ─▶ filter 1 ─▶ … ─▶ filter n ─▶ room ─▶ weigh ─▶ ranked list
             (each step's survivors are counted, its removed hosts noted)         (scores of the best)
```

Every filter is a mask over all hosts. Two steps need no filter to be enabled: traits, when the request names
some, and room, which asks what the claim will ask. With CoreFilter, RamFilter and DiskFilter enabled room
removes nothing; without them, a cloud would choose hosts that cannot win.

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
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Filter, Group, Limiting, Remembered, Weigher
from kilonova.scheduler.steps import CONSIDERED, FORCED, ROOM, SILENT, ExcludedHosts, RequestedHost, Traits
from kilonova.scheduler.table import Column, HostTable, Mask, Rows

Counts: TypeAlias = tuple[tuple[str, int], ...]
Removed: TypeAlias = dict[str, tuple[str, ...]]


KeyOf: TypeAlias = Callable[[HostTable, RequestSpec], Hashable]


def key_of(rule: Filter | Weigher) -> KeyOf:
    """How to find a rule's key; one that does not say may look at anything, and is asked each time."""
    return rule.key if isinstance(rule, Remembered) else _always_once


def _always_once(_: HostTable, __: RequestSpec) -> Hashable:
    return ONCE


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
        return self._key(table, spec)

    @cached_property
    def _key(self) -> KeyOf:
        return key_of(self.weigher)

    @cached_property
    def reads(self) -> int:
        """Groups of columns that the scores depend on."""
        return int(getattr(self.weigher, "reads", Group.EVERYTHING))

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
    max_candidates: int = 5
    pci_aliases: Mapping[str, PciRequest] = field(default_factory=dict)

    @cached_property
    def steps(self) -> tuple[Filter, ...]:
        """All filters in the order in which they are asked, with those that are always on."""
        return (RequestedHost(), ExcludedHosts(), Traits(), *self.filters, *ROOM)

    @cached_property
    def told(self) -> Sequence[tuple[str, int, bool]]:
        """The steps that explanations may list: name, number, and whether only those that removed hosts are told."""
        return [(step.name, number, isinstance(step, SILENT)) for number, step in enumerate(self.steps)]

    @cached_property
    def limiting(self) -> frozenset[int]:
        """Numbers of the steps that are `Limiting`: looking that up for each request would cost more than asking."""
        return frozenset(number for number, step in enumerate(self.steps) if isinstance(step, Limiting))

    @cached_property
    def _keys(self) -> tuple[KeyOf, ...]:
        return tuple(key_of(step) for step in self.steps)

    def step_keys(self, table: HostTable, spec: RequestSpec) -> tuple[Hashable, ...]:
        """`Remembered.key` of each step."""
        return tuple([key(table, spec) for key in self._keys])

    def weigher_keys(self, table: HostTable, spec: RequestSpec) -> tuple[Hashable, ...]:
        """`Remembered.key` of each weigher."""
        return tuple([weighted.key(table, spec) for weighted in self.weighers])

    def needs(self, spec: RequestSpec) -> Needs:
        """What a server of `spec` takes from its host."""
        return needs_of(spec, self.pci_aliases)


def decide(table: HostTable, spec: RequestSpec, rules: Rules, rng: random.Random, *, server_id: str) -> Choice:
    """The ranked hosts for one server of `spec`, and why. Changes nothing: the caller takes the first."""
    if spec.force_host is not None:
        return forced(table, spec.force_host, server_id)
    survivors, counts, removed = _filter(table, spec, rules)
    scores = [
        (weighted, weighted.clamped(weighted.weigher.weigh(table, spec)))
        for weighted, key in zip(rules.weighers, rules.weigher_keys(table, spec), strict=True)
        if key is not NOT_ASKED
    ]
    return choose(table, spec, rules, rng, survivors, counts, removed, scores, server_id=server_id)


def choose(
    table: HostTable,
    spec: RequestSpec,
    rules: Rules,
    rng: random.Random,
    survivors: Mask,
    counts: Counts,
    removed: Removed,
    scores: Sequence[tuple[Weighted, Column]],
    *,
    server_id: str,
) -> Choice:
    """The second half of `decide`: weigh and rank the hosts that passed. `scores` are clamped."""
    rows = np.flatnonzero(survivors)
    if not len(rows):
        return nowhere(table, spec, rules, counts, removed, server_id=server_id)
    scales = [Scale.of(weighted, raw, rows, weighted.multipliers(table)) for weighted, raw in scores]
    totals = np.where(survivors, 0.0, -np.inf)
    for scale in scales:
        scale.add_to(totals)
    best = rank(totals, len(rows), rules, rng)
    at = np.array(best)
    parts = {scale.name: scale.part(at).tolist() for scale in scales}
    return somewhere(table, counts, removed, best, totals, parts, server_id=server_id)


# ---- filter ----------------------------------------------------------------------------------------------------


def _filter(table: HostTable, spec: RequestSpec, rules: Rules) -> tuple[Mask, Counts, Removed]:
    survivors = table.alive.copy()
    left = len(table)
    counts = [(CONSIDERED, left)]
    removed: Removed = {}
    for step, key in zip(rules.steps, rules.step_keys(table, spec), strict=True):
        if key is not NOT_ASKED:
            mask = step.mask(table, spec)
            gone = survivors & ~mask
            if gone.any():
                removed[step.name] = listed(table, gone)
                survivors &= mask
                left = int(np.count_nonzero(survivors))
        if step.name in removed or not isinstance(step, SILENT):
            counts.append((step.name, left))
        if not left:
            break
    return survivors, tuple(counts), removed


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
        candidates=(Candidate(host_id=int(table.host_id[row]), host=host, weight=0.0),),
        explanation=Explanation(filters=counts, chosen=(host,)),
    )


# ---- weigh -----------------------------------------------------------------------------------------------------


@dataclass
class Scale:
    """One weigher's scores of all hosts, and how they become parts of the total.

    A part is the score, brought to 0..1 between the ends, times the multiplier. All equal: all 0.
    """

    name: str
    raw: Column
    low: float
    high: float
    multiplier: Column | float

    @classmethod
    def of(cls, weighted: Weighted, raw: Column, rows: Rows, multiplier: Column | float) -> "Scale":
        """The scale from the smallest to the largest score among `rows`, unless the weigher has its own ends."""
        of_rows = raw.take(rows)
        return cls(
            name=weighted.weigher.name,
            raw=raw,
            low=float(of_rows.min()) if weighted.minimum is None else weighted.minimum,
            high=float(of_rows.max()) if weighted.maximum is None else weighted.maximum,
            multiplier=multiplier,
        )

    def part(self, rows: Rows) -> Column:
        """What this weigher adds to the totals of `rows`."""
        if self.low == self.high:
            return np.zeros(len(rows))
        multiplier = self.multiplier if isinstance(self.multiplier, float) else self.multiplier[rows]
        part: Column = (self.raw[rows] - self.low) * (multiplier / (self.high - self.low))
        part += 0.0  # no minus zeros
        return part

    def add_to(self, totals: Column) -> None:
        """Add this weigher's part to the totals of all hosts."""
        if self.low != self.high:
            totals += (self.raw - self.low) * (self.multiplier / (self.high - self.low))


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
    parts: Mapping[str, Sequence[float]],
    *,
    server_id: str,
) -> Choice:
    """The answer when hosts passed: the best of them. `parts`: by weigher, what it added to the total of each."""
    hosts = [table.names[row] for row in best]
    rows = np.array(best)
    candidates = tuple(
        Candidate(host_id=host_id, host=host, weight=weight)
        for host_id, host, weight in zip(table.host_id[rows].tolist(), hosts, totals[rows].tolist(), strict=True)
    )
    names = list(parts)
    by_host = zip(*parts.values(), strict=True)
    scores = {host: dict(zip(names, of_host, strict=True)) for host, of_host in zip(hosts, by_host, strict=False)}
    return Choice(
        server_id=server_id,
        candidates=candidates,
        explanation=Explanation(filters=counts, removed=removed, scores=scores, chosen=(hosts[0],)),
    )


def nowhere(
    table: HostTable, spec: RequestSpec, rules: Rules, counts: Counts, removed: Removed, *, server_id: str
) -> Choice:
    """The answer when no host passed: why, in words."""
    asked = [
        (step, step.mask(table, spec))
        for step, key in zip(rules.steps, rules.step_keys(table, spec), strict=True)
        if key is not NOT_ASKED
    ]
    explanation = Explanation(filters=counts, removed=removed, missing=missing_sentence(table, spec, asked))
    return Choice(server_id=server_id, candidates=(), explanation=explanation)
