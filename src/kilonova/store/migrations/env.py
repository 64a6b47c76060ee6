"""Run by alembic for every migration: hands it the connection and the tables."""

from typing import Any

import sqlalchemy as sa
from alembic import context

from kilonova.store.migrations import VERSION_TABLE
from kilonova.store.tables.all import CELL, GLOBAL


def run(engine: sa.Engine) -> None:
    """Migrate in one transaction where the database can, so that a crash leaves the former schema."""
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if engine.dialect.name == "sqlite" else {}
    with engine.connect().execution_options(**options) as connection:
        context.configure(
            connection=connection,
            target_metadata=[GLOBAL, CELL],
            version_table=VERSION_TABLE,
            compare_type=True,
            render_as_batch=False,
            transactional_ddl=True,
        )
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        with context.begin_transaction():
            context.run_migrations()
        raw = connection.connection.driver_connection
        if engine.dialect.name == "sqlite" and raw is not None and raw.in_transaction:
            connection.exec_driver_sql("COMMIT")


run(context.config.attributes["engine"])
