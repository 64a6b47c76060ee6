"""What every virt driver does, whatever it drives. A driver's test module supplies a `World`; the rest is here.

Nothing here looks inside a driver: it calls the interface and the roles that the driver plays.
"""

import asyncio
import contextlib
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from kilonova.model.errors import CloudError, GuestNotFound, GuestRejected, ImageUnusable, InsufficientResources
from kilonova.model.guest import GuestSpec, GuestState, ImageRef
from kilonova.model.states import PowerState
from kilonova.virt.driver import ConsoleLog, ImageUse, Remains, VirtDriver, capabilities

T = TypeVar("T")

STRANGER = "99999999-9999-4999-8999-999999999999"


class World(ABC):
    """One host for a driver, and what a test may do to it from outside."""

    console_text: str
    """What every guest writes to its console soon after it is switched on."""

    cancel_after_s: tuple[float, ...]
    """Moments at which to break off a spawn; some before its end."""

    kill_after: tuple[str, ...]
    """Steps of a spawn after each of which its process may be killed, as `half_make` knows them."""

    memory_mib: int = 32

    @abstractmethod
    async def driver(self) -> VirtDriver:
        """A started driver; a second call is the driver after the first one's process was killed."""

    @abstractmethod
    def image(self) -> ImageRef:
        """An image that guests boot from."""

    @abstractmethod
    def unusable_image(self, driver: VirtDriver) -> ImageRef:
        """Another image, with which the driver's next spawn finds that nothing can be begun."""

    @abstractmethod
    async def half_make(self, driver: VirtDriver, spec: GuestSpec, step: str) -> None:
        """Leave what a kill of `spawn(spec)` right after `step` leaves."""

    def spec(self, **changes: Any) -> GuestSpec:
        """A small guest, like no other."""
        server_id = str(uuid.uuid4())
        plain = GuestSpec(
            server_id=server_id,
            name=f"contract-{server_id[:8]}",
            project_id=uuid.uuid4().hex,
            hostname=f"guest-{server_id[:8]}",
            vcpus=1,
            memory_mib=self.memory_mib,
            root_gib=1,
            image=self.image(),
            meta_data={"uuid": server_id},
            extra_specs={},
        )
        return msgspec.structs.replace(plain, **changes)


async def until(look: Callable[[], Awaitable[T]], right: Callable[[T], bool], within_s: float = 60.0) -> T:
    """What `look` finds once it is `right`."""
    end = time.monotonic() + within_s
    while not right(found := await look()):
        assert time.monotonic() < end, f"not within {within_s} s; it is {found!r}"
        await asyncio.sleep(0.05)
    return found


async def state_of(driver: VirtDriver, spec: GuestSpec) -> PowerState | None:
    """The guest's power state; None when there is no such guest."""
    guest = (await driver.list_guests()).get(spec.server_id)
    return guest.power_state if guest else None


async def left_of(driver: VirtDriver, spec: GuestSpec) -> list[str]:
    """All that a driver holds that bears the guest's name or id."""
    found = await driver.remains() if isinstance(driver, Remains) else []
    return [one for one in found if spec.server_id in one or spec.name in one]


class DriverContract:
    """Inherit, and supply the fixture `world`."""

    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    @pytest.fixture
    async def driver(self, world: World) -> VirtDriver:
        return await world.driver()

    # ---- a guest's life -------------------------------------------------------------------------------------

    async def test_a_guest_that_was_spawned_is_listed_as_asked_for(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        assert await driver.list_guests() == {
            spec.server_id: GuestState(
                server_id=spec.server_id,
                power_state=PowerState.RUNNING,
                vcpus=1,
                memory_mib=spec.memory_mib,
                root_gib=1,
            )
        }

    async def test_spawn_twice_is_one_guest(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        before = await _remains(driver)
        await driver.spawn(spec)
        assert set(await driver.list_guests()) == {spec.server_id}
        assert await _remains(driver) == before

    async def test_spawn_starts_a_guest_that_was_off(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.power_off(spec.server_id)
        await driver.spawn(spec)
        assert await state_of(driver, spec) is PowerState.RUNNING

    async def test_a_guest_can_be_defined_and_left_off(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec(power_on=False)
        await driver.spawn(spec)
        await driver.spawn(spec)
        assert await state_of(driver, spec) is PowerState.SHUTDOWN
        await driver.power_on(spec.server_id)
        assert await state_of(driver, spec) is PowerState.RUNNING

    async def test_spawn_with_power_off_leaves_a_running_guest_alone(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.spawn(msgspec.structs.replace(spec, power_on=False))
        assert await state_of(driver, spec) is PowerState.RUNNING

    async def test_destroy_leaves_nothing_and_may_be_repeated(self, driver: VirtDriver, world: World) -> None:
        spec, other = world.spec(), world.spec()
        await driver.spawn(spec)
        await driver.spawn(other)
        await driver.destroy(spec.server_id)
        assert set(await driver.list_guests()) == {other.server_id}
        assert await left_of(driver, spec) == []
        await driver.destroy(spec.server_id)
        assert set(await driver.list_guests()) == {other.server_id}

    async def test_destroy_of_a_stopped_guest_leaves_nothing(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.power_off(spec.server_id)
        await driver.destroy(spec.server_id)
        assert await driver.list_guests() == {}
        assert await _remains(driver) == []

    async def test_destroy_of_an_unknown_guest_is_no_error(self, driver: VirtDriver) -> None:
        await driver.destroy(STRANGER)
        assert await driver.list_guests() == {}

    async def test_a_destroyed_guest_can_be_spawned_anew(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.destroy(spec.server_id)
        await driver.spawn(spec)
        assert await state_of(driver, spec) is PowerState.RUNNING

    # ---- a guest in place of another ------------------------------------------------------------------------

    async def test_a_build_replaces_an_earlier_one_and_its_disks(self, driver: VirtDriver, world: World) -> None:
        first = world.spec(build="first")
        await driver.spawn(first)
        await _said(driver, world, first, times=1)
        held = await _remains(driver)
        second = msgspec.structs.replace(first, build="second", replaces=True)
        await driver.spawn(second)
        assert await state_of(driver, second) is PowerState.RUNNING
        await _said(driver, world, second, times=1)
        assert len(await driver.list_guests()) == 1
        assert await _remains(driver) == held
        await driver.destroy(second.server_id)
        assert await _remains(driver) == []

    async def test_a_replacing_build_may_be_repeated(self, driver: VirtDriver, world: World) -> None:
        first = world.spec(build="first")
        await driver.spawn(first)
        second = msgspec.structs.replace(first, build="second", replaces=True)
        for _ in range(3):
            await driver.spawn(second)
        await _said(driver, world, second, times=1)
        after = await world.driver()  # and after a kill it is still known which build it is
        await after.spawn(second)
        await _said(after, world, second, times=1)

    async def test_only_a_replacing_build_replaces(self, driver: VirtDriver, world: World) -> None:
        first = world.spec(build="first")
        await driver.spawn(first)
        await driver.spawn(msgspec.structs.replace(first, build="second"))
        await _said(driver, world, first, times=1)

    async def test_a_build_can_replace_one_and_be_left_off(self, driver: VirtDriver, world: World) -> None:
        first = world.spec(build="first")
        await driver.spawn(first)
        await driver.spawn(msgspec.structs.replace(first, build="second", replaces=True, power_on=False))
        assert await state_of(driver, first) is PowerState.SHUTDOWN

    async def test_a_replacing_build_needs_none_to_replace(self, driver: VirtDriver, world: World) -> None:
        """The earlier one was destroyed, then the process was killed; or it had vanished long before."""
        for step in ("", *world.kill_after):
            spec = world.spec(build="second", replaces=True)
            if step:
                await world.half_make(driver, msgspec.structs.replace(spec, build="first"), step)
            after = await world.driver()
            await after.spawn(spec)
            assert await state_of(after, spec) is PowerState.RUNNING, step
            await after.destroy(spec.server_id)
            assert await _remains(after) == [], step

    async def test_an_unusable_image_replaces_nothing(self, driver: VirtDriver, world: World) -> None:
        first = world.spec(build="first")
        await driver.spawn(first)
        await _said(driver, world, first, times=1)
        image = world.unusable_image(driver)
        with pytest.raises(ImageUnusable):
            await driver.spawn(msgspec.structs.replace(first, build="second", replaces=True, image=image))
        assert await state_of(driver, first) is PowerState.RUNNING
        await _said(driver, world, first, times=1)
        await driver.reboot(first.server_id, hard=True)
        assert await state_of(driver, first) is PowerState.RUNNING

    async def test_several_guests_at_once_do_not_meet(self, driver: VirtDriver, world: World) -> None:
        specs = [world.spec() for _ in range(4)]
        await asyncio.gather(*(driver.spawn(spec) for spec in specs))
        assert set(await driver.list_guests()) == {spec.server_id for spec in specs}
        await asyncio.gather(*(driver.destroy(spec.server_id) for spec in specs))
        assert await driver.list_guests() == {}
        assert await _remains(driver) == []

    # ---- power ----------------------------------------------------------------------------------------------

    async def test_power_cycle_and_each_step_may_be_repeated(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        for _ in range(2):
            await driver.power_off(spec.server_id)
            assert await state_of(driver, spec) is PowerState.SHUTDOWN
        for _ in range(2):
            await driver.power_on(spec.server_id)
            assert await state_of(driver, spec) is PowerState.RUNNING

    async def test_power_off_with_grace_ends_in_off(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.power_off(spec.server_id, grace_s=3)
        assert await state_of(driver, spec) is PowerState.SHUTDOWN

    @pytest.mark.parametrize("hard", [True, False])
    async def test_a_restarted_guest_boots_again(self, driver: VirtDriver, world: World, hard: bool) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await _said(driver, world, spec, times=1)
        await driver.reboot(spec.server_id, hard=hard, grace_s=3)
        assert await state_of(driver, spec) is PowerState.RUNNING
        await _said(driver, world, spec, times=2)

    async def test_hard_reboot_of_a_stopped_guest_starts_it(self, driver: VirtDriver, world: World) -> None:
        spec = world.spec()
        await driver.spawn(spec)
        await driver.power_off(spec.server_id)
        await driver.reboot(spec.server_id, hard=True)
        assert await state_of(driver, spec) is PowerState.RUNNING

    @pytest.mark.parametrize("operation", ["power_on", "power_off", "soft reboot", "hard reboot", "console_log"])
    async def test_an_unknown_guest_is_not_found(self, driver: VirtDriver, operation: str) -> None:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "power_on": lambda: driver.power_on(STRANGER),
            "power_off": lambda: driver.power_off(STRANGER),
            "soft reboot": lambda: driver.reboot(STRANGER, hard=False, grace_s=0.1),
            "hard reboot": lambda: driver.reboot(STRANGER, hard=True),
        }
        if isinstance(driver, ConsoleLog):
            log = driver
            calls["console_log"] = lambda: log.console_log(STRANGER, max_bytes=10)
        if operation not in calls:
            pytest.skip(f"the {driver.name} driver does not play this role")
        with pytest.raises(GuestNotFound):
            await calls[operation]()

    # ---- errors, cancellation, crashes ----------------------------------------------------------------------

    @pytest.mark.parametrize("change", [{"memory_mib": 1 << 32}, {"vcpus": 4096}, {"root_gib": 1 << 24}])
    async def test_a_guest_that_cannot_fit_leaves_nothing(
        self, driver: VirtDriver, world: World, change: dict[str, int]
    ) -> None:
        spec = world.spec(**change)
        with pytest.raises(InsufficientResources):
            await driver.spawn(spec)
        assert await driver.list_guests() == {}
        assert await _remains(driver) == []

    async def test_a_spawn_that_is_broken_off_leaves_nothing(self, driver: VirtDriver, world: World) -> None:
        broken_off = 0
        for moment in world.cancel_after_s:
            spec = world.spec()
            task = asyncio.create_task(driver.spawn(spec))
            await asyncio.sleep(moment)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if task.cancelled():
                broken_off += 1
                assert await state_of(driver, spec) is None, f"broken off after {moment} s"
                assert await left_of(driver, spec) == [], f"broken off after {moment} s"
            else:
                await driver.destroy(spec.server_id)
            await driver.spawn(spec)  # and it can be done again
            assert await state_of(driver, spec) is PowerState.RUNNING
            await driver.destroy(spec.server_id)
        assert broken_off >= 2
        assert await _remains(driver) == []

    async def test_guests_survive_a_kill_of_the_process(self, driver: VirtDriver, world: World) -> None:
        running, stopped = world.spec(), world.spec(power_on=False)
        await driver.spawn(running)
        await driver.spawn(stopped)
        before = await driver.list_guests()
        after = await world.driver()
        assert await after.list_guests() == before
        await after.power_off(running.server_id)
        await after.power_on(stopped.server_id)
        assert await state_of(after, stopped) is PowerState.RUNNING
        await after.destroy(running.server_id)
        await after.destroy(stopped.server_id)
        assert await _remains(after) == []

    async def test_half_made_guests_are_listed_and_can_be_destroyed(self, driver: VirtDriver, world: World) -> None:
        for step in world.kill_after:
            spec = world.spec()
            await world.half_make(driver, spec, step)
            after = await world.driver()
            assert await state_of(after, spec) in (PowerState.NOSTATE, PowerState.SHUTDOWN), step
            await after.destroy(spec.server_id)
            assert await after.list_guests() == {}, step
            assert await _remains(after) == [], step

    async def test_half_made_guests_can_be_spawned_after_all(self, driver: VirtDriver, world: World) -> None:
        for step in world.kill_after:
            spec = world.spec()
            await world.half_make(driver, spec, step)
            after = await world.driver()
            await after.spawn(spec)
            assert await state_of(after, spec) is PowerState.RUNNING, step
            await _said(after, world, spec, times=1)
            await after.destroy(spec.server_id)
            assert await _remains(after) == [], step

    async def test_a_broken_off_spawn_does_not_harm_a_guest_that_was_there(
        self, driver: VirtDriver, world: World
    ) -> None:
        """A server that is off, with its disk full of data, is started again and the task is cancelled."""
        spec = world.spec(power_on=False)
        await driver.spawn(spec)
        before = await _remains(driver)
        for moment in world.cancel_after_s:
            task = asyncio.create_task(driver.spawn(msgspec.structs.replace(spec, power_on=True)))
            await asyncio.sleep(moment)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await state_of(driver, spec) in (PowerState.SHUTDOWN, PowerState.RUNNING)
            await driver.power_off(spec.server_id)
            assert await _remains(driver) == before

    # ---- roles and report -----------------------------------------------------------------------------------

    async def test_the_console_log_has_the_last_bytes(self, driver: VirtDriver, world: World) -> None:
        if not isinstance(driver, ConsoleLog):
            pytest.skip("keeps no console log")
        spec = world.spec()
        await driver.spawn(spec)
        said = await _said(driver, world, spec, times=1)
        assert await driver.console_log(spec.server_id, max_bytes=5) == said[-5:]
        assert await driver.console_log(spec.server_id, max_bytes=0) == b""
        await driver.power_off(spec.server_id)
        assert await driver.console_log(spec.server_id, max_bytes=1 << 20) == said, "kept while the guest is off"

    async def test_images_in_use_are_those_of_guests_on_and_off(self, driver: VirtDriver, world: World) -> None:
        if not isinstance(driver, ImageUse):
            pytest.skip("uses no images")
        spec = world.spec(power_on=False)
        assert await driver.images_in_use() == frozenset()
        await driver.spawn(spec)
        assert spec.image is not None
        assert await driver.images_in_use() == {spec.image.id}
        await driver.destroy(spec.server_id)
        assert await driver.images_in_use() == frozenset()

    async def test_the_report_says_what_the_host_is(self, driver: VirtDriver) -> None:
        report = await driver.report()
        assert report.vcpus > 0
        assert report.memory_mib > 0
        assert report.disk_gib > 0
        assert report.hypervisor_type
        assert report.hypervisor_version > 0
        assert report.virtualization.endswith(".")
        assert report.running_vms == 0
        assert set(report.roles) == capabilities(driver)
        assert (report.arch, report.hypervisor_type.lower(), report.vm_mode) in report.supported_instances

    async def test_the_report_counts_guests(self, driver: VirtDriver, world: World) -> None:
        await driver.spawn(world.spec(vcpus=2))
        report = await driver.report()
        assert (report.running_vms, report.vcpus_used) == (1, 2)

    async def test_errors_are_of_the_clouds_own_kind(self, driver: VirtDriver, world: World) -> None:
        """An image that is no disk: whatever the driver says, an agent can send it on."""
        image = world.image()
        spec = world.spec(image=msgspec.structs.replace(image, id=STRANGER, url="nowhere:"))
        try:
            await driver.spawn(spec)
        except CloudError as error:
            assert isinstance(error, ImageUnusable | GuestRejected)
            assert await _remains(driver) == []


async def _remains(driver: VirtDriver) -> list[str]:
    return sorted(await driver.remains()) if isinstance(driver, Remains) else []


async def _said(driver: VirtDriver, world: World, spec: GuestSpec, *, times: int) -> bytes:
    if not isinstance(driver, ConsoleLog):
        return b""
    log = driver
    text = world.console_text.encode()
    return await until(
        lambda: log.console_log(spec.server_id, max_bytes=1 << 20),
        lambda said: said.count(text) >= times,
        within_s=180,  # a guest without KVM boots in 5 s on an idle machine, in 30 s and more on a busy one
    )
