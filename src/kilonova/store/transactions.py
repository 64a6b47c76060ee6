"""One transaction, as its function sees it, and the statements that the three databases spell differently."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


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
    if tx.dialect == "mysql":
        # INSERT IGNORE would also ignore values that do not fit. A duplicate undoes this statement alone.
        try:
            insert_row(tx, table, values)
        except sa.exc.IntegrityError as error:
            if getattr(error.orig, "args", (0,))[0] != _DUPLICATE:
                raise
            return False
        return True
    return tx.execute(_insert_if_absent(table, tx.dialect), values).rowcount > 0


_DUPLICATE = 1062
"""MariaDB's number for a key that is there already."""


@lru_cache(maxsize=256)
def _insert_if_absent(table: sa.Table, dialect: str) -> sa.Insert:
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    # What an INSERT did is not counted unless one asks for it.
    return insert.on_conflict_do_nothing().execution_options(preserve_rowcount=True)


# Building a statement costs several times what running it does, and SQLAlchemy keeps the compiled form by shape: so
# the plain ones are built once for each set of columns, and given their values as parameters.


@lru_cache(maxsize=256)
def _insert(table: sa.Table) -> sa.Insert:
    return sa.insert(table)


@lru_cache(maxsize=1024)
def _update(table: sa.Table, keys: tuple[str, ...], names: tuple[str, ...]) -> sa.Update:
    return (
        sa.update(table)
        .where(*(table.c[key] == sa.bindparam(f"key_{key}", type_=table.c[key].type) for key in keys))
        .values({name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names})
    )


@lru_cache(maxsize=1024)
def _select(table: sa.Table, keys: tuple[str, ...]) -> sa.Select[Any]:
    return sa.select(table).where(
        *(table.c[key] == sa.bindparam(f"key_{key}", type_=table.c[key].type) for key in keys)
    )


def insert_row(tx: Tx, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert one row."""
    tx.execute(_insert(table), values)


def insert_rows(tx: Tx, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that have the same columns."""
    tx.execute(_insert(table), list(rows))


def update_rows(tx: Tx, table: sa.Table, where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Set columns of the rows whose columns equal `where`; how many rows."""
    parameters = {f"key_{key}": value for key, value in where.items()}
    parameters |= {f"new_{name}": value for name, value in values.items()}
    return tx.execute(_update(table, tuple(where), tuple(values)), parameters).rowcount


def select_rows(tx: Tx, table: sa.Table, where: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """The rows whose columns equal `where`."""
    return tx.execute(_select(table, tuple(where)), {f"key_{key}": value for key, value in where.items()})
