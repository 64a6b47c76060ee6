"""A fresh, empty store for a test: on a file of SQLite, or on the server that the environment names.

``KILONOVA_TEST_DATABASE`` is set by tests/services/test_every_database.py, which runs the tests of the store once more
on PostgreSQL and on MariaDB.
"""

import os
from pathlib import Path

import sqlalchemy as sa

from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.tables.all import CELL, GLOBAL

SERVER = "KILONOVA_TEST_DATABASE"


def fresh_store(tmp_path: Path) -> Store:
    """An open store with all tables and no rows."""
    url = os.environ.get(SERVER)
    store = Store.open(url or f"sqlite:///{tmp_path / 'db.sqlite'}")
    if url and sa.inspect(store.engine).has_table("servers"):  # making tables anew for each test takes its time
        with store.engine.begin() as connection:
            for metadata in (CELL, GLOBAL):
                for table in metadata.tables.values():
                    connection.execute(sa.delete(table))
    elif url:
        migrations.upgrade(store.engine)  # which also says how a server compares names
    else:
        store.create_all()
    return store


def on_sqlite() -> bool:
    """Whether `fresh_store` is on SQLite."""
    return SERVER not in os.environ
