"""What the store promises, on SQLite, PostgreSQL and MariaDB alike."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.support.databases import DatabaseServer
from tests.support.stores import SERVER

from kilonova.model.errors import AlreadyExists
from kilonova.model.host import HostReport
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import aggregates, allocations, hosts
from kilonova.store.tables.all import CELL, GLOBAL
from kilonova.store.tables.flavors import aggregates as aggregate_table
from kilonova.store.transactions import Tx, insert_if_absent

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
ENGINES = ("sqlite", "postgresql", "mariadb")

_made = 0


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new, empty database."""
    global _made
    _made += 1
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'db.sqlite'}"
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server.create(f"every_{_made}")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = Store.open(url)
    migrations.upgrade(store.engine)
    yield store
    await store.close()


def test_migrations_go_up_down_and_up_and_give_the_tables_of_the_code(url: str) -> None:
    store = Store.open(url, inline=True)
    assert migrations.upgrade(store.engine)
    with store.engine.connect() as connection:
        options: dict[str, Any] = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, [GLOBAL, CELL]) == []
    for revision in reversed(migrations.revisions()[:-1]):  # one step at a time
        migrations.downgrade(store.engine, revision)
        assert migrations.current(store.engine) == revision
    migrations.downgrade(store.engine, "base")
    assert set(sa.inspect(store.engine).get_table_names()) <= {migrations.VERSION_TABLE}
    assert migrations.upgrade(store.engine)


async def test_sixteen_hundred_claims_from_four_processes_get_a_thousand_places(store: Store, url: str) -> None:
    report = HostReport(
        host="h1",
        hypervisor_hostname="h1",
        hypervisor_type="fake",
        hypervisor_version=1,
        vcpus=1000,
        memory_mib=64 * 1000,
        disk_gib=1,
        vcpus_ratio=1.0,
    )
    await store.run(hosts.record_report, report, uuid="00000000-0000-4000-8000-000000000001", at=NOW)
    host_id = await store.read(hosts.id_of, "h1")
    claimer = Path(__file__).with_name("claimer.py")
    racers = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(claimer), url, str(400 * n), "400", str(host_id), stdout=asyncio.subprocess.PIPE
        )
        for n in range(4)
    ]
    answers = await asyncio.gather(*(racer.communicate() for racer in racers))
    won = [int(out) for out, _ in answers]
    assert sum(won) == 1000, won
    assert await store.read(allocations.drift) == []


async def test_transactions_that_lock_each_other_are_run_again(store: Store) -> None:
    at = NOW
    first, second = [
        await store.run(aggregates.insert, uuid=f"u{n}", name=f"a{n}", metadata={}, at=at) for n in range(2)
    ]
    runs = 0

    def both(tx: Tx, ids: tuple[int, int], mark: str) -> None:
        nonlocal runs
        runs += 1
        for aggregate_id in ids:
            tx.execute(
                sa.update(aggregate_table).where(aggregate_table.c.id == aggregate_id).values(metadata={"by": mark})
            )
            if tx.dialect != "sqlite":
                tx.execute(sa.text("SELECT pg_sleep(0.05)" if tx.dialect == "postgresql" else "SELECT SLEEP(0.05)"))

    # Opposite orders: on a server, one of each pair is chosen as the victim of a deadlock.
    await asyncio.gather(*(store.run(both, (first, second) if n % 2 else (second, first), f"t{n}") for n in range(6)))
    found = [await store.read(aggregates.get, aggregate_id) for aggregate_id in (first, second)]
    assert found[0].metadata == found[1].metadata
    assert runs >= 6


async def test_what_is_written_comes_back(store: Store) -> None:
    odd = {"ключ": "значение 🚀", "empty": "", "quote": "'\"\\"}
    aggregate_id = await store.run(aggregates.insert, uuid="u", name="Größe 🚀", metadata=odd, at=NOW)
    found = await store.read(aggregates.get, aggregate_id)
    assert (found.name, found.metadata, found.created_at, found.updated_at) == ("Größe 🚀", odd, NOW, None)
    elsewhere = NOW.astimezone(datetime.now().astimezone().tzinfo) + timedelta(seconds=1)
    await store.run(aggregates.update, aggregate_id, at=elsewhere, name="x")
    assert (await store.read(aggregates.get, aggregate_id)).updated_at == NOW + timedelta(seconds=1)


async def test_names_are_compared_letter_by_letter(store: Store) -> None:
    for number, name in enumerate(("name", "Name", "NAME", "näme", "name ")):
        await store.run(aggregates.insert, uuid=f"u{number}", name=name, metadata={}, at=NOW)
    with pytest.raises(AlreadyExists):
        await store.run(aggregates.insert, uuid="again", name="Name", metadata={}, at=NOW)


async def test_a_key_that_came_in_between_is_a_conflict_and_not_a_fault(store: Store) -> None:
    def insert(tx: Tx) -> None:
        values = {"uuid": "same", "name": "same", "metadata": {}, "created_at": NOW}
        tx.execute(sa.insert(aggregate_table).values(**values))

    await store.run(insert)
    with pytest.raises(AlreadyExists):
        await store.run(insert)


async def test_insert_if_absent_says_who_was_first(store: Store) -> None:
    row = {"name": "x", "value": 1}
    table = GLOBAL.tables["versions"]
    found = await asyncio.gather(*(store.run(insert_if_absent, table, row) for _ in range(8)))
    assert sorted(found) == [False] * 7 + [True]


async def test_what_is_too_long_is_refused_and_not_cut(store: Store) -> None:
    if store.engine.dialect.name == "sqlite":
        pytest.skip("SQLite keeps any length; the API's schemas bound it")
    with pytest.raises(sa.exc.DBAPIError):
        await store.run(aggregates.insert, uuid="u", name="x" * 256, metadata={}, at=NOW)
    assert await store.read(aggregates.list_all) == []


@pytest.mark.parametrize(
    "folders",
    [
        pytest.param(["tests/unit/store", "tests/unit/tasks", "tests/unit/conductor", "tests/unit/cloud"], id="store"),
        pytest.param(
            [
                *(f"tests/unit/identity/test_{name}.py" for name in ("failed_logins", "groups", "role_assignments")),
                "tests/unit/identity/test_things.py::test_filters",
            ],
            id="identity",
        ),
        pytest.param(
            [f"tests/functional/test_{name}.py" for name in ("servers", "placement_rules", "requests")],
            id="cloud",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_what_runs_on_sqlite_runs_on_a_server(kind: str, folders: list[str], request: pytest.FixtureRequest) -> None:
    """The same tests as among the others, once more: of the store, of tasks and of identity, and of whole clouds."""
    global _made
    _made += 1
    server: DatabaseServer = request.getfixturevalue(kind)
    environment = {**os.environ, SERVER: server.create(f"suite_{_made}")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
