"""How all hosts stand towards requests of one shape: where each fails, and what each weighs."""

import random
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kilonova.model.request_spec import LISTED_HOSTS, Choice, RequestSpec
from kilonova.scheduler.decide import Counts, Removed, Rules, Scale, is_silent, nowhere, rank, somewhere
from kilonova.scheduler.part import TablePart
from kilonova.scheduler.plugin import NOT_ASKED, Filter
from kilonova.scheduler.steps import CONSIDERED
from kilonova.scheduler.table import Column, HostTable, Mask, Rows

Keys: TypeAlias = tuple[Hashable, ...]

_DEAD = 255
"""Stage of rows without a host."""

_UNKNOWN = -1
"""The row of an end of a scale that was not looked for yet."""


class Standing:
    """For one shape of request: the stage of each host (the step where it fails), and its weight.

    `keys` are those of all steps and weighers; a request of this shape has the same. Steps that are not asked
    pass everything and are not asked.
    """

    def __init__(self, table: HostTable, rules: Rules, keys: Keys, spec: RequestSpec) -> None:
        self._table = table
        self._rules = rules
        steps = rules.steps
        step_keys, weigher_keys = keys[: len(steps)], keys[len(steps) :]
        self._asked: list[Filter] = [step for step, key in zip(steps, step_keys, strict=True) if key is not NOT_ASKED]
        self._reads = [int(step.reads) for step in self._asked]  # type: ignore[attr-defined]
        self._number = {id(step): number for number, step in enumerate(self._asked)}
        # What explanations list: every enabled filter, asked or not; its place among those asked, or None.
        self._told = [
            (step.name, self._number.get(id(step))) for step in steps if id(step) in self._number or not is_silent(step)
        ]
        self._weighers = [
            weighted for weighted, key in zip(rules.weighers, weigher_keys, strict=True) if key is not NOT_ASKED
        ]
        self._begin(spec)

    @property
    def nbytes(self) -> int:
        """Memory that this takes."""
        return self._passes.nbytes + self._stage.nbytes + self._totals.nbytes

    # ---- filters -------------------------------------------------------------------------------------------------

    def _begin(self, spec: RequestSpec) -> None:
        table = self._table
        self._passes: npt.NDArray[np.bool_] = np.empty((len(self._asked), table.size), dtype=np.bool_)
        for number, step in enumerate(self._asked):
            self._passes[number] = step.mask(table, spec)
        self._stage = self._stages(self._passes)
        self._stage[~table.alive] = _DEAD
        passed = len(self._asked)
        self._counts: list[int] = np.bincount(self._stage, minlength=_DEAD + 1)[: passed + 1].tolist()
        self._names: list[tuple[str, ...] | None] = [None] * (passed + 1)
        self._survivors: Rows | None = None
        self._totals: Column = np.empty(0)
        self._scales: list[Scale] = []
        self._extremes: list[tuple[int, int]] = []
        self._dirty: set[int] = set()
        self.version = table.version

    def _stages(self, passes: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        """The first step that each host fails; their number, if it fails none."""
        if not len(self._asked):
            return np.zeros(passes.shape[1], dtype=np.uint8)
        first: npt.NDArray[np.uint8] = passes.argmin(axis=0).astype(np.uint8)
        first[passes.all(axis=0)] = len(self._asked)
        return first

    def catch_up(self, spec: RequestSpec) -> None:
        """Ask again about the hosts that changed."""
        table = self._table
        if self.version == table.version:
            return
        changed = table.changed_rows(self.version)
        if changed is None or len(changed) > table.size // 4:
            self._begin(spec)
            return
        self.version = table.version
        if not changed:
            return
        groups = 0
        for of_row in changed.values():
            groups |= of_row
        rows = np.array(list(changed))
        part = TablePart(table, rows)
        touched = False
        for number, (step, reads) in enumerate(zip(self._asked, self._reads, strict=True)):
            if reads & groups:
                self._passes[number, rows] = step.mask(part, spec)
                touched = True
        if touched:
            before, after = self._stage[rows], self._stages(self._passes[:, rows])
            self._stage[rows] = after
            for old, new in zip(before.tolist(), after.tolist(), strict=True):
                if old != new:
                    self._move(old, new)
        self._dirty.update(changed)

    def _move(self, old: int, new: int) -> None:
        self._counts[old] -= 1
        self._counts[new] += 1
        self._names[old] = self._names[new] = None
        if len(self._asked) in (old, new):
            self._survivors = None

    def mask_of(self, step: Filter) -> Mask:
        """What a step says of all hosts. Not to be changed."""
        mask: Mask = self._passes[self._number[id(step)]]
        return mask

    def _explained(self) -> tuple[Counts, Removed]:
        left = len(self._table)
        counts = [(CONSIDERED, left)]
        removed: Removed = {}
        for name, number in self._told:
            if number is not None and self._counts[number]:
                left -= self._counts[number]
                removed[name] = self._removed_at(number)
            counts.append((name, left))
            if not left:
                break
        return tuple(counts), removed

    def _removed_at(self, number: int) -> tuple[str, ...]:
        known = self._names[number]
        if known is None:
            rows = np.flatnonzero(self._stage == number)[:LISTED_HOSTS].tolist()
            known = self._names[number] = tuple(self._table.names[row] for row in rows)
        return known

    # ---- the decision --------------------------------------------------------------------------------------------

    def decide(self, spec: RequestSpec, rng: random.Random, scores: Sequence[Column], server_id: str) -> Choice:
        """The decision for a request of this shape. `scores` are those of the weighers asked, of now."""
        counts, removed = self._explained()
        count = self._counts[len(self._asked)]
        if not count:
            return nowhere(self._table, spec, self._rules, counts, removed, server_id=server_id)
        self._weigh(scores)
        best = rank(self._totals, count, self._rules, rng)
        return somewhere(self._table, counts, removed, best, self._totals, self._scales, server_id=server_id)

    def _weigh(self, scores: Sequence[Column]) -> None:
        """Bring the totals up to date."""
        passed = len(self._asked)
        if self._survivors is None:
            self._survivors = np.flatnonzero(self._stage == passed)
        dirty = np.array(list(self._dirty), dtype=np.intp)
        self._dirty.add(_UNKNOWN)
        rescaled = len(self._totals) != self._table.size
        if rescaled:
            self._scales = [
                Scale.of(weighted, raw, self._survivors, weighted.multipliers(self._table))
                for weighted, raw in zip(self._weighers, scores, strict=True)
            ]
            self._extremes = [(_UNKNOWN, _UNKNOWN)] * len(scores)
        elif len(dirty):
            alive = dirty[self._stage[dirty] == passed]
            for number, raw in enumerate(scores):
                rescaled |= self._rescale(number, raw, alive)
        if rescaled:
            self._totals = np.where(self._stage == passed, 0.0, -np.inf)
            for scale in self._scales:
                self._totals += scale.part()
        elif len(dirty):
            totals = np.where(self._stage[dirty] == passed, 0.0, -np.inf)
            for scale in self._scales:
                totals += scale.part(dirty)
            self._totals[dirty] = totals
        self._dirty.clear()

    def _rescale(self, number: int, raw: Column, changed: Rows) -> bool:
        """Find the ends of a weigher's scale again, if they may have moved; whether they have.

        An end stays where it is as long as the host that has it did not change, and no host that changed (and
        passes: `changed`) goes beyond it.
        """
        weighted, scale = self._weighers[number], self._scales[number]
        assert self._survivors is not None
        before = scale.low, scale.high
        low_row, high_row = self._extremes[number]
        of_changed = raw[changed]
        # From the end: choices fall on the first of equals, so the last of them rests longest.
        if weighted.maximum is None and (high_row in self._dirty or (of_changed > scale.high).any()):
            of_all = raw[self._survivors][::-1]
            position = int(of_all.argmax())
            high_row, scale.high = int(self._survivors[-1 - position]), float(of_all[position])
        if weighted.minimum is None and (low_row in self._dirty or (of_changed < scale.low).any()):
            of_all = raw[self._survivors][::-1]
            position = int(of_all.argmin())
            low_row, scale.low = int(self._survivors[-1 - position]), float(of_all[position])
        self._extremes[number] = low_row, high_row
        is_other = raw is not scale.raw
        scale.raw = raw
        return is_other or before != (scale.low, scale.high)
