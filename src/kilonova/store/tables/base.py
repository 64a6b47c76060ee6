"""The two schemas and the column types that all tables share."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

GLOBAL = sa.MetaData()
"""What the whole cloud shares: identity, quota, flavors, key pairs, aggregates, images, networks."""

CELL = sa.MetaData()
"""What belongs to one cell: hosts, servers, tasks, claims. No foreign key crosses to `GLOBAL`."""


class Timestamp(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds; naive UTC in the database."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone was given to the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


Json = sa.JSON()
Uuid = sa.String(36)
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A primary key that the database counts up."""
