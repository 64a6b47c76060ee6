"""Who counts as alive: by what was heard, and only if one can hear at all."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from kilonova.base.clock import Clock
from kilonova.base.ids import SeededIds
from kilonova.conductor.liveness import Liveness, LivenessOptions
from kilonova.model.errors import Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import service_events, services

START = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """A clock that moves when told; what sleeps looks again each time."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def ahead_by(self, seconds: float) -> "Clock":
        """The clock of a machine that believes it is later, or earlier if negative."""
        return cast(Clock, AnotherClock(self, timedelta(seconds=seconds)))

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    async def sleep(self, seconds: float) -> None:
        until = self.at + timedelta(seconds=seconds)
        while self.at < until:
            await asyncio.sleep(0)


class AnotherClock:
    """One that differs from `Time`."""

    def __init__(self, time: Time, difference: timedelta) -> None:
        self._time = time
        self._difference = difference

    def now(self) -> datetime:
        return self._time.now() + self._difference

    def monotonic(self) -> float:
        return self._time.monotonic()


class World:
    """Conductors on one store, and agents that report every ten seconds to one after the other."""

    def __init__(self, store: Store, conductors: int = 1, ahead_s: float = 0.0) -> None:
        self.store = store
        self.time = Time()
        options = LivenessOptions(report_interval=10, service_down_time=60)
        self.ears = [Liveness(store, self.time.ahead_by(ahead_s * n), SeededIds(n), options) for n in range(conductors)]
        self.hosts = [f"h{n}" for n in range(4)]
        self.silent: set[str] = set()
        self.broker_is_up = True

    async def second(self) -> None:
        """One second passes: who reports is heard, then everybody writes."""
        self.time.at += timedelta(seconds=1)
        for number, host in enumerate(self.hosts):
            if self.broker_is_up and host not in self.silent and (self.time.monotonic() + number) % 10 == 0:
                ear = self.ears[int(self.time.monotonic() // 10 + number) % len(self.ears)]
                await ear.heard("compute", host, agent_id=f"agent-{host}")
        for ear in self.ears:
            await ear._flush()

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.second()

    async def down(self) -> set[str]:
        return {service.host for service in await self.store.read(services.list_all) if not service.is_up}


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    made = World(store)
    await made.seconds(90)  # all have reported, and the first term is over
    yield made


async def test_a_silent_service_goes_down_after_its_time_and_not_before(world: World) -> None:
    last = world.time.at
    world.silent = {"h1"}
    while not await world.down():
        assert world.time.at - last < timedelta(seconds=75)
        last_seen = {s.host: s.last_seen_at for s in await world.store.read(services.list_all)}["h1"]
        await world.second()
    assert await world.down() == {"h1"}
    assert timedelta(seconds=60) <= world.time.at - last_seen <= timedelta(seconds=62)
    world.silent = set()
    await world.seconds(11)
    assert await world.down() == set()


async def test_nobody_goes_down_while_nobody_is_heard(world: World) -> None:
    world.broker_is_up = False
    await world.seconds(300)
    assert await world.down() == set(), "silence of all is our own deafness"
    world.broker_is_up = True
    await world.seconds(30)
    assert await world.down() == set()
    world.silent = {"h2"}
    await world.seconds(130)
    assert await world.down() == {"h2"}, "then it counts again"


async def test_a_conductor_that_was_held_up_gives_everybody_a_new_term(world: World) -> None:
    world.time.at += timedelta(seconds=600)
    await world.seconds(30)
    assert await world.down() == set()


async def test_two_conductors_agree_whoever_hears(store: Store) -> None:
    world = World(store, conductors=2)
    await world.seconds(90)
    world.silent = {"h0"}
    await world.seconds(150)
    assert await world.down() == {"h0"}
    told = await store.read(service_events.newest, host="h0")
    assert [event.event for event in told] == ["down", "up"], "once, whoever saw it"
    world.silent = set()
    await world.seconds(25)
    assert await world.down() == set()


@pytest.mark.parametrize("ahead_s", [70, 3600, -70, -3600])
async def test_clocks_of_conductors_that_differ_mark_nobody_who_lives(store: Store, ahead_s: float) -> None:
    world = World(store, conductors=2, ahead_s=ahead_s)
    for _ in range(300):
        await world.second()
        assert await world.down() == set()
    world.silent = {"h0"}
    await world.seconds(75)
    assert await world.down() == {"h0"}, "and who is silent goes down, if not to the second"
    world.silent = set()
    await world.seconds(25)
    assert await world.down() == set()


async def test_a_service_that_one_conductor_alone_hears_lives_whatever_that_ones_clock_says(store: Store) -> None:
    world = World(store, conductors=2, ahead_s=-3600)
    await world.seconds(90)
    right, behind = world.ears
    for second in range(1, 300):
        world.time.at += timedelta(seconds=1)
        if second % 10 == 0:
            await right.heard("compute", "h0", agent_id="agent-h0")
            for host in world.hosts[1:]:
                await behind.heard("compute", host, agent_id=f"agent-{host}")
        for ear in world.ears:
            await ear._flush()
        assert await world.down() == set()


async def test_a_deleted_service_is_known_again_by_its_next_report(world: World) -> None:
    [gone] = [s for s in await world.store.read(services.list_all) if s.host == "h3"]
    await world.store.run(services.delete, gone.uuid, at=START)
    await world.seconds(22)
    assert {s.host for s in await world.store.read(services.list_all)} == set(world.hosts)


async def test_what_was_heard_is_not_lost_when_it_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ear] = world.ears
    await ear.heard("compute", "h0", agent_id="agent-h0")
    at = world.time.at

    async def broken(*_: object, **__: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "run", broken)
        with pytest.raises(Unavailable):
            await ear._flush()
    await ear._flush()
    seen = {s.host: s.last_seen_at for s in await world.store.read(services.list_all)}
    assert seen["h0"] == at
