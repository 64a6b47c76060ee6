"""One transaction, as its function sees it, and the statements that the three databases spell differently."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite


class Tx:
    """One transaction. Functions that take it only read and write rows: they may be run again."""

    __slots__ = ("_connection", "dialect")

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect.name
        """``sqlite``, ``postgresql`` or ``mysql``."""

    def execute(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sa.CursorResult[Any]:
        """Run one statement (with a list of parameters: once for each)."""
        result: sa.CursorResult[Any] = self._connection.execute(statement, parameters)
        return result


def insert_if_absent(tx: Tx, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with the same key stands there; whether it was inserted."""
    statement: Any
    if tx.dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing()
    elif tx.dialect == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing()
    else:
        statement = mysql.insert(table).prefix_with("IGNORE")
    return tx.execute(statement.values(**values)).rowcount > 0
