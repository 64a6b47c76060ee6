"""An agent and its conductor come to agree, whatever happened while they did not see one another."""

import asyncio
from pathlib import Path

import pytest
from compute_rig import HOST, WHEN, Rig, guest, record

from kilonova.compute.epoch_book import EpochBook
from kilonova.compute.options import ComputeOptions
from kilonova.model.epochs import Epochs
from kilonova.model.errors import DeadlinePassed, InsufficientResources, StaleEpoch
from kilonova.model.guest import GuestSpec, PowerObservation
from kilonova.model.states import PowerState


async def until(done: object) -> None:
    async with asyncio.timeout(10):
        while not done():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_a_guest_that_belongs_here_no_more_is_removed_on_start() -> None:
    rig = Rig()
    await rig.driver.spawn(guest("gone"))
    await rig.driver.spawn(guest("stays"))
    rig.conductor.records = [record("stays")]
    await rig.agent.start()
    assert set(await rig.driver.list_guests()) == {"stays"}
    assert rig.tracker.usage.guests == 1


async def test_nothing_is_removed_when_the_conductor_does_not_answer() -> None:
    rig = Rig()
    await rig.driver.spawn(guest("s"))
    rig.conductor.away = DeadlinePassed(method="guests_of", target="conductor", deadline_s=60)
    with pytest.raises(DeadlinePassed):
        await rig.agent.reconcile()
    assert set(await rig.driver.list_guests()) == {"s"}


async def test_a_guest_killed_behind_our_back_is_told() -> None:
    rig = Rig()
    rig.conductor.records = [record("lost"), record("off"), record("busy", task_state="spawning")]
    await rig.driver.spawn(guest("off"))
    await rig.driver.power_off("off")
    await rig.agent.reconcile()
    assert rig.conductor.observed == [
        PowerObservation(server_id="lost", as_of=WHEN, power_state=PowerState.NOSTATE),
        PowerObservation(server_id="off", as_of=WHEN, power_state=PowerState.SHUTDOWN),
    ]


async def test_epochs_outlive_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "host" / "epochs"
    book = EpochBook(file)
    await Rig(epochs=Epochs(known=book.read(), record=book.record)).endpoint.spawn(guest("s"), epoch=7)
    with file.open("a") as torn:
        torn.write("s 8")  # killed while it wrote
    book = EpochBook(file)
    again = Rig(epochs=Epochs(known=book.read(), record=book.record))
    with pytest.raises(StaleEpoch):
        await again.endpoint.destroy("s", epoch=6)
    await again.endpoint.destroy("s", epoch=7)
    await again.endpoint.destroy("s", epoch=9)
    assert EpochBook(file).read() == {"s": 9}


def test_the_book_of_epochs_stays_short(tmp_path: Path) -> None:
    book = EpochBook(tmp_path / "epochs", remembered=3)
    for number in range(100):
        book.record(f"s{number % 5}", number)
    assert len((tmp_path / "epochs").read_text().splitlines()) <= 7
    assert list(EpochBook(tmp_path / "epochs", remembered=3).read().items()) == [("s2", 97), ("s3", 98), ("s4", 99)]


async def test_a_host_that_is_really_full_refuses() -> None:
    rig = Rig()
    await rig.agent.start()
    await rig.driver.spawn(guest("nobody told us", memory_mib=2000))
    with pytest.raises(InsufficientResources):
        await rig.endpoint.spawn(guest("s"), epoch=1)
    assert set(await rig.driver.list_guests()) == {"nobody told us"}


async def test_the_same_spawn_twice_makes_one_guest() -> None:
    rig = Rig()
    await asyncio.gather(*(rig.endpoint.spawn(guest("s"), epoch=1) for _ in range(2)))
    assert rig.tracker.usage.guests == len(await rig.driver.list_guests()) == 1


async def test_no_more_guests_are_made_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(options=ComputeOptions(max_concurrent_builds=2))
    now, most = 0, 0
    spawn = rig.driver.spawn

    async def slow(spec: GuestSpec) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        await spawn(spec)
        now -= 1

    monkeypatch.setattr(rig.driver, "spawn", slow)
    await asyncio.gather(*(rig.endpoint.spawn(guest(f"s{n}", memory_mib=1), epoch=1) for n in range(6)))
    assert most == 2


async def test_the_loops_go_on_after_any_error() -> None:
    rig = Rig(options=ComputeOptions(report_interval=0.01))
    rig.conductor.away = ZeroDivisionError()
    rig.agent.run()
    await until(lambda: rig.conductor.beats > 2)
    rig.conductor.away = None
    rig.conductor.known = False
    await until(lambda: rig.conductor.reports)  # a conductor that knows us not is told anew
    await rig.agent.stop()
    assert rig.conductor.reports[0].host == HOST
