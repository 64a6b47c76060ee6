"""Decisions like those of `decide`, but remembered: what did not change since the last time is not asked again.

Requests come in shapes: those that get equal answers from every filter and weigher (their `key`s are equal).
For each shape there is a `Standing`: at which step each host fails, if it does, and its total weight. When the
table has changed since, only the rows that changed are asked again, by a `TablePart` of them, and only by rules
that read what changed there. So a decision costs a few operations over all hosts, and not hundreds.

Rules whose answer is for one request only (`ONCE`: affinity to single servers, excluded hosts), and weighers that
look at the request, are asked on top.

The results are those of `decide`, bit by bit; a test goes through long random stories to prove it.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

import msgspec

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.aggregates import AggregateIndex
from kilonova.scheduler.board import Board
from kilonova.scheduler.decide import Rules, Weighted, choose, forced
from kilonova.scheduler.needs import Needs
from kilonova.scheduler.part import TablePart
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Limiting
from kilonova.scheduler.standing import Keys, Standing, overlaid
from kilonova.scheduler.table import Column, HostTable

BYTES = 96 * 1024 * 1024
"""Memory for standings. The one that was not used for longest goes first."""

SHAPES = 10_000
"""Requests whose shape is remembered."""


@dataclass(slots=True)
class Shape:
    """What the rules see of a request, and what it takes from its host."""

    steps: tuple[Hashable, ...]
    """Keys of the rules' steps."""
    weighers: tuple[Hashable, ...]
    """Keys of the weighers."""
    standing: int
    """Number of the standing that fits: requests share it when the keys of all steps are equal that are not `ONCE`."""
    plain: tuple[int, ...]
    """Numbers of the weighers that are asked and do not look at the request."""
    is_once: bool
    """Whether a rule must be asked for this request alone."""
    needs: Needs
    aggregates: AggregateIndex
    """The aggregates that the keys were found with."""


class Memory:
    """Remembers answers about one table under one set of rules."""

    def __init__(self, table: HostTable, rules: Rules, *, max_bytes: int = BYTES) -> None:
        self._table = table
        self._rules = rules
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._shapes: OrderedDict[bytes, Shape] = OrderedDict()
        self._numbers: dict[Keys, int] = {}
        self._standings: OrderedDict[int, Standing] = OrderedDict()
        self._levels = Board(
            table, [(int(step.reads), step.level) for step in rules.steps if isinstance(step, Limiting)]
        )
        self._scores: dict[tuple[int, ...], Board] = {}
        self._changed: tuple[int, int, TablePart | None] = (-1, -1, None)

    # ---- shapes ----------------------------------------------------------------------------------------------------

    def shape(self, spec: RequestSpec) -> Shape:
        """The shape of a request: ask once, decide for each of its servers."""
        text = msgspec.msgpack.encode(msgspec.structs.replace(spec, server_ids=()))
        shape = self._shapes.get(text)
        if shape is None or shape.aggregates is not self._table.aggregates:
            shape = self._shapes[text] = self._new_shape(spec)
            if len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
        return shape

    def _new_shape(self, spec: RequestSpec) -> Shape:
        table, rules = self._table, self._rules
        steps, weighers = rules.step_keys(table, spec), rules.weigher_keys(table, spec)
        shared = tuple([NOT_ASKED if key is ONCE else key for key in steps]) if ONCE in steps else steps
        looks_at_request = any(key is not None and key is not NOT_ASKED for key in weighers)
        return Shape(
            steps=steps,
            weighers=weighers,
            standing=self._number_of(shared),
            plain=tuple([number for number, key in enumerate(weighers) if key is None]),
            is_once=ONCE in steps or looks_at_request,
            needs=rules.needs(spec),
            aggregates=table.aggregates,
        )

    def _number_of(self, keys: Keys) -> int:
        if len(self._numbers) > 10 * SHAPES:
            self._numbers.clear()
            self._shapes.clear()
            self._standings.clear()
            self._used_bytes = 0
        return self._numbers.setdefault(keys, len(self._numbers))

    # ---- decisions -------------------------------------------------------------------------------------------------

    def decide(self, spec: RequestSpec, shape: Shape, rng: random.Random, *, server_id: str) -> Choice:
        """As `kilonova.scheduler.decide.decide` on the same table with the same rules. `shape` is that of `spec`."""
        if spec.force_host is not None:
            return forced(self._table, spec.force_host, server_id)
        self._levels.catch_up(self._changed_since)
        standing = self._standing(shape, spec)
        scores = self._scores_of(shape.plain, spec)
        if shape.is_once:
            return self._once(spec, shape, rng, standing, scores, server_id)
        return standing.decide(spec, shape.plain, scores, rng, server_id=server_id)

    def _standing(self, shape: Shape, spec: RequestSpec) -> Standing:
        standing = self._standings.get(shape.standing)
        if standing is None:
            standing = Standing(self._table, self._rules, shape.steps, self._levels, spec)
            self._standings[shape.standing] = standing
            self._used_bytes += standing.nbytes
            while self._used_bytes > self._max_bytes and len(self._standings) > 1:
                self._used_bytes -= self._standings.popitem(last=False)[1].nbytes
        else:
            self._standings.move_to_end(shape.standing)
            if standing.version != self._table.version:
                self._used_bytes -= standing.nbytes
                standing.catch_up(spec, self._changed_since(standing.version))
                self._used_bytes += standing.nbytes
        return standing

    def _scores_of(self, plain: tuple[int, ...], spec: RequestSpec) -> Board:
        """Scores of the weighers that do not look at the request; so `spec` may be any."""
        board = self._scores.get(plain)
        if board is None:
            weighers = [self._rules.weighers[number] for number in plain]
            board = self._scores[plain] = Board(
                self._table, [(weighted.reads, partial(_clamped_scores, weighted, spec)) for weighted in weighers]
            )
        board.catch_up(self._changed_since)
        return board

    def _changed_since(self, version: int) -> TablePart | None:
        """The rows that changed after a version; None if they are many, or unknown. Many ask for the same version."""
        table = self._table
        since, until, part = self._changed
        if since != version or until != table.version:
            rows = table.changed_rows(version)
            part = None if rows is None or len(rows) > table.size // 4 else TablePart(table, rows)
            self._changed = version, table.version, part
        return part

    def _once(
        self, spec: RequestSpec, shape: Shape, rng: random.Random, standing: Standing, plain: Board, server_id: str
    ) -> Choice:
        """A decision with rules that are for this request only, on top of what is known."""
        table, rules = self._table, self._rules
        once = [
            (number, step.mask(table, spec))
            for number, (step, key) in enumerate(zip(rules.steps, shape.steps, strict=True))
            if key is ONCE
        ]
        survivors, counts, removed = overlaid(table, rules, standing, once)
        known = dict(zip(shape.plain, plain.matrix, strict=True))
        scores = [
            (weighted, known[number] if key is None else _clamped_scores(weighted, spec, table))
            for number, (weighted, key) in enumerate(zip(rules.weighers, shape.weighers, strict=True))
            if key is not NOT_ASKED
        ]
        return choose(table, spec, rules, rng, survivors, counts, removed, scores, server_id=server_id)


def _clamped_scores(weighted: Weighted, spec: RequestSpec, hosts: HostTable) -> Column:
    return weighted.clamped(weighted.weigher.weigh(hosts, spec))
