"""Migrations: all of them give the tables of the code, and go back to nothing."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.tables.all import CELL, GLOBAL


def _tables(store: Store) -> set[str]:
    return set(sa.inspect(store.engine).get_table_names()) - {migrations.VERSION_TABLE}


def test_up_gives_the_tables_of_the_code_and_down_takes_them_away(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}", inline=True)
    assert migrations.upgrade(store.engine)
    assert _tables(store) == {*GLOBAL.tables, *CELL.tables}
    with store.engine.connect() as connection:
        options: dict[str, Any] = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, [GLOBAL, CELL]) == []
    assert not migrations.upgrade(store.engine), "a second time there is nothing to do"
    assert migrations.current(store.engine) == migrations.revisions()[-1]
    migrations.downgrade(store.engine, "base")
    assert _tables(store) == set()
    assert migrations.upgrade(store.engine)


def test_a_migration_that_fails_leaves_the_former_schema(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}", inline=True)
    with store.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE flavors (wrong INTEGER)"))
    with pytest.raises(migrations.MigrationFailed, match="flavors already exists"):
        migrations.upgrade(store.engine)
    assert _tables(store) == {"flavors"}
    assert migrations.current(store.engine) is None
