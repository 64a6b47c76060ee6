"""The fake driver: guests are entries in a dictionary. A product feature: fleets for tests and simulations.

Ten thousand of them fit into one process, so a host without guests is a few references. It keeps the whole contract
of `VirtDriver`, cancellation and crashes included; delays and failures come from the options or, one by one,
from `FakeDriver.fail_next`. Given a file, guests outlive the process, as real ones do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.model.errors import (
    CloudError,
    GuestNotFound,
    GuestRejected,
    HypervisorUnavailable,
    InsufficientResources,
)
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.model.host import HostReport
from kilonova.model.states import PowerState
from kilonova.virt.driver import ConsoleLog, ImageUse, Remains, VirtDriver, capabilities
from kilonova.virt.fake.hardware import numa_cells, pci_devices
from kilonova.virt.fake.journal import Entry, Journal
from kilonova.virt.fake.options import FakeOptions

_CPUS_OF_A_GUEST = 64
"""No guest has more than this many times its host's CPUs."""


class FakeDriver(VirtDriver, ConsoleLog, ImageUse, Remains):
    """One simulated host."""

    name: ClassVar[str] = "fake"

    def __init__(self, host: str, options: FakeOptions, clock: Clock, ids: Ids, *, file: Path | None = None) -> None:
        """
        Args:
            clock: delays pass on it.
            ids: its chance decides which guests fail and how long things take.
            file: where guests outlive the process; made when there is a guest. None: they do not.
        """
        self._host = host
        self._options = options
        self._clock = clock
        self._ids = ids
        self._journal = Journal(file) if file is not None and options.keep_guests else None
        self._guests: dict[str, Entry] = {}
        self._memory_mib = 0  # what all guests have, kept along: a spawn looks at no other guest
        self._disk_gib = 0
        self._faults: dict[str, list[CloudError]] | None = None

    # ---- what a test or a simulation may do besides ---------------------------------------------------------

    def fail_next(self, operation: str, *errors: CloudError) -> None:
        """Let the next calls of `operation` (``spawn``, ``power_on`` …) fail, each with one of `errors`, in order."""
        if self._faults is None:
            self._faults = {}
        self._faults.setdefault(operation, []).extend(errors)

    def lose(self, server_id: str, power_state: PowerState | None = None) -> None:
        """Somebody went behind the cloud's back: the guest is in `power_state`, or is gone if that is None."""
        if power_state is None:
            self._drop(server_id)
        else:
            self._become(server_id, power_state)

    def shown(self) -> dict[str, GuestState]:
        """The guests there are, at once and without delays or failures: for who looks from outside."""
        return {
            server_id: GuestState(
                server_id=server_id,
                power_state=guest.power_state,
                vcpus=guest.vcpus,
                memory_mib=guest.memory_mib,
                root_gib=guest.root_gib,
            )
            for server_id, guest in self._guests.items()
        }

    # ---- VirtDriver -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._meet("start", self._options.start_delay_s, 0.0)
        if self._journal is not None:
            self._guests = self._journal.load()
            self._memory_mib = sum(guest.memory_mib for guest in self._guests.values())
            self._disk_gib = sum(guest.root_gib for guest in self._guests.values())

    async def close(self) -> None:
        return None

    async def report(self) -> HostReport:
        await self._meet("report", self._options.report_delay_s, 0.0)
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
            arch=options.arch,
            supported_instances=((options.arch, "fake", "hvm"),),
            cpu_info={"arch": options.arch, "model": "fake", "vendor": "Kilonova"},
            vcpus=options.vcpus,
            memory_mib=options.memory_mib,
            disk_gib=options.disk_gib,
            vcpus_used=sum(guest.vcpus for guest in self._guests.values()),
            memory_used_mib=self._memory_mib,
            disk_used_gib=self._disk_gib,
            running_vms=sum(guest.power_state is PowerState.RUNNING for guest in self._guests.values()),
            traits=options.traits,
            roles=tuple(sorted(capabilities(self))),
        )

    async def list_guests(self) -> Mapping[str, GuestState]:
        await self._meet("list_guests", self._options.report_delay_s, 0.0)
        return self.shown()

    async def spawn(self, spec: GuestSpec) -> None:
        server_id = spec.server_id
        before = self._guests.get(server_id)
        if before is not None and spec.replaces and before.build != spec.build:
            self._prove_image()
            self._drop(server_id)
            before = None
        if before is not None and before.power_state is not PowerState.NOSTATE:
            if spec.power_on and before.power_state is not PowerState.RUNNING:
                await self.power_on(server_id)
            return
        self._check_fits(spec)
        guest = Entry(
            server_id=server_id,
            name=spec.name,
            power_state=PowerState.NOSTATE,
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            root_gib=spec.root_gib,
            image_id=spec.image.id if spec.image else "",
            build=spec.build,
        )
        try:
            if self._options.spawn_delay_s:
                self._put(guest)  # as a real one: half-made while it takes time, and found so after a kill
            await self._meet("spawn", self._options.spawn_delay_s, self._options.spawn_failures)
        except BaseException:
            self._drop(server_id)
            raise
        guest.power_state = PowerState.RUNNING if spec.power_on else PowerState.SHUTDOWN
        guest.boots = int(spec.power_on)
        self._put(guest)

    async def destroy(self, server_id: str) -> None:
        await self._meet("destroy", self._options.destroy_delay_s, self._options.destroy_failures)
        self._drop(server_id)

    async def power_on(self, server_id: str) -> None:
        self._get(server_id)
        await self._switch("power_on")
        if self._get(server_id).power_state is not PowerState.RUNNING:
            self._become(server_id, PowerState.RUNNING, boots=1)

    async def power_off(self, server_id: str, *, grace_s: float = 0.0) -> None:
        self._get(server_id)
        await self._switch("power_off")
        self._become(server_id, PowerState.SHUTDOWN)

    async def reboot(self, server_id: str, *, hard: bool, grace_s: float = 60.0) -> None:
        self._get(server_id)
        await self._switch("reboot")
        self._become(server_id, PowerState.RUNNING, boots=1)

    # ---- roles ----------------------------------------------------------------------------------------------

    async def console_log(self, server_id: str, *, max_bytes: int) -> bytes:
        guest = self._get(server_id)
        if max_bytes <= 0:
            return b""
        lines = [
            f"[    0.000000] Simulated guest {guest.name} on {self._host}: {guest.vcpus} CPUs, {guest.memory_mib} MiB\n"
            f"[    0.000001] Boot {boot}\n\n{guest.name} login: \n"
            for boot in range(1, guest.boots + 1)
        ]
        return "".join(lines).encode()[-max_bytes:]

    async def images_in_use(self) -> frozenset[str]:
        return frozenset(guest.image_id for guest in self._guests.values() if guest.image_id)

    async def remains(self) -> list[str]:
        return [f"guest:{guest.name}" for guest in self._guests.values()]

    # ---- inside ---------------------------------------------------------------------------------------------

    def _prove_image(self) -> None:
        """The image of a guest that replaces another is looked at first: `fail_next("image", …)`."""
        if self._faults is not None and self._faults.get("image"):
            raise self._faults["image"].pop(0)

    def _check_fits(self, spec: GuestSpec) -> None:
        options, half_made = self._options, self._guests.get(spec.server_id)
        if spec.vcpus > options.vcpus * _CPUS_OF_A_GUEST:
            raise InsufficientResources(f"{self._host} has {options.vcpus} CPUs: too few for a guest of {spec.vcpus}.")
        if spec.memory_mib > options.memory_mib or spec.root_gib > options.disk_gib:
            raise InsufficientResources(
                f"{self._host} has {options.memory_mib} MiB of memory and {options.disk_gib} GiB of disk in all."
            )
        if not options.overcommit:
            return
        memory_mib = int(options.memory_mib * options.overcommit) - self._memory_mib
        disk_gib = int(options.disk_gib * options.overcommit) - self._disk_gib
        if half_made is not None:
            memory_mib, disk_gib = memory_mib + half_made.memory_mib, disk_gib + half_made.root_gib
        if spec.memory_mib > memory_mib:
            raise InsufficientResources(f"{self._host} has {memory_mib} MiB of memory free, not {spec.memory_mib}.")
        if spec.root_gib > disk_gib:
            raise InsufficientResources(f"{self._host} has {disk_gib} GiB of disk free, not {spec.root_gib}.")

    async def _switch(self, operation: str) -> None:
        await self._meet(operation, self._options.power_delay_s, self._options.power_failures)

    async def _meet(self, operation: str, delay_s: float, failures: float) -> None:
        """Take the time, then fail, as the options and `fail_next` have it."""
        if delay_s:
            await self._clock.sleep(self._delay(delay_s))
        if self._faults is not None and self._faults.get(operation):
            raise self._faults[operation].pop(0)
        if failures and self._ids.chance.random() < failures:
            option = f"{operation if operation in ('spawn', 'destroy') else 'power'}_failures"
            text = f"This failure was asked for by [fake] {option}."
            raise GuestRejected(text) if operation == "spawn" else HypervisorUnavailable(text)

    def _delay(self, mean_s: float) -> float:
        match self._options.delay_shape:
            case "uniform":
                return self._ids.chance.uniform(0, 2 * mean_s)
            case "exponential":
                return self._ids.chance.expovariate(1 / mean_s)
        return mean_s

    def _get(self, server_id: str) -> Entry:
        guest = self._guests.get(server_id)
        if guest is None:
            raise GuestNotFound(f"There is no guest {server_id} on {self._host}.")
        return guest

    def _become(self, server_id: str, power_state: PowerState, *, boots: int = 0) -> None:
        guest = self._get(server_id)
        guest.power_state = power_state
        guest.boots += boots
        self._put(guest)

    def _put(self, guest: Entry) -> None:
        before = self._guests.get(guest.server_id)
        if before is not guest:
            self._memory_mib += guest.memory_mib - (before.memory_mib if before else 0)
            self._disk_gib += guest.root_gib - (before.root_gib if before else 0)
            self._guests[guest.server_id] = guest
        if self._journal is not None:
            self._journal.add(guest)

    def _drop(self, server_id: str) -> None:
        guest = self._guests.pop(server_id, None)
        if guest is None:
            return
        self._memory_mib -= guest.memory_mib
        self._disk_gib -= guest.root_gib
        if self._journal is not None:
            self._journal.add(msgspec.structs.replace(guest, gone=True))
