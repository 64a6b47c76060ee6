"""The libvirt driver passes the contract on real QEMU guests, and sees nobody else's domains."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.remains import Remains

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.model.guest import GuestSpec, ImageRef
from kilonova.model.states import PowerState
from kilonova.virt.driver import VirtDriver
from kilonova.virt.libvirt.driver import LibvirtDriver, LibvirtOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from driver_contract import DriverContract

pytestmark = pytest.mark.real

GUEST_IMAGE = Path(__file__).parents[2] / "build" / "guest" / "kilonova-guest.qcow2"


class LocalImage:
    """The image is on this host already."""

    async def path_of(self, image: ImageRef) -> str:
        return image.url


@pytest.fixture
def spec() -> GuestSpec:
    image = ImageRef(id="i", disk_format="qcow2", size=1, hash_value="", url=str(GUEST_IMAGE.resolve()))
    return GuestSpec(
        server_id=SystemIds().uuid(),
        name="instance-0000002a",
        project_id="p",
        hostname="h",
        vcpus=1,
        memory_mib=128,
        root_gib=1,
        image=image,
        meta_data={"uuid": "x"},
    )


class TestLibvirtDriver(DriverContract):
    @pytest.fixture
    async def driver(self, tmp_path: Path) -> AsyncIterator[VirtDriver]:
        for directory in (tmp_path, *tmp_path.parents):
            if str(directory).startswith("/tmp/"):
                directory.chmod(0o755)
        remains = Remains(tmp_path)
        driver = LibvirtDriver("h1", tmp_path, LibvirtOptions(), LocalImage(), SystemClock(), owner=SystemIds().uuid())
        await driver.start()
        yield driver
        for server_id in await driver.list_guests():
            await driver.destroy(server_id)
        await driver.stop_daemons()
        await driver.close()
        remains.remove_all()

    async def test_remains_of_a_crash_are_listed_and_can_be_destroyed(
        self, driver: VirtDriver, spec: GuestSpec
    ) -> None:
        assert isinstance(driver, LibvirtDriver)
        (driver._instances / spec.server_id).mkdir()
        assert (await driver.list_guests())[spec.server_id].power_state is PowerState.NOSTATE
        await driver.destroy(spec.server_id)
        assert await driver.remains() == []

    async def test_domains_of_others_are_not_seen_and_not_touched(self, driver: VirtDriver, spec: GuestSpec) -> None:
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

    async def test_a_guest_boots_writes_its_log_and_shuts_down_when_asked(
        self, driver: VirtDriver, spec: GuestSpec
    ) -> None:
        assert isinstance(driver, LibvirtDriver)
        await driver.spawn(spec)
        async with asyncio.timeout(60):
            while b"READY" not in await driver.console_log(spec.server_id, max_bytes=100_000):
                await asyncio.sleep(0.5)
        began = SystemClock().monotonic()
        await driver.power_off(spec.server_id, grace_s=60)
        assert SystemClock().monotonic() - began < 55, "it heard the power button"
        assert (await driver.list_guests())[spec.server_id].power_state is PowerState.SHUTDOWN
