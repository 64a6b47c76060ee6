"""How all hosts stand towards requests of one shape: where each fails, and what each weighs."""

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from kilonova.model.request_spec import LISTED_HOSTS, Choice, RequestSpec
from kilonova.scheduler.board import Board
from kilonova.scheduler.decide import Counts, Removed, Rules, nowhere, rank, somewhere
from kilonova.scheduler.part import TablePart
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Filter, Limiting
from kilonova.scheduler.steps import CONSIDERED
from kilonova.scheduler.table import HostTable, Mask, Rows
from kilonova.scheduler.totals import Totals

Keys: TypeAlias = tuple[Hashable, ...]
Stages: TypeAlias = npt.NDArray[np.uint8]
Told: TypeAlias = Sequence[tuple[str, int, bool]]
"""Names and numbers of all steps, and whether an explanation lists them only where they removed hosts."""

_DEAD = 255
"""Stage of rows without a host."""


class Standing:
    """For one shape of request: the stage of each host, that is the number of the step where it fails; and its weight.

    Steps that pass from a level on (`Limiting`) are compared all at once with the board of `levels`; of the others,
    which seldom change, the stage is kept apart.
    """

    def __init__(self, table: HostTable, rules: Rules, keys: Keys, levels: Board, spec: RequestSpec) -> None:
        """
        Args:
            keys: of all steps; a request of this shape has the same. Steps that are not asked pass everything, and
                so do here those that are to be asked for each request.
            levels: of the rules' limiting steps, in their order, up to date. The same goes for `catch_up`.
        """
        self._table = table
        self._rules = rules
        self._levels = levels
        self._passed = len(rules.steps)
        asked = [(number, step) for number, step in enumerate(rules.steps) if keys[number] not in (NOT_ASKED, ONCE)]
        self._others: list[tuple[int, Filter]] = [each for each in asked if each[0] not in rules.limiting]
        self._others_read = 0
        for _, step in self._others:
            self._others_read |= int(step.reads)  # type: ignore[attr-defined]
        limiting = [(number, cast(Limiting, rules.steps[number])) for number in sorted(rules.limiting)]
        needs = [
            (number, step.need(spec) if keys[number] not in (NOT_ASKED, ONCE) else -np.inf) for number, step in limiting
        ]
        self._needs = np.array([[need] for _, need in needs]).reshape(len(needs), 1)
        self._limit_stages: Stages = np.array([number for number, _ in needs] + [self._passed], dtype=np.uint8)
        self._begin(spec)

    @property
    def nbytes(self) -> int:
        """Memory that this takes: stages, totals and survivors."""
        return 18 * len(self.stage)

    # ---- where each host fails -------------------------------------------------------------------------------------

    def _begin(self, spec: RequestSpec) -> None:
        table = self._table
        self._stage_of_others = self._ask_others(table, spec)
        self.stage = self._stages(self._stage_of_others, self._levels.matrix)
        self.stage[~table.alive] = _DEAD
        self.counts: list[int] = np.bincount(self.stage, minlength=_DEAD + 1)[: self._passed + 1].tolist()
        self._names: list[tuple[str, ...] | None] = [None] * (self._passed + 1)
        self._survivors: Rows | None = None
        self._totals: Totals | None = None
        self._changed: Rows | None = None
        self._explained: tuple[Counts, Removed] | None = None
        self.version = table.version

    def _ask_others(self, hosts: HostTable, spec: RequestSpec) -> Stages:
        """The first step, of those that are not limiting, that each host fails."""
        stages: Stages = np.full(hosts.size, self._passed, dtype=np.uint8)
        for number, step in reversed(self._others):
            stages[~step.mask(hosts, spec)] = number
        return stages

    def _stages(self, of_others: Stages, levels: npt.NDArray[np.float64]) -> Stages:
        """The first step that each host fails."""
        fails = np.empty((len(self._limit_stages), levels.shape[1]), dtype=np.bool_)
        np.less(levels, self._needs, out=fails[:-1])
        fails[-1] = True  # where nothing fails
        stages: Stages = np.minimum(of_others, self._limit_stages.take(fails.argmax(axis=0)))
        return stages

    def catch_up(self, spec: RequestSpec, part: TablePart | None) -> None:
        """Ask again about the hosts that changed since `version`: those in `part`, or all."""
        if part is None:
            self._begin(spec)
            return
        groups = self._table.changed_groups(self.version)
        self.version = part.version
        rows = part.rows
        # Changes that no totals were found for yet are not kept: then all totals are found anew.
        self._changed = rows if self._changed is not None and not len(self._changed) else None
        if not len(rows):
            return
        if self._others_read & groups:
            self._stage_of_others[rows] = self._ask_others(part, spec)
        before = self.stage.take(rows)
        after = self._stages(self._stage_of_others.take(rows), self._levels.matrix.take(rows, axis=1))
        moved = np.flatnonzero(before != after)
        if len(moved):
            self.stage[rows] = after
            for old, new in zip(before[moved].tolist(), after[moved].tolist(), strict=True):
                self._move(old, new)

    def _move(self, old: int, new: int) -> None:
        self.counts[old] -= 1
        self.counts[new] += 1
        self._names[old] = self._names[new] = self._explained = None
        if self._passed in (old, new):
            self._survivors = None

    # ---- what is told ----------------------------------------------------------------------------------------------

    def _explain(self) -> tuple[Counts, Removed]:
        """Survivors of each step, and names of removed hosts."""
        if self._explained is None:
            self._explained = explain(self._rules.told, len(self._table), self.counts, self.removed_at)
        return self._explained

    def removed_at(self, number: int) -> tuple[str, ...]:
        """Names of the first hosts that fail at a step."""
        known = self._names[number]
        if known is None:
            known = self._names[number] = names_at(self._table, self.stage, number)
        return known

    # ---- the decision ----------------------------------------------------------------------------------------------

    def decide(
        self,
        spec: RequestSpec,
        weighers: tuple[int, ...],
        scores: Board,
        rng: random.Random,
        *,
        server_id: str,
    ) -> Choice:
        """The decision for a request of this shape.

        Args:
            weighers: numbers of the weighers that are asked; `scores` has theirs, up to date.
        """
        counts, removed = self._explain()
        count = self.counts[self._passed]
        if not count:
            return nowhere(self._table, spec, self._rules, counts, removed, server_id=server_id)
        passes = self.stage == self._passed
        if self._survivors is None:
            self._survivors = np.flatnonzero(passes)
        if self._totals is None or not self._totals.is_of(scores):
            self._totals = Totals(self._table, [self._rules.weighers[number] for number in weighers], scores)
            self._changed = None
        values = self._totals.bring_up_to_date(passes, self._survivors, self._changed, self.version)
        self._changed = _NO_ROWS
        best = rank(values, count, self._rules, rng)
        return somewhere(
            self._table, counts, removed, best, values, self._totals.parts_of(np.array(best)), server_id=server_id
        )


_NO_ROWS: Rows = np.empty(0, dtype=np.intp)


def explain(
    steps: Told, considered: int, counts: Sequence[int], removed_at: Callable[[int], tuple[str, ...]]
) -> tuple[Counts, Removed]:
    """Survivors of each step, and names of removed hosts, from how many hosts fail at each step."""
    left = considered
    survivors = [(CONSIDERED, left)]
    removed: Removed = {}
    for name, number, is_silent in steps:
        if counts[number]:
            left -= counts[number]
            removed[name] = removed_at(number)
        elif is_silent:
            continue
        survivors.append((name, left))
        if not left:
            break
    return tuple(survivors), removed


def names_at(table: HostTable, stage: Stages, number: int) -> tuple[str, ...]:
    """Names of the first hosts at a stage."""
    rows = np.flatnonzero(stage == number)[:LISTED_HOSTS].tolist()
    return tuple([table.names[row] for row in rows])


def overlaid(
    table: HostTable, rules: Rules, standing: Standing, once: Sequence[tuple[int, Mask]]
) -> tuple[Mask, Counts, Removed]:
    """A standing with more steps (number and mask) on top: who survives, and what is told."""
    stage = standing.stage.copy()
    for number, mask in once:
        stage[(stage > number) & ~mask] = number
    stage[~table.alive] = _DEAD
    passed = len(standing.counts) - 1
    counts: list[int] = np.bincount(stage, minlength=_DEAD + 1)[: passed + 1].tolist()
    fresh = {number for number, _ in once}

    def removed_at(number: int) -> tuple[str, ...]:
        # Steps that are not on top can only have lost hosts.
        if number in fresh or counts[number] != standing.counts[number]:
            return names_at(table, stage, number)
        return standing.removed_at(number)

    return stage == passed, *explain(rules.told, len(table), counts, removed_at)
