"""A database that neither answers nor refuses: who waits is told in time, and what was told is true."""

import asyncio

import pytest
import sqlalchemy as sa
from tests.services.test_every_database import NOW
from tests.support.databases import DatabaseServer

from kilonova.model.errors import Unavailable
from kilonova.store import migrations
from kilonova.store.engine import READERS, WRITERS, Store
from kilonova.store.queries import aggregates
from kilonova.store.tables.flavors import aggregates as aggregate_table
from kilonova.store.transactions import Tx

PATIENCE_S = 2.0


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
async def test_nobody_waits_for_ever_and_nothing_is_kept_that_was_given_up(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: DatabaseServer = request.getfixturevalue(kind)
    store = Store.open(server.create("hangs"), patience_s=PATIENCE_S)
    migrations.upgrade(store.engine)
    await asyncio.gather(*(_write(store, f"before {n}") for n in range(WRITERS)))  # its connections are there
    await asyncio.gather(*(store.read(aggregates.list_all) for _ in range(READERS)))
    names = [f"while it hangs {n}" for n in range(3 * WRITERS)]
    with server.hung():
        async with asyncio.timeout(30):  # far more than its patience, far less than for ever
            writes = await asyncio.gather(*(_write(store, name) for name in names), return_exceptions=True)
            reads = await asyncio.gather(
                *(store.read(aggregates.list_all) for _ in range(3 * READERS)), return_exceptions=True
            )
    assert [type(one) for one in (*writes, *reads)] == [Unavailable] * (len(writes) + len(reads))
    async with asyncio.timeout(60):  # and it recovers by itself
        while True:
            try:
                await _write(store, "after")
                break
            except Unavailable:
                await asyncio.sleep(0.2)
    await asyncio.sleep(PATIENCE_S)  # what was in the hands of its threads has ended
    kept = {one.name for one in await store.read(aggregates.list_all)}
    for name, told in zip(names, writes, strict=True):
        if "Nothing was written" in str(told):
            assert name not in kept
        else:
            assert "it is not known" in str(told)
    assert "after" in kept
    await store.close()


async def _write(store: Store, name: str) -> None:
    def write(tx: Tx) -> None:
        values = {"uuid": name, "name": name, "metadata": {}, "created_at": NOW}
        tx.execute(sa.insert(aggregate_table).values(**values))

    await store.run(write)
