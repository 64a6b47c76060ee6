"""The total weight of every host for requests of one shape, mended where hosts changed."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kilonova.scheduler.board import Board
from kilonova.scheduler.decide import Weighted
from kilonova.scheduler.table import Column, HostTable, Mask, Rows


class Totals:
    """Sums of the weighers' parts: (score - low) * (multiplier / (high - low)), as in `decide.Scale`.

    The ends `low` and `high` of each weigher's scale are those of the hosts that pass, unless it has its own. They
    stay where they are as long as the hosts that have them do not change and no other goes beyond them.
    """

    def __init__(self, table: HostTable, weighers: Sequence[Weighted], board: Board) -> None:
        """`board` has the clamped scores of `weighers`, in their order, up to date whenever this is asked."""
        self._scores = board.matrix
        self._space = board.space
        self._weighers = weighers
        self._multipliers = [weighted.multipliers(table) for weighted in weighers]
        self._plain = np.array([m if isinstance(m, float) else 0.0 for m in self._multipliers])
        self._names = [weighted.weigher.name for weighted in weighers]
        count = len(weighers)
        self._low, self._high = np.zeros((count, 1)), np.zeros((count, 1))
        # Who has the ends. Where a weigher has its own, that is nobody, and any row does.
        self._end_rows: Rows = np.zeros((2, count), dtype=np.intp)
        self._row_version = table.row_version
        self._version = -1
        self._values: Column = np.empty(table.size)

    def is_of(self, board: Board) -> bool:
        """Whether these totals are of this board as it is now laid out."""
        return self._scores is board.matrix

    def bring_up_to_date(self, passes: Mask, survivors: Rows, changed: Rows | None, version: int) -> Column:
        """Totals of all hosts, minus infinity for those that do not pass. Not to be changed.

        Args:
            changed: rows that changed since the last time; None if that is not known.
            version: of the table, now.
        """
        since, self._version = self._version, version
        if changed is None:
            self._find_ends(survivors, range(len(self._weighers)))
            self._add_all(passes)
        elif len(changed):
            scores = self._scores.take(changed, axis=1)
            moved = self._moved_ends(passes, changed, scores, since)
            if moved and self._find_ends(survivors, moved):
                self._add_all(passes)
            else:
                values = np.where(passes.take(changed), 0.0, -np.inf)
                for part in self._parts(changed, scores):
                    values += part
                self._values[changed] = values
        return self._values

    def _moved_ends(self, passes: Mask, changed: Rows, scores: npt.NDArray[np.float64], since: int) -> list[int]:
        """Numbers of the weighers whose ends may have moved: who has one changed, or somebody goes beyond."""
        moved = set(np.flatnonzero(self._row_version.take(self._end_rows) > since).tolist())
        moved = {number % len(self._weighers) for number in moved}
        beyond = (scores > self._high) | (scores < self._low)
        if beyond.any():
            beyond &= passes.take(changed)
            moved.update(np.flatnonzero(beyond.any(axis=1)).tolist())
        return sorted(moved)

    def _find_ends(self, survivors: Rows, numbers: Sequence[int] | range) -> bool:
        """Look for the ends of some scales; whether any is elsewhere."""
        is_elsewhere = False
        for number in numbers:
            weighted = self._weighers[number]
            before = self._low[number, 0], self._high[number, 0]
            # From the end: choices fall on the first of equals, so the last of them rests longest.
            scores = self._scores[number].take(survivors)[::-1]
            if (low := weighted.minimum) is None:
                position = int(scores.argmin())
                low, self._end_rows[0, number] = float(scores[position]), survivors[-1 - position]
            if (high := weighted.maximum) is None:
                position = int(scores.argmax())
                high, self._end_rows[1, number] = float(scores[position]), survivors[-1 - position]
            self._low[number], self._high[number] = low, high
            is_elsewhere |= before != (low, high)
        return is_elsewhere

    def _add_all(self, passes: Mask) -> None:
        values, space = self._values, self._space
        values.fill(-np.inf)
        values[passes] = 0.0
        ends = zip(self._low[:, 0].tolist(), self._high[:, 0].tolist(), strict=True)
        for scores, (low, high), multiplier in zip(self._scores, ends, self._multipliers, strict=True):
            if low != high:
                part = np.subtract(scores, low, out=space) if low else scores
                np.multiply(part, multiplier / (high - low), out=space)
                values += space

    def _parts(self, rows: Rows, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Each weigher's parts in the totals of `rows`, which have these scores."""
        span = self._high - self._low
        span[span == 0.0] = np.inf  # all equal: all 0
        parts: npt.NDArray[np.float64] = (scores - self._low) * (self._plain[:, None] / span)
        for number, multiplier in enumerate(self._multipliers):
            if not isinstance(multiplier, float):
                parts[number] = (scores[number] - self._low[number]) * (multiplier.take(rows) / span[number])
        parts += 0.0  # no minus zeros
        return parts

    def parts_of(self, rows: Rows) -> Mapping[str, list[float]]:
        """By weigher, its part in the total of each of `rows`."""
        parts = self._parts(rows, self._scores.take(rows, axis=1)).tolist()
        return dict(zip(self._names, parts, strict=True))
