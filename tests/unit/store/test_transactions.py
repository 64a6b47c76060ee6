"""Transactions: all or nothing, grouped, durable."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.stores import on_sqlite

from kilonova.model.errors import QuotaExceeded, Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import quotas
from kilonova.store.tables.quotas import quota_usages
from kilonova.store.transactions import Tx

only_sqlite = pytest.mark.skipif(not on_sqlite(), reason="about SQLite's one writer and its file")


@only_sqlite
async def test_transactions_that_wait_together_are_committed_together(store: Store) -> None:
    await asyncio.gather(*(store.run(quotas.take, f"p{n}", {"port": 1}) for n in range(200)))
    assert store.transactions == 200
    assert store.commits < 100


async def test_one_that_fails_takes_nothing_with_it_and_leaves_its_neighbours(store: Store) -> None:
    def half(tx: Tx) -> None:
        quotas.take(tx, "p", {"port": 5})
        raise ValueError("no")

    results = await asyncio.gather(
        store.run(quotas.take, "p", {"port": 1}),
        store.run(half),
        store.run(quotas.take, "p", {"port": 1}),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [type(None), ValueError, type(None)]
    assert await store.read(quotas.used, "p") == {"port": 2}


@only_sqlite
async def test_a_finished_run_is_on_disk(store: Store, tmp_path: Path) -> None:
    await store.run(quotas.take, "p", {"port": 3})
    other = sqlite3.connect(tmp_path / "db.sqlite")
    assert other.execute("SELECT used FROM quota_usages").fetchall() == [(3,)]
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


@only_sqlite
async def test_full_durability_is_on(store: Store) -> None:
    assert await store.read(lambda tx: tx.execute(sa.text("PRAGMA synchronous")).scalar()) == 2


async def test_a_reader_sees_one_snapshot(store: Store) -> None:
    await store.run(quotas.take, "p", {"port": 1})

    def twice(tx: Tx) -> tuple[int, int]:
        query = sa.select(sa.func.sum(quota_usages.c.used))
        first = tx.execute(query).scalar_one()
        store.run_now(quotas.take, "p", {"port": 1})
        return first, tx.execute(query).scalar_one()

    assert await store.read(twice) == (1, 1)


async def test_parallel_takers_get_exactly_the_limit(store: Store) -> None:
    await store.run(quotas.set_limits, "p", {"instances": 25})
    results = await asyncio.gather(
        *(store.run(quotas.take, "p", {"instances": 1, "cores": 0}) for _ in range(100)), return_exceptions=True
    )
    refused = [r for r in results if isinstance(r, QuotaExceeded)]
    assert len(refused) == 75
    assert refused[0].facts() == {"resource": "instances", "limit": 25, "used": 25, "asked": 1}
    assert (await store.read(quotas.used, "p"))["instances"] == 25


async def test_take_is_all_or_nothing(store: Store) -> None:
    await store.run(quotas.set_limits, "p", {"ram": 10})
    with pytest.raises(QuotaExceeded):
        await store.run(quotas.take, "p", {"cores": 1, "ram": 11})
    assert not any((await store.read(quotas.used, "p")).values())


async def test_a_limit_of_minus_one_is_none(store: Store) -> None:
    await store.run(quotas.set_limits, "", {"cores": -1})
    await store.run(quotas.take, "p", {"cores": 10**6})
    await store.run(quotas.give_back, "p", {"cores": 2 * 10**6})
    assert (await store.read(quotas.used, "p"))["cores"] == 0


async def test_a_glance_sees_each_commit_as_soon_as_it_is_one(store: Store) -> None:
    for n in range(1, 20):
        await store.run(quotas.take, "p", {"port": 1})
        assert await store.glance(quotas.used, "p") == {"port": n}


@only_sqlite
async def test_a_glance_waits_for_no_writer(store: Store, tmp_path: Path) -> None:
    await store.run(quotas.take, "p", {"port": 1})
    assert await store.glance(quotas.used, "p") == {"port": 1}
    other = sqlite3.connect(tmp_path / "db.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE quota_usages SET used = 7")
    assert await store.glance(quotas.used, "p") == {"port": 1}
    other.execute("COMMIT")
    other.close()
    assert await store.glance(quotas.used, "p") == {"port": 7}


@only_sqlite
async def test_a_glance_that_fails_is_a_read_and_the_next_is_a_glance_again(store: Store) -> None:
    await store.run(quotas.take, "p", {"port": 1})
    await store.glance(quotas.used, "p")
    first = store._glances
    assert first is not None
    driver = first.connection.driver_connection
    assert driver is not None
    driver.close()  # what comes of it is an error of the database, as when the whole file is locked
    assert await store.glance(quotas.used, "p") == {"port": 1}
    assert await store.glance(quotas.used, "p") == {"port": 1}
    assert store._glances is not None
    assert store._glances is not first


async def test_a_closed_store_says_so_to_a_glance(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'other.sqlite'}")
    store.create_all()
    await store.close()
    with pytest.raises(Unavailable):
        await store.glance(quotas.used, "p")
