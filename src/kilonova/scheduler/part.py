"""Some rows of a table, in the shape of a table: filters and weighers can be asked about these hosts alone.

That is how answers about 10,000 hosts are brought up to date after one of them changed.
"""

from collections.abc import Mapping
from typing import Any

from kilonova.scheduler.table import Column, HostTable, IntColumn, Rows


class TablePart(HostTable):
    """Rows `rows` of `whole`. Columns are copied when first asked for. Read only, and only until `whole` changes."""

    def __init__(self, whole: HostTable, rows: Rows) -> None:
        # Not the parent's: a part has no columns of its own, it fetches them (`__getattr__`).
        self._whole = whole
        self.rows = rows
        self.size = len(rows)
        self.seq = whole.seq
        self.version = whole.version
        self.aggregates = whole.aggregates
        self.complaints = whole.complaints
        self._profiles = whole._profiles
        self._devices = whole._devices
        self._servers = whole._servers

    def __getattr__(self, name: str) -> Any:
        value: Any
        if name in ("names", "states"):
            of_whole = getattr(self._whole, name)
            value = [of_whole[row] for row in self.rows]
        elif name == "row_of":
            value = {host: row for row, host in enumerate(self.names) if host}
        elif name.startswith("_"):
            raise AttributeError(name)
        else:
            value = getattr(self._whole, name).take(self.rows)
        setattr(self, name, value)
        return value

    def __len__(self) -> int:
        return int(self.alive.sum())

    def _of_class(self, resource_class: str, what: str) -> IntColumn:
        name = f"{what} {resource_class}"
        column: IntColumn | None = self.__dict__.get(name)
        if column is None:
            column = self.__dict__[name] = self._whole._of_class(resource_class, what).take(self.rows)
        return column

    def metric(self, name: str) -> Column:
        column: Column = self._whole.metric(name).take(self.rows)
        return column

    def promised_members(self, group_id: str) -> dict[str, str]:
        return self._whole.promised_members(group_id)

    @property
    def pending(self) -> Mapping[str, Any]:
        return self._whole.pending
