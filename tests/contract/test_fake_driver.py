"""The fake driver: the contract of all drivers, and what it can do besides."""

import asyncio
import tracemalloc
import uuid
from collections import Counter
from pathlib import Path

import pytest
from tests.contract.driver_contract import DriverContract, World, state_of

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SeededIds
from kilonova.model.errors import GuestRejected, HypervisorUnavailable, ImageUnusable, InsufficientResources
from kilonova.model.guest import GuestSpec, ImageRef
from kilonova.model.states import PowerState
from kilonova.virt.driver import VirtDriver
from kilonova.virt.fake.driver import FakeDriver
from kilonova.virt.fake.options import FakeOptions


class FakeWorld(World):
    console_text = "Boot "
    cancel_after_s = (0, 0.005, 0.02)
    kill_after = ("begun",)

    def __init__(self, file: Path, **options: object) -> None:
        self.file = file
        self.dead: list[asyncio.Task[None]] = []
        self.options = FakeOptions(**{"spawn_delay_s": 0.01, **options})  # type: ignore[arg-type]

    async def driver(self) -> FakeDriver:
        driver = FakeDriver("host-1", self.options, SystemClock(), SeededIds(1), file=self.file)
        await driver.start()
        return driver

    def image(self) -> ImageRef:
        return ImageRef(id=str(uuid.UUID(int=7)), disk_format="raw", size=1, hash_value="00", url="")

    def unusable_image(self, driver: VirtDriver) -> ImageRef:
        assert isinstance(driver, FakeDriver)
        driver.fail_next("image", ImageUnusable("Its checksum is another."))
        return ImageRef(id=str(uuid.UUID(int=8)), disk_format="raw", size=1, hash_value="00", url="")

    async def half_make(self, driver: VirtDriver, spec: GuestSpec, step: str) -> None:
        self.dead.append(asyncio.create_task(driver.spawn(spec)))
        await asyncio.sleep(0)  # begun, in its delay; the process "dies" there


class TestFakeDriver(DriverContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> FakeWorld:
        return FakeWorld(tmp_path / "guests.jsonl")


class TestFakeDriverWithoutDelays(DriverContract):
    """As a fleet runs it; crashes in the middle of nothing cannot be had."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> FakeWorld:
        return FakeWorld(tmp_path / "guests.jsonl", spawn_delay_s=0.0)

    test_half_made_guests_are_listed_and_can_be_destroyed = None  # type: ignore[assignment]
    test_a_spawn_that_is_broken_off_leaves_nothing = None  # type: ignore[assignment]


@pytest.fixture
def world(tmp_path: Path) -> FakeWorld:
    return FakeWorld(tmp_path / "guests.jsonl", spawn_delay_s=0.0)


def a_fleet_host(**options: object) -> FakeDriver:
    return FakeDriver("host-1", FakeOptions(**options), SystemClock(), SeededIds(1))  # type: ignore[arg-type]


async def test_failures_come_as_ordered(world: FakeWorld) -> None:
    driver, spec = await world.driver(), world.spec()
    driver.fail_next("spawn", GuestRejected("first"), HypervisorUnavailable("second"))
    with pytest.raises(GuestRejected, match="first"):
        await driver.spawn(spec)
    with pytest.raises(HypervisorUnavailable, match="second"):
        await driver.spawn(spec)
    assert await driver.remains() == []
    await driver.spawn(spec)
    driver.fail_next("destroy", HypervisorUnavailable("third"))
    with pytest.raises(HypervisorUnavailable, match="third"):
        await driver.destroy(spec.server_id)
    assert await state_of(driver, spec) is PowerState.RUNNING
    await driver.destroy(spec.server_id)


async def test_the_share_of_failures_is_about_that_asked_for_and_the_same_each_time(world: FakeWorld) -> None:
    async def run() -> list[bool]:
        driver = a_fleet_host(spawn_failures=0.3)
        results = []
        for _ in range(500):
            try:
                await driver.spawn(world.spec())
                results.append(True)
            except GuestRejected:
                results.append(False)
        return results

    first, second = await run(), await run()
    assert first == second
    assert 100 < Counter(first)[False] < 200


async def test_delays_pass_on_the_given_clock(world: FakeWorld) -> None:
    class Recorder(SystemClock):
        slept: list[float] = []

        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)

    async def delays(shape: str) -> list[float]:
        Recorder.slept = []
        options = FakeOptions(spawn_delay_s=100.0, delay_shape=shape)  # type: ignore[arg-type]
        driver = FakeDriver("host-1", options, Recorder(), SeededIds(1))
        for _ in range(300):
            await driver.spawn(world.spec())
        return Recorder.slept

    assert set(await delays("fixed")) == {100.0}
    uniform = await delays("uniform")
    assert 0 <= min(uniform) < 20
    assert 180 < max(uniform) <= 200
    exponential = await delays("exponential")
    assert max(exponential) > 300
    assert 80 < sum(exponential) / 300 < 120


async def test_a_full_host_refuses_and_has_room_again_after_a_destroy(world: FakeWorld) -> None:
    driver = a_fleet_host(memory_mib=100, overcommit=1.0)
    specs = [world.spec() for _ in range(4)]  # 32 MiB each
    for spec in specs[:3]:
        await driver.spawn(spec)
    with pytest.raises(InsufficientResources, match="4 MiB of memory free, not 32"):
        await driver.spawn(specs[3])
    await driver.destroy(specs[0].server_id)
    await driver.spawn(specs[3])


async def test_what_goes_on_behind_the_clouds_back_is_seen(world: FakeWorld) -> None:
    driver, spec = await world.driver(), world.spec()
    await driver.spawn(spec)
    driver.lose(spec.server_id, PowerState.CRASHED)
    assert await state_of(driver, spec) is PowerState.CRASHED
    driver.lose(spec.server_id)
    assert await driver.list_guests() == {}
    assert (await driver.report()).memory_used_mib == 0


async def test_a_line_that_a_kill_cut_off_does_not_count(world: FakeWorld) -> None:
    driver, first, second = await world.driver(), world.spec(), world.spec()
    await driver.spawn(first)
    whole = world.file.read_bytes()
    await driver.spawn(second)
    world.file.write_bytes(world.file.read_bytes()[: len(whole) + 20])
    again = await world.driver()
    assert set(await again.list_guests()) == {first.server_id}
    await again.spawn(second)
    assert set(await (await world.driver()).list_guests()) == {first.server_id, second.server_id}


async def test_the_file_does_not_grow_for_ever(world: FakeWorld) -> None:
    driver = await world.driver()
    for _ in range(200):
        spec = world.spec()
        await driver.spawn(spec)
        await driver.destroy(spec.server_id)
    await driver.spawn(spec)
    long = world.file.stat().st_size
    again = await world.driver()
    assert set(await again.list_guests()) == {spec.server_id}
    assert world.file.stat().st_size < long / 100


async def test_ten_thousand_hosts_fit_into_one_process(tmp_path: Path) -> None:
    clock, ids, options = SystemClock(), SeededIds(1), FakeOptions()
    tracemalloc.start()
    fleet = [FakeDriver(f"host-{n}", options, clock, ids, file=tmp_path / f"{n}") for n in range(10_000)]
    for driver in fleet:
        await driver.start()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(fleet) < 3000
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nobody else waits
