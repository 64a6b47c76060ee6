"""Columns worked out from the table and kept up to date: scores of weighers, levels of `Limiting` filters."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from kilonova.scheduler.part import TablePart
from kilonova.scheduler.table import Column, HostTable, IntColumn

Rule = Callable[[HostTable], Column | IntColumn]
Changed = Callable[[int], TablePart | None]
"""The rows that changed since a version; None if they are many, or unknown."""


class Board:
    """Row `n` of `matrix` is what rule `n` says of all hosts. Rules do not look at requests."""

    def __init__(self, table: HostTable, rules: Sequence[tuple[int, Rule]]) -> None:
        """`rules`: the groups of columns that each reads, and the rule."""
        self._table = table
        self._rules = rules
        self.matrix: npt.NDArray[np.float64] = np.empty((len(rules), 0))
        self.space: Column = np.empty(0)
        """Scratch memory for one column."""
        self._version = -1

    def catch_up(self, changed_since: Changed) -> None:
        """Ask again about the hosts that changed."""
        table = self._table
        if self._version == table.version:
            return
        part = changed_since(self._version) if self._version >= 0 else None
        if part is None:
            if self.matrix.shape[1] != table.size:
                self.matrix = np.empty((len(self._rules), table.size))
                self.space = np.empty(table.size)
            for number, (_, rule) in enumerate(self._rules):
                self.matrix[number] = rule(table)
        elif len(part.rows):
            groups = table.changed_groups(self._version)
            values = self.matrix.take(part.rows, axis=1)
            for row, (reads, rule) in zip(values, self._rules, strict=True):
                if reads & groups:
                    row[:] = rule(part)
            self.matrix[:, part.rows] = values
        self._version = table.version
