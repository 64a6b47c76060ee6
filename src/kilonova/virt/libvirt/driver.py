"""The libvirt driver: real domains on QEMU, with KVM where a trial guest showed that it works.

A guest is a directory below ``instances`` (overlay, config drive, console log) and a domain that carries this cloud's
mark. Domains without the mark are not seen. libvirt's calls block, so each goes to a small pool of threads, with
a limit of time.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar
from xml.etree import ElementTree as ET

import libvirt

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.model.errors import (
    GuestNotFound,
    GuestRejected,
    HypervisorUnavailable,
    InsufficientResources,
)
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.model.host import HostReport
from kilonova.model.states import PowerState
from kilonova.virt.driver import ConsoleLog, ImageSource, ImageUse, Remains, VirtDriver, capabilities
from kilonova.virt.libvirt import config_drive, host_pci, host_xml, kvm_probe
from kilonova.virt.libvirt.daemons import Daemons
from kilonova.virt.libvirt.domain_xml import NAMESPACE, Machine, domain_xml
from kilonova.virt.libvirt.host_pci import DeviceSpec

log = get_logger(__name__)
T = TypeVar("T")

CALL_S = 120.0
"""Seconds after which a call to libvirt is given up."""

DISK_OVERCOMMIT = 16
"""Overlays take only what guests write: what is claimed may be over what is free, which the scheduler's ratios decide.
Over this many times it is a mistake."""

MOST_VCPUS = 255
"""Of QEMU's q35 machine without an interrupt-remapping IOMMU."""

_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.SUSPENDED,
}
_AWAY = {
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_OPERATION_FAILED,
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
}


@dataclass(frozen=True, kw_only=True)
class LibvirtOptions:
    """``[libvirt]`` of kilonova.conf."""

    section: ClassVar[str] = "libvirt"

    virt_type: Literal["auto", "kvm", "qemu"] = "auto"
    """``auto`` takes KVM if a trial guest runs on it at full speed, else emulation."""

    connection_uri: str = ""
    """An existing libvirt to use, as ``qemu:///system``. Empty: daemons of its own, below the state directory."""

    max_concurrent_boots: int = 2
    """Guests that are started at the same time at most; others wait their turn."""

    tb_cache_mib: int = 32
    """Memory in MiB for translated code of each emulated guest."""


class LibvirtDriver(VirtDriver, ConsoleLog, ImageUse, Remains):
    """Guests of one host."""

    name: ClassVar[str] = "libvirt"

    def __init__(
        self,
        host: str,
        directory: Path,
        options: LibvirtOptions,
        images: ImageSource,
        clock: Clock,
        *,
        owner: str,
        devices: Sequence[DeviceSpec] = (),
    ) -> None:
        """
        Args:
            directory: this host's own, below the state directory.
            owner: a uuid that marks this host's domains.
            devices: PCI devices that guests may have.
        """
        self._devices = devices
        self._host = host
        self._directory = directory
        self._instances = directory / "instances"
        self._options = options
        self._images = images
        self._clock = clock
        self._owner = owner
        own = Daemons(directory / "libvirt", owner, images=directory / "image-cache")
        self._daemons = None if options.connection_uri else own
        self._threads = ThreadPoolExecutor(max_workers=6, thread_name_prefix="libvirt")
        self._connection: Any = None
        self._boots = asyncio.Semaphore(options.max_concurrent_boots)
        self._virtualization = ""
        self._making: dict[str, str] = {}  # server to image, of guests that are not defined yet
        self._machine = Machine("qemu", owner, options.tb_cache_mib)

    # ---- connection ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self._instances.mkdir(parents=True, exist_ok=True)
        for path in (self._directory, self._instances):
            path.chmod(0o755)
        libvirt.registerErrorHandler(lambda *_: None, None)
        is_kvm, self._virtualization = await self._in_thread(self._choose)
        self._machine = Machine("kvm" if is_kvm else "qemu", self._owner, self._options.tb_cache_mib)
        log.info("virtualization chosen", kind=self._machine.virt_type, why=self._virtualization)
        await self._call(lambda connection: connection.getVersion())

    def _choose(self) -> tuple[bool, str]:
        if self._options.virt_type != "auto":
            return self._options.virt_type == "kvm", f"[libvirt] virt_type is {self._options.virt_type}."
        return kvm_probe.usable()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def stop_daemons(self) -> None:
        """End the daemons that this driver started. Only where no guest is left."""
        if self._daemons is not None:
            await asyncio.to_thread(self._daemons.stop)

    async def _in_thread(self, work: Callable[[], T], limit_s: float = CALL_S) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            done, _ = await asyncio.wait([running], timeout=limit_s)
        except asyncio.CancelledError:
            # A thread cannot be called back. What it makes must be there before anybody clears it away.
            await asyncio.wait([running], timeout=limit_s)
            raise
        if not done:
            raise HypervisorUnavailable(f"libvirt did not answer within {limit_s:g} s.")
        return await running

    async def _call(self, work: Callable[[Any], T]) -> T:
        """Run `work` with a connection; libvirt's errors become ours."""

        def with_connection() -> T:
            with _translated():
                return work(self._connect())

        return await self._in_thread(with_connection)

    def _connect(self) -> Any:
        connection = self._connection
        if connection is not None and connection.isAlive():
            return connection
        if self._daemons is not None:
            self._daemons.ensure(kvm=self._machine.virt_type == "kvm")
        uri = self._options.connection_uri or (self._daemons.uri if self._daemons else "")
        self._connection = libvirt.open(uri)
        return self._connection

    # ---- the host -----------------------------------------------------------------------------------

    async def report(self) -> HostReport:
        version, capable = await self._call(lambda connection: (connection.getVersion(), connection.getCapabilities()))
        memory = _meminfo()
        disk = shutil.disk_usage(self._directory)
        guests = await self.list_guests()
        kind = "KVM" if self._machine.virt_type == "kvm" else "QEMU"
        return HostReport(
            host=self._host,
            hypervisor_hostname=self._host,
            hypervisor_type=kind,
            hypervisor_version=version,
            virtualization=self._virtualization,
            supported_instances=(("x86_64", kind.lower(), "hvm"),),
            cpu_info={"arch": "x86_64", "model": _cpu_model(), "topology": {"cores": os.cpu_count()}},
            vcpus=os.cpu_count() or 1,
            memory_mib=memory["MemTotal"] // 1024,
            disk_gib=disk.total // 1024**3,
            memory_used_mib=(memory["MemTotal"] - memory["MemAvailable"]) // 1024,
            disk_used_gib=disk.used // 1024**3,
            vcpus_used=sum(guest.vcpus for guest in guests.values()),
            running_vms=sum(guest.power_state is PowerState.RUNNING for guest in guests.values()),
            uptime=_uptime(),
            roles=tuple(sorted(capabilities(self))),
            numa=host_xml.numa_cells(capable),
            pci=await self._in_thread(lambda: host_pci.devices(self._devices)),
        )

    async def list_guests(self) -> Mapping[str, GuestState]:
        found = await self._call(self._list)
        for directory in self._instances.iterdir():
            if directory.name not in found:
                # What a crash left: the domain is gone or never was, the disks are there.
                found[directory.name] = GuestState(server_id=directory.name, power_state=PowerState.NOSTATE)
        return found

    def _list(self, connection: Any) -> dict[str, GuestState]:
        found: dict[str, GuestState] = {}
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # it may go while we look
                mark = self._mark(domain)
                if mark is not None:
                    found[domain.UUIDString()] = GuestState(
                        server_id=domain.UUIDString(),
                        power_state=_POWER.get(domain.state()[0], PowerState.NOSTATE),
                        vcpus=int(mark.get("vcpus", "0")),
                        memory_mib=int(mark.get("memory_mib", "0")),
                        root_gib=int(mark.get("root_gib", "0")),
                    )
        return found

    def _mark(self, domain: Any) -> ET.Element | None:
        try:
            text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        except libvirt.libvirtError:
            return None
        mark = ET.fromstring(text)  # noqa: S314 - what we wrote ourselves
        return mark if mark.get("owner") == self._owner else None

    def _find(self, connection: Any, server_id: str) -> Any | None:
        try:
            domain = connection.lookupByUUIDString(server_id)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return domain if self._mark(domain) is not None else None

    # ---- guests -------------------------------------------------------------------------------------

    async def spawn(self, spec: GuestSpec) -> None:
        async with self._boots:
            if await self._call(lambda connection: self._is_there(connection, spec)):
                return
            if spec.image is None:
                raise GuestRejected("This driver starts guests from images only.")
            self._making[spec.server_id] = spec.image.id
            try:
                await self._make(spec, await self._images.path_of(spec.image))
            finally:
                del self._making[spec.server_id]

    async def _make(self, spec: GuestSpec, base: str) -> None:
        # A guest of an earlier build, and disks that a killed process left half-made, make room.
        await self.destroy(spec.server_id)
        try:
            await self._make_disks(spec, base)
            xml = domain_xml(spec, self._instances / spec.server_id, self._machine)
            await self._call(lambda connection: self._define_and_start(connection, spec, xml))
        except BaseException as error:
            log.info("guest is not made; its remains are removed", server=spec.server_id, cause=str(error)[:200])
            with contextlib.suppress(Exception):
                await asyncio.shield(self.destroy(spec.server_id))
            raise

    def _is_there(self, connection: Any, spec: GuestSpec) -> bool:
        """Whether the guest was made before; then it runs, if it shall. Its disks may hold data, and stay."""
        domain = self._find(connection, spec.server_id)
        if domain is None or (spec.replaces and self._build_of(domain) != spec.build):
            return False
        if not domain.isActive() and spec.power_on:
            domain.create()
        return True

    def _build_of(self, domain: Any) -> str:
        mark = self._mark(domain)
        return "" if mark is None else mark.get("build", "")

    async def _make_disks(self, spec: GuestSpec, base: str) -> None:
        self._check_fits(spec)
        directory = self._instances / spec.server_id
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        await self._in_thread(lambda: _overlay(base, spec, directory / "disk.qcow2"))
        if spec.config_drive:
            await self._in_thread(lambda: config_drive.make(spec, directory / "config.iso"))

    def _check_fits(self, spec: GuestSpec) -> None:
        free_mib = _meminfo()["MemAvailable"] // 1024
        if spec.memory_mib > free_mib:
            raise InsufficientResources(f"The guest needs {spec.memory_mib} MiB; the host has {free_mib} MiB left.")
        free_gib = shutil.disk_usage(self._directory).free // 1024**3
        if spec.root_gib > max(free_gib, 1) * DISK_OVERCOMMIT:
            raise InsufficientResources(
                f"The guest needs {spec.root_gib} GiB of disk; the host has {free_gib} GiB left."
            )
        if spec.vcpus > MOST_VCPUS:
            raise InsufficientResources(f"The guest needs {spec.vcpus} CPUs; no guest here has over {MOST_VCPUS}.")

    def _define_and_start(self, connection: Any, spec: GuestSpec, xml: str) -> None:
        domain = self._find(connection, spec.server_id) or connection.defineXML(xml)
        if spec.power_on and not domain.isActive():
            domain.create()

    async def destroy(self, server_id: str) -> None:
        await self._call(lambda connection: self._undefine(connection, server_id))
        directory = self._instances / server_id
        if directory.is_dir():
            await self._in_thread(lambda: shutil.rmtree(directory, ignore_errors=True))

    def _undefine(self, connection: Any, server_id: str) -> None:
        domain = self._find(connection, server_id)
        if domain is None:
            return
        if domain.isActive():
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )

    async def power_on(self, server_id: str) -> None:
        async with self._boots:
            await self._with_domain(server_id, _switch_on)

    async def power_off(self, server_id: str, *, grace_s: float = 0.0) -> None:
        if grace_s > 0:
            await self._with_domain(server_id, _ask_to_shut_down)
            if await self._stopped_within(server_id, grace_s):
                return
        await self._with_domain(server_id, _pull_the_plug)

    async def reboot(self, server_id: str, *, hard: bool, grace_s: float = 60.0) -> None:
        await self.power_off(server_id, grace_s=0.0 if hard else grace_s)
        await self.power_on(server_id)

    async def _stopped_within(self, server_id: str, grace_s: float) -> bool:
        deadline = self._clock.monotonic() + grace_s
        asked = self._clock.monotonic()
        while self._clock.monotonic() < deadline:
            if not await self._with_domain(server_id, lambda domain: bool(domain.isActive())):
                return True
            if self._clock.monotonic() - asked > 10:  # a guest that was still starting has not heard
                asked = self._clock.monotonic()
                await self._with_domain(server_id, _ask_to_shut_down)
            await self._clock.sleep(0.25)
        return False

    async def _with_domain(self, server_id: str, work: Callable[[Any], T]) -> T:
        def found(connection: Any) -> T:
            domain = self._find(connection, server_id)
            if domain is None:
                raise GuestNotFound(f"There is no guest {server_id} on {self._host}.")
            return work(domain)

        return await self._call(found)

    # ---- roles --------------------------------------------------------------------------------------

    async def console_log(self, server_id: str, *, max_bytes: int) -> bytes:
        directory = self._instances / server_id
        if not directory.is_dir():
            raise GuestNotFound(f"There is no guest {server_id} on {self._host}.")
        return await self._in_thread(lambda: _tail(directory / "console.log", max_bytes))

    async def images_in_use(self) -> frozenset[str]:
        return frozenset({*await self._call(self._images_of_domains), *self._making.values()} - {""})

    def _images_of_domains(self, connection: Any) -> set[str]:
        marks = (self._mark(domain) for domain in connection.listAllDomains())
        return {mark.get("image", "") for mark in marks if mark is not None}

    async def remains(self) -> list[str]:
        domains = [f"domain:{server_id}" for server_id in await self._call(self._list)]
        return [*domains, *(f"disk:{path}" for path in self._instances.iterdir())]


# ---- in threads ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        message = (error.get_error_message() or str(error))[:500]
        if "Cannot allocate memory" in message or "No space left" in message:
            raise InsufficientResources(message) from error
        if error.get_error_code() in _AWAY:
            raise HypervisorUnavailable(message) from error
        raise GuestRejected(message) from error


def _switch_on(domain: Any) -> None:
    if not domain.isActive():
        domain.create()


def _ask_to_shut_down(domain: Any) -> None:
    if domain.isActive():
        with contextlib.suppress(libvirt.libvirtError):
            domain.shutdown()


def _pull_the_plug(domain: Any) -> None:
    if domain.isActive():
        domain.destroy()


def _overlay(base: str, spec: GuestSpec, path: Path) -> None:
    """The guest's own copy of its image: only what it writes takes room. The base's format is said, not guessed."""
    assert spec.image is not None
    draft = path.with_suffix(".new")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", spec.image.disk_format, "-b", base, str(draft)]
    if spec.root_gib:
        command.append(f"{spec.root_gib}G")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        draft.unlink(missing_ok=True)
        raise GuestRejected(f"qemu-img cannot make the disk: {done.stderr.strip()[:300]}")
    draft.chmod(0o600)  # libvirt gives it to the user that QEMU runs as
    draft.replace(path)


def _tail(path: Path, max_bytes: int) -> bytes:
    """The end of a log that is rotated to ``.0``."""
    text = b""
    for part in (path, path.with_name(path.name + ".0")):
        if len(text) < max_bytes and part.exists():
            text = part.read_bytes()[-(max_bytes - len(text)) :] + text
    return text


def _meminfo() -> dict[str, int]:
    """``/proc/meminfo`` in KiB. (libvirt's own figure is that of one NUMA node.)"""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def _uptime() -> str:
    return Path("/proc/uptime").read_text().split()[0]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""
