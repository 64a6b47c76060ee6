"""What every virt driver must do. A driver's test module supplies `driver` and `spec`; see `VirtDriver`."""

import asyncio
import contextlib

import msgspec
import pytest

from kilonova.model.errors import GuestNotFound, InsufficientResources
from kilonova.model.guest import GuestSpec
from kilonova.model.states import PowerState
from kilonova.virt.driver import ConsoleLog, Remains, VirtDriver

NOBODY = "00000000-0000-4000-8000-000000000000"


class DriverContract:
    """Inherit, and give the fixtures `driver` (started) and `spec` (a guest that fits)."""

    async def state(self, driver: VirtDriver, spec: GuestSpec) -> PowerState | None:
        guest = (await driver.list_guests()).get(spec.server_id)
        return guest.power_state if guest else None

    async def test_report_names_the_host_and_has_room(self, driver: VirtDriver, spec: GuestSpec) -> None:
        report = await driver.report()
        assert report.vcpus >= 1
        assert report.memory_mib > spec.memory_mib
        assert report.hypervisor_type
        assert report.virtualization, "says how guests run, and why"

    async def test_spawn_twice_is_one_guest(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(spec)
        await driver.spawn(spec)
        guests = await driver.list_guests()
        assert set(guests) == {spec.server_id}
        guest = guests[spec.server_id]
        assert guest.power_state is PowerState.RUNNING
        assert (guest.vcpus, guest.memory_mib) == (spec.vcpus, spec.memory_mib)

    async def test_destroy_leaves_nothing_and_can_be_repeated(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(spec)
        await driver.destroy(spec.server_id)
        assert await driver.list_guests() == {}
        await driver.destroy(spec.server_id)
        await driver.destroy(NOBODY)
        if isinstance(driver, Remains):
            assert await driver.remains() == []

    async def test_power_cycle(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(spec)
        for _ in range(2):
            await driver.power_off(spec.server_id)
            assert await self.state(driver, spec) is PowerState.SHUTDOWN
        for _ in range(2):
            await driver.power_on(spec.server_id)
            assert await self.state(driver, spec) is PowerState.RUNNING

    async def test_a_hard_reboot_of_a_stopped_guest_starts_it(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(spec)
        await driver.power_off(spec.server_id)
        await driver.reboot(spec.server_id, hard=True)
        assert await self.state(driver, spec) is PowerState.RUNNING

    async def test_spawn_starts_what_is_defined_and_off(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(spec)
        await driver.power_off(spec.server_id)
        await driver.spawn(spec)
        assert await self.state(driver, spec) is PowerState.RUNNING

    async def test_spawn_can_leave_the_guest_off(self, driver: VirtDriver, spec: GuestSpec) -> None:
        await driver.spawn(msgspec.structs.replace(spec, power_on=False))
        assert await self.state(driver, spec) is PowerState.SHUTDOWN

    @pytest.mark.parametrize("method", ["power_on", "power_off", "reboot"])
    async def test_a_guest_that_is_not_there_is_told(self, driver: VirtDriver, method: str) -> None:
        with pytest.raises(GuestNotFound):
            await getattr(driver, method)(NOBODY, **({"hard": True} if method == "reboot" else {}))

    async def test_what_does_not_fit_is_refused_and_leaves_nothing(self, driver: VirtDriver, spec: GuestSpec) -> None:
        with pytest.raises(InsufficientResources):
            await driver.spawn(msgspec.structs.replace(spec, memory_mib=1 << 30))
        assert await driver.list_guests() == {}

    async def test_a_cancelled_spawn_leaves_nothing(self, driver: VirtDriver, spec: GuestSpec) -> None:
        spawning = asyncio.create_task(driver.spawn(spec))
        await asyncio.sleep(0.02)
        if spawning.done():
            return  # quicker than the cancellation: there is nothing to leave
        spawning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await spawning
        assert await driver.list_guests() == {}

    async def test_console_log(self, driver: VirtDriver, spec: GuestSpec) -> None:
        if not isinstance(driver, ConsoleLog):
            return
        await driver.spawn(spec)
        assert len(await driver.console_log(spec.server_id, max_bytes=10)) <= 10
        with pytest.raises(GuestNotFound):
            await driver.console_log(NOBODY, max_bytes=10)
