"""Decisions like those of `decide`, but remembered: what did not change since the last time is not asked again.

Requests come in shapes: those that get equal answers from every filter and weigher (their `key`s are equal).
For each shape there is a `Standing`: at which step each host fails, if it does, and its total weight. When the
table has changed since, only the rows that changed are asked again, by a `TablePart` of them, and only by rules
that read what changed there. So a decision costs a few operations over all hosts, and not hundreds.

Rules whose answer is for one request only (`ONCE`: affinity to single servers, excluded hosts) are asked on top.

The results are those of `decide`, bit by bit; a test goes through long random stories to prove it.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.decide import Rules, Weighted, decide_by, forced
from kilonova.scheduler.part import TablePart
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Filter, Remembered
from kilonova.scheduler.standing import Keys, Standing
from kilonova.scheduler.table import Column, Group, HostTable, Mask

BYTES = 96 * 1024 * 1024
"""Memory for standings. The one that was not used for longest goes first."""


@dataclass
class Scores:
    """One weigher's clamped scores of all hosts, as of a version of the table."""

    raw: Column
    version: int


class Memory:
    """Remembers answers about one table under one set of rules."""

    def __init__(self, table: HostTable, rules: Rules, *, max_bytes: int = BYTES) -> None:
        self._table = table
        self._rules = rules
        self._max_bytes = max_bytes
        self._standings: OrderedDict[Keys, Standing] = OrderedDict()
        self._scores: OrderedDict[tuple[int, Hashable], Scores] = OrderedDict()

    def decide(self, spec: RequestSpec, rng: random.Random, *, server_id: str) -> Choice:
        """As `kilonova.scheduler.decide.decide` on the same table with the same rules."""
        table, rules = self._table, self._rules
        if spec.force_host is not None:
            return forced(table, spec.force_host, server_id)
        keys = [
            step.key(table, spec) if isinstance(step, Remembered) else ONCE  # others may look at anything
            for step in rules.steps
        ]
        weigher_keys = [weighted.key(table, spec) for weighted in rules.weighers]
        standing = self._standing(tuple(NOT_ASKED if key is ONCE else key for key in (*keys, *weigher_keys)), spec)
        if ONCE in keys or ONCE in weigher_keys:
            return self._once(spec, rng, standing, keys, weigher_keys, server_id)
        scores = [
            self._raw(number, key, weighted, spec)
            for number, (weighted, key) in enumerate(zip(rules.weighers, weigher_keys, strict=True))
            if key is not NOT_ASKED
        ]
        return standing.decide(spec, rng, scores, server_id)

    def _standing(self, keys: Keys, spec: RequestSpec) -> Standing:
        standing = self._standings.get(keys)
        if standing is None:
            standing = self._standings[keys] = Standing(self._table, self._rules, keys, spec)
            while len(self._standings) > 1 and sum(each.nbytes for each in self._standings.values()) > self._max_bytes:
                self._standings.popitem(last=False)
        else:
            self._standings.move_to_end(keys)
            standing.catch_up(spec)
        return standing

    def _raw(self, number: int, key: Hashable, weighted: Weighted, spec: RequestSpec) -> Column:
        """A weigher's scores, brought up to date."""
        table, weigher = self._table, weighted.weigher
        known = self._scores.get((number, key))
        if known is not None and known.version == table.version:
            return known.raw
        changed = None if known is None else table.changed_rows(known.version)
        if known is None or changed is None or len(changed) > table.size // 4:
            known = self._scores[number, key] = Scores(weighted.clamped(weigher.weigh(table, spec)), table.version)
            while len(self._scores) > 64:
                self._scores.popitem(last=False)
            return known.raw
        reads = int(weigher.reads) if isinstance(weigher, Remembered) else int(Group.EVERYTHING)
        rows = [row for row, groups in changed.items() if groups & reads]
        if rows:
            at = np.array(rows)
            known.raw[at] = weighted.clamped(weigher.weigh(TablePart(table, at), spec))
        known.version = table.version
        return known.raw

    def _once(
        self,
        spec: RequestSpec,
        rng: random.Random,
        standing: Standing,
        keys: list[Hashable],
        weigher_keys: list[Hashable],
        server_id: str,
    ) -> Choice:
        """A decision with rules that are for this request only; the others' answers are at hand."""
        table, rules = self._table, self._rules
        fresh = {id(step) for step, key in zip(rules.steps, keys, strict=True) if key is ONCE}
        numbers = {id(weighted): number for number, weighted in enumerate(rules.weighers)}

        def mask_of(step: Filter) -> Mask:
            return step.mask(table, spec) if id(step) in fresh else standing.mask_of(step)

        def raw_of(weighted: Weighted) -> Column:
            number = numbers[id(weighted)]
            if weigher_keys[number] is ONCE:
                return weighted.clamped(weighted.weigher.weigh(table, spec))
            return self._raw(number, weigher_keys[number], weighted, spec)

        return decide_by(table, spec, rules, rng, server_id=server_id, mask_of=mask_of, raw_of=raw_of)
