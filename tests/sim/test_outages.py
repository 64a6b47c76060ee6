"""Faults that last: a host's drivers, or the database, refuse everything for a while."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from tests.unit.compute.compute_rig import guest

from kilonova.conductor.invariants import Violation
from kilonova.model.errors import CloudError, HypervisorUnavailable, NetworkFailed, Unavailable
from kilonova.model.network_plans import HostNetworks
from kilonova.sim import faults
from kilonova.sim.database import SimulatedDatabase, SimulatedStore
from kilonova.sim.faults import Faults, chance_from
from kilonova.sim.history import History
from kilonova.sim.hypervisor import SimulatedHypervisor
from kilonova.sim.loop import SimulatedLoop
from kilonova.sim.networks import SimulatedNetworks
from kilonova.sim.outages import HostOutages, Outage
from kilonova.sim.removals import COMPARISONS, Removals
from kilonova.store.queries.invariants import Books
from kilonova.store.transactions import Tx
from kilonova.virt.fake.options import FakeOptions


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    made = SimulatedLoop(chance_from(1, "order"))
    yield made
    made.close()


def _always(loop: SimulatedLoop, patch: pytest.MonkeyPatch, seed: int, *kinds: str) -> tuple[Faults, History]:
    for kind in kinds:
        patch.setitem(faults.RATES, kind, 1.0)
    made = Faults(seed, kinds)
    made.is_on = True
    return made, History(loop)


async def _told(work: Coroutine[Any, Any, object]) -> type[CloudError] | None:
    try:
        await work
    except CloudError as error:
        return type(error)
    return None


def test_an_outage_ends_by_itself_and_peace_waits_for_that(loop: SimulatedLoop) -> None:
    outage = Outage("it", loop, History(loop))

    async def main() -> None:
        outage.begin(100)
        outage.begin(20)
        assert loop.world_is_busy_until() == 100
        await asyncio.sleep(99)
        assert outage.is_on
        await asyncio.sleep(1)
        assert not outage.is_on

    loop.run_until_complete(main())


def test_a_broken_host_refuses_more_often_than_anybody_asks(
    loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guests', networks', or both; some that change nothing still tell what there is. All end."""
    seen: set[tuple[bool, bool, bool]] = set()

    async def main() -> None:
        for seed in range(20):
            made, history = _always(loop, monkeypatch, seed, "driver.broken")
            outages = HostOutages("host", loop, made, history)
            hypervisor = SimulatedHypervisor("host", FakeOptions(), loop, made, outages, seed=seed)
            tools = SimulatedNetworks(made, outages)
            outages.maybe_begin()
            made.is_on = False  # peace does not mend it at once
            asked = {
                "looks": [await _told(hypervisor.list_guests()) for _ in range(2)],
                "guests": [await _told(hypervisor.destroy("server")) for _ in range(2)],
                "networks": [await _told(tools.reconcile(HostNetworks())) for _ in range(2)],
            }
            assert asked["guests"] in ([None] * 2, [HypervisorUnavailable] * 2)
            assert asked["networks"] in ([None] * 2, [NetworkFailed] * 2)
            looks, guests, networks = (any(answers) for answers in asked.values())
            assert (guests or networks) and (guests or not looks)
            seen.add((looks, guests, networks))
            await asyncio.sleep(900)
            assert await _told(hypervisor.destroy("server")) is await _told(tools.unplug("server")) is None

    loop.run_until_complete(main())
    assert len(seen) == 5  # both or guests alone, each with looks or without; networks alone


def test_a_guest_left_behind_is_counted_by_comparisons_that_can_remove_it(loop: SimulatedLoop) -> None:
    made = Faults(1, ())
    outages = HostOutages("host", loop, made, History(loop))
    hypervisor = SimulatedHypervisor("host", FakeOptions(), loop, made, outages, seed=1)
    removals = Removals(loop, {"host": hypervisor})
    books = cast(Books, SimpleNamespace(servers={}))

    def compare(times: int) -> list[Violation]:
        for _ in range(times):
            removals.note_comparison("host")
        return list(removals.look(books))

    async def main() -> None:
        await hypervisor.spawn(guest("left"))
        removals.see([("removed", "left", "host", "failed")])
        assert compare(0) == []
        holds = loop.create_task(asyncio.sleep(300))
        hypervisor._going_on[holds] = "left"
        assert compare(20) == [], "what holds the guest keeps everybody from it"
        del hypervisor._going_on[holds]
        outages.guests.begin(300)
        assert compare(20) == [], "a broken hypervisor removes nothing, whoever compares"
        await asyncio.sleep(300)
        assert compare(COMPARISONS) == []
        assert [violation.what for violation in compare(1)] == ["left"]

    loop.run_until_complete(main())


def test_network_tools_hang_for_longer_than_a_step_waits(loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    made, history = _always(loop, monkeypatch, 1, "driver.hang")
    tools = SimulatedNetworks(made, HostOutages("host", loop, made, history))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90):
                await tools.unplug("server")

    loop.run_until_complete(main())


def _with_database(
    loop: SimulatedLoop, made: Faults, history: History, main: Callable[[SimulatedDatabase, SimulatedStore], Any]
) -> None:
    database = SimulatedDatabase(loop, made, history)
    with database.store.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE marks (number INTEGER)")
    try:
        loop.run_until_complete(main(database, database.connect(loop.begin("service#1"))))
    finally:
        database.close()


def _mark(tx: Tx, seen: list[int]) -> int:
    tx.execute(sa.text("INSERT INTO marks VALUES (1)"))
    seen.append(_marks(tx))
    return seen[-1]


def _marks(tx: Tx) -> int:
    return int(tx.execute(sa.text("SELECT count(*) FROM marks")).scalar_one())


def test_a_database_that_is_away_refuses_all_and_comes_back(
    loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, history = _always(loop, monkeypatch, 1)

    async def main(database: SimulatedDatabase, store: SimulatedStore) -> None:
        seen: list[int] = []
        database.outage.begin(20)
        with pytest.raises(Unavailable):
            await store.run(_mark, seen)
        with pytest.raises(Unavailable):
            await store.read(_marks)
        assert seen == []
        await asyncio.sleep(20)
        database.outage.begin(1)  # so short that the store's own patience outlasts it
        assert await store.run(_mark, seen) == 1

    _with_database(loop, made, history, main)


def test_who_waits_for_a_commit_when_the_database_goes_away_is_told_that_it_is_not_known(
    loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, history = _always(loop, monkeypatch, 1)

    async def main(database: SimulatedDatabase, store: SimulatedStore) -> None:
        def mark_and_die(tx: Tx) -> None:
            _mark(tx, [])
            database.outage.begin(5)

        with pytest.raises(Unavailable, match="not known"):
            await store.run(mark_and_die)
        await asyncio.sleep(5)
        assert await store.read(_marks) == 1

    _with_database(loop, made, history, main)


def test_what_is_rolled_back_at_commit_is_told_so_or_is_run_again_from_the_beginning(
    loop: SimulatedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, history = _always(loop, monkeypatch, 1, "database.again")
    ends: list[tuple[str, int]] = []

    async def main(database: SimulatedDatabase, store: SimulatedStore) -> None:
        for _ in range(20):
            seen: list[int] = []
            made.is_on = True

            def mark(tx: Tx, seen: list[int] = seen) -> int:
                made.is_on = False  # once each
                return _mark(tx, seen)

            before = database.store.run_now(_marks)
            try:
                await store.run(mark)
                ends.append(("done", len(seen)))
                assert seen == [before + 1] * 2  # the first time left nothing
                assert database.store.run_now(_marks) == before + 1
            except Unavailable:
                ends.append(("refused", len(seen)))
                assert database.store.run_now(_marks) == before

    _with_database(loop, made, history, main)
    assert set(ends) == {("done", 2), ("refused", 1)}
