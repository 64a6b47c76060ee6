"""The libvirt driver passes the contract on real QEMU guests, and sees nobody else's domains."""

import asyncio
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import libvirt_qemu
import pytest
from tests.contract.driver_contract import DriverContract, World
from tests.support.places import open_place
from tests.support.remains import Remains

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.model.errors import ImageUnusable
from kilonova.model.guest import CellPlan, GuestSpec, ImageRef
from kilonova.model.states import PowerState
from kilonova.virt.driver import VirtDriver
from kilonova.virt.libvirt.daemons import Daemons
from kilonova.virt.libvirt.domain_xml import domain_xml
from kilonova.virt.libvirt.driver import LibvirtDriver, LibvirtOptions
from kilonova.virt.libvirt.host_pci import SYSFS, device_specs

pytestmark = pytest.mark.real

GUEST_IMAGE = Path(__file__).parents[2] / "build" / "guest" / "kilonova-guest.qcow2"


class LocalImage:
    """The image is on this host already."""

    async def path_of(self, image: ImageRef) -> str:
        if not await asyncio.to_thread(Path(image.url).exists):
            raise ImageUnusable(f"There is no {image.url}.")
        return image.url


class LibvirtWorld(World):
    console_text = "READY"
    cancel_after_s = (0, 0.05, 0.4)
    kill_after = ("directory", "disk", "defined")
    memory_mib = 128

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.owner = SystemIds().uuid()
        self.drivers: list[LibvirtDriver] = []

    async def driver(self) -> LibvirtDriver:
        driver = LibvirtDriver(
            "h1", self.directory, LibvirtOptions(virt_type="qemu"), LocalImage(), SystemClock(), owner=self.owner
        )
        await driver.start()
        self.drivers.append(driver)
        return driver

    def image(self) -> ImageRef:
        image_id = "00000000-0000-4000-8000-000000000007"
        return ImageRef(
            id=image_id, disk_format="qcow2", size=1, hash_value="", url=str(self.directory / "image-cache" / "guest")
        )

    def unusable_image(self, driver: VirtDriver) -> ImageRef:
        image_id = "00000000-0000-4000-8000-000000000008"
        return ImageRef(id=image_id, disk_format="qcow2", size=1, hash_value="", url="/nowhere/image.qcow2")

    async def half_make(self, driver: VirtDriver, spec: GuestSpec, step: str) -> None:
        assert isinstance(driver, LibvirtDriver)
        directory = self.directory / "instances" / spec.server_id
        if step == "directory":
            directory.mkdir()
            (directory / "disk.new").write_bytes(b"half an overlay")
            return
        assert spec.image is not None
        await driver._make_disks(spec, spec.image.url)
        if step == "defined":
            xml = domain_xml(spec, directory, driver._machine)
            await driver._call(lambda connection: connection.defineXML(xml))

    async def clear(self) -> None:
        """End of a test: no guest stays, the daemons do."""
        driver = await self.driver()
        for server_id in await driver.list_guests():
            await driver.destroy(server_id)
        for one in self.drivers:
            await one.close()
        self.drivers.clear()


@pytest.fixture(scope="module")
def host() -> Iterator[LibvirtWorld]:
    """One host, whose daemons serve all tests."""
    with open_place("host") as directory:
        images = directory / "image-cache"
        images.mkdir()
        shutil.copy(GUEST_IMAGE, images / "guest")
        remains = Remains(directory)
        world = LibvirtWorld(directory)
        yield world
        Daemons(directory / "libvirt", world.owner).stop()
        remains.remove_all()


def look_at_qemu(directory: Path, server_id: str) -> None:
    """What the one guest's process is on this host, and what it may do to what it shares."""
    [qemu] = Remains(directory).processes("qemu-system")
    owner = Path(f"/proc/{qemu}").stat().st_uid
    assert pwd.getpwuid(owner).pw_name == "libvirt-qemu"
    image = directory / "image-cache" / "guest"
    assert image.stat().st_uid == 0, "libvirt did not give it away"
    inside = ["nsenter", "--target", str(qemu), "--mount"]
    for path in (image, "/dev/kvm"):
        tried = subprocess.run([*inside, "sh", "-c", f": >>{path}"], capture_output=True, text=True, check=False)
        assert "Read-only" in tried.stderr or not Path(path).exists(), f"{path} can be written: {tried.stderr}"
    disk = directory / "instances" / server_id / "disk.qcow2"
    assert disk.stat().st_mode & 0o077 == 0, "other users of the host do not read it"


class TestLibvirtDriver(DriverContract):
    @pytest.fixture
    async def world(self, host: LibvirtWorld) -> AsyncIterator[LibvirtWorld]:
        yield host
        await host.clear()

    async def test_domains_of_others_are_not_seen_and_not_touched(self, driver: VirtDriver) -> None:
        assert isinstance(driver, LibvirtDriver)
        other = SystemIds().uuid()
        system = "<os><type>hvm</type></os>"
        xml = f"<domain type='qemu'><name>other</name><uuid>{other}</uuid><memory>65536</memory>{system}</domain>"
        await driver._call(lambda connection: connection.defineXML(xml))
        assert await driver.list_guests() == {}
        await driver.destroy(other)
        names = await driver._call(lambda connection: [domain.name() for domain in connection.listAllDomains()])
        assert names == ["other"]
        await driver._call(lambda connection: connection.lookupByName("other").undefine())

    async def test_guests_run_as_a_user_of_their_own_and_cannot_change_what_they_share(
        self, driver: VirtDriver, host: LibvirtWorld
    ) -> None:
        """Were a guest to get out of its QEMU, it would be nobody on the host, and the other guests' image stays."""
        assert isinstance(driver, LibvirtDriver)
        spec = host.spec()
        await driver.spawn(spec)
        await asyncio.to_thread(look_at_qemu, host.directory, spec.server_id)

    async def test_a_guest_boots_writes_its_log_and_shuts_down_when_asked(
        self, driver: VirtDriver, world: World
    ) -> None:
        assert isinstance(driver, LibvirtDriver)
        spec = world.spec()
        await driver.spawn(spec)
        async with asyncio.timeout(60):
            while b"READY" not in await driver.console_log(spec.server_id, max_bytes=100_000):
                await asyncio.sleep(0.5)
        began = SystemClock().monotonic()
        await driver.power_off(spec.server_id, grace_s=60)
        assert SystemClock().monotonic() - began < 55, "it heard the power button"
        assert (await driver.list_guests())[spec.server_id].power_state is PowerState.SHUTDOWN

    async def test_the_report_names_the_devices_that_guests_may_have(self, driver: VirtDriver) -> None:
        assert isinstance(driver, LibvirtDriver)
        assert (await driver.report()).pci == ()
        driver._devices = device_specs('{"address": "*", "Tag": "yes"}')
        found = (await driver.report()).pci
        if not SYSFS.is_dir():
            pytest.skip("this machine has no PCI bus")
        assert {device.address for device in found} <= {path.name for path in SYSFS.iterdir()}
        assert all(device.tags == {"Tag": "yes"} for device in found)

    async def test_a_guest_with_a_cpu_of_its_own_runs_on_that_one_alone(self, driver: VirtDriver, world: World) -> None:
        assert isinstance(driver, LibvirtDriver)
        report = await driver.report()
        assert sorted(cpu for cell in report.numa for cpu in cell.cpus) == sorted(os.sched_getaffinity(0))
        cell = report.numa[0]
        own, shared = cell.cpus[-1], cell.cpus[:1]
        plan = CellPlan(
            host_cell=cell.id, cpus=(0, 1), memory_mib=world.memory_mib, pins=((0, own),), shared_cpus=shared
        )
        spec = world.spec(vcpus=2, cells=(plan,))
        await driver.spawn(spec)

        def cpus_of(domain: Any) -> list[tuple[bool, ...]]:
            found: list[tuple[bool, ...]] = domain.vcpuPinInfo()
            return found

        first, second = await driver._with_domain(spec.server_id, cpus_of)
        assert [n for n, on in enumerate(first) if on] == [own]
        assert [n for n, on in enumerate(second) if on] == list(shared)
        threads = await driver._with_domain(spec.server_id, _threads_of_cpus)
        assert os.sched_getaffinity(threads[0]) == {own}, "the kernel holds it there"


def _threads_of_cpus(domain: Any) -> list[int]:
    """Kernel threads of a guest's CPUs, as QEMU tells them."""
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, '{"execute":"query-cpus-fast"}', 0))
    return [cpu["thread-id"] for cpu in sorted(answer["return"], key=lambda cpu: int(cpu["cpu-index"]))]
