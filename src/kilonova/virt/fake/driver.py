"""The fake driver: guests are entries in a dictionary. A product feature: fleets for tests and simulations.

Given a file, guests outlive the process, as real ones do. Failures and delays are injected by options.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.model.errors import GuestNotFound, GuestRejected, InsufficientResources
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.model.host import HostReport
from kilonova.model.states import PowerState
from kilonova.virt.driver import ConsoleLog, VirtDriver
from kilonova.virt.fake.hardware import numa_cells, pci_devices


@dataclass(frozen=True, kw_only=True)
class FakeOptions:
    """``[fake]`` of kilonova.conf: what simulated hosts are like."""

    section: ClassVar[str] = "fake"

    vcpus: int = 16
    """CPUs of each host."""

    memory_mib: int = 65536
    """Memory of each host, in MiB."""

    disk_gib: int = 1000
    """Disk of each host, in GiB."""

    numa_cells: int = 0
    """NUMA cells of each host, which share its CPUs and memory; 0: it does not tell."""

    huge_pages: int = 0
    """Pages of 2 MiB in each cell."""

    pci_devices: tuple[str, ...] = ()
    """PCI devices of each host: `VENDOR:PRODUCT=COUNT`, such as `10de:1db4=4`."""

    spawn_delay_s: float = 0.0
    """Seconds that each start of a guest takes."""

    spawn_failures: float = 0.0
    """Share of guests, between 0 and 1, whose start fails."""

    keep_guests: bool = True
    """Whether guests outlive the process, in a file below the state directory."""


class FakeDriver(VirtDriver, ConsoleLog):
    """One simulated host."""

    name: ClassVar[str] = "fake"

    def __init__(self, host: str, options: FakeOptions, clock: Clock, ids: Ids, *, file: Path | None = None) -> None:
        self._host = host
        self._options = options
        self._clock = clock
        self._ids = ids
        self._file = file if options.keep_guests else None
        self._guests: dict[str, GuestState] = {}
        self.fail_next: dict[str, Exception] = {}
        """Method to the error that its next call raises."""

    async def start(self) -> None:
        if self._file is not None and self._file.exists():
            guests = msgspec.json.decode(self._file.read_bytes(), type=list[GuestState])
            self._guests = {guest.server_id: guest for guest in guests}

    async def close(self) -> None:
        return None

    async def report(self) -> HostReport:
        options = self._options
        return HostReport(
            host=self._host,
            numa=numa_cells(
                options.numa_cells,
                vcpus=options.vcpus,
                memory_mib=options.memory_mib,
                huge_pages=options.huge_pages,
            ),
            pci=pci_devices(options.pci_devices, cells=options.numa_cells),
            hypervisor_hostname=self._host,
            hypervisor_type="fake",
            hypervisor_version=1_000_000,
            virtualization="Simulated: no guest code runs.",
            supported_instances=(("x86_64", "fake", "hvm"),),
            vcpus=options.vcpus,
            memory_mib=options.memory_mib,
            disk_gib=options.disk_gib,
            running_vms=len(self._guests),
        )

    async def list_guests(self) -> Mapping[str, GuestState]:
        return dict(self._guests)

    async def spawn(self, spec: GuestSpec) -> None:
        self._maybe_fail("spawn")
        if spec.memory_mib > self._options.memory_mib or spec.vcpus > self._options.vcpus * 64:
            raise InsufficientResources(f"The host has {self._options.memory_mib} MiB.")
        if self._options.spawn_delay_s:
            await self._clock.sleep(self._options.spawn_delay_s)
        if self._options.spawn_failures and self._ids.chance.random() < self._options.spawn_failures:
            raise GuestRejected("This failure was asked for by [fake] spawn_failures.")
        if spec.server_id in self._guests and not spec.power_on:
            return
        self._put(
            GuestState(
                server_id=spec.server_id,
                power_state=PowerState.RUNNING if spec.power_on else PowerState.SHUTDOWN,
                vcpus=spec.vcpus,
                memory_mib=spec.memory_mib,
                root_gib=spec.root_gib,
            )
        )

    async def destroy(self, server_id: str) -> None:
        self._maybe_fail("destroy")
        if self._guests.pop(server_id, None) is not None:
            self._save()

    async def power_on(self, server_id: str) -> None:
        self._maybe_fail("power_on")
        self._become(server_id, PowerState.RUNNING)

    async def power_off(self, server_id: str, *, grace_s: float = 0.0) -> None:
        self._maybe_fail("power_off")
        self._become(server_id, PowerState.SHUTDOWN)

    async def reboot(self, server_id: str, *, hard: bool, grace_s: float = 60.0) -> None:
        self._maybe_fail("reboot")
        self._become(server_id, PowerState.RUNNING)

    async def console_log(self, server_id: str, *, max_bytes: int) -> bytes:
        guest = self._get(server_id)
        text = f"This is a simulated guest of {self._host}.\nIt has {guest.vcpus} CPUs and {guest.memory_mib} MiB.\n"
        return text.encode()[-max_bytes:]

    def _get(self, server_id: str) -> GuestState:
        guest = self._guests.get(server_id)
        if guest is None:
            raise GuestNotFound(f"There is no guest {server_id} on {self._host}.")
        return guest

    def _become(self, server_id: str, power_state: PowerState) -> None:
        self._put(msgspec.structs.replace(self._get(server_id), power_state=power_state))

    def _put(self, guest: GuestState) -> None:
        self._guests[guest.server_id] = guest
        self._save()

    def _save(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(list(self._guests.values())))
        draft.replace(self._file)

    def _maybe_fail(self, method: str) -> None:
        error = self.fail_next.pop(method, None)
        if error is not None:
            raise error
