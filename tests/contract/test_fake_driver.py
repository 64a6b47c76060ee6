"""The fake driver passes the contract, keeps its guests, and fails when it is told to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from driver_contract import DriverContract

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SeededIds
from kilonova.model.errors import GuestRejected
from kilonova.model.guest import GuestSpec
from kilonova.virt.driver import VirtDriver
from kilonova.virt.fake.driver import FakeDriver, FakeOptions

SERVER = "11111111-1111-4111-8111-111111111111"


def a_driver(file: Path | None = None, **options: float) -> FakeDriver:
    return FakeDriver("h1", FakeOptions(**options), SystemClock(), SeededIds(1), file=file)  # type: ignore[arg-type]


@pytest.fixture
def spec() -> GuestSpec:
    return GuestSpec(
        server_id=SERVER, name="instance-1", project_id="p", hostname="h", vcpus=1, memory_mib=128, root_gib=1
    )


class TestFakeDriver(DriverContract):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[VirtDriver]:
        driver = a_driver(spawn_delay_s=0.03)
        await driver.start()
        yield driver
        await driver.close()


async def test_guests_outlive_the_process(tmp_path: Path, spec: GuestSpec) -> None:
    before = a_driver(tmp_path / "guests.json")
    await before.start()
    await before.spawn(spec)
    after = a_driver(tmp_path / "guests.json")
    await after.start()
    assert await after.list_guests() == await before.list_guests()


async def test_failures_are_injected(spec: GuestSpec) -> None:
    driver = a_driver(spawn_failures=1.0)
    with pytest.raises(GuestRejected):
        await driver.spawn(spec)
    driver.fail_next["destroy"] = RuntimeError("as asked")
    with pytest.raises(RuntimeError, match="as asked"):
        await driver.destroy(SERVER)
    await driver.destroy(SERVER)
