"""Hosts: what an agent reports, and what the scheduler sees."""

from typing import Any

import msgspec


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of its host: capacity, hypervisor, abilities. Sent on start and periodically.

    Memory in MiB, disk in GiB. `running_vms` and the ``*_used`` numbers are what the hypervisor really
    holds, for display and for finding drift; they never change what is *allocated*.
    """

    version: str = "1.1"
    host: str
    hypervisor_hostname: str
    hypervisor_type: str
    """As in the Compute API: ``QEMU``, ``KVM``, ``fake`` …"""
    hypervisor_version: int
    """1_000_000 * major + 1_000 * minor + micro."""
    virtualization: str = ""
    """Which kind of execution was chosen, and why, in a sentence."""
    arch: str = "x86_64"
    vm_mode: str = "hvm"
    supported_instances: tuple[tuple[str, str, str], ...] = ()
    """Triples (arch, hypervisor type, vm mode)."""
    host_ip: str = "127.0.0.1"
    cpu_info: dict[str, Any] = {}
    vcpus: int
    memory_mib: int
    disk_gib: int
    reserved_vcpus: int = 0
    reserved_memory_mib: int = 0
    reserved_disk_gib: int = 0
    vcpus_ratio: float = 4.0
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    """Allocation ratios, as the host's own configuration has them."""
    vcpus_used: int = 0
    memory_used_mib: int = 0
    disk_used_gib: int = 0
    running_vms: int = 0
    uptime: str = ""
    capabilities: dict[str, Any] = {}
    traits: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """Names of the driver roles that this host's driver plays (`kilonova.virt.driver.capabilities`)."""
    numa: "tuple[NumaCell, ...]" = ()
    """Its NUMA cells. What of them is used is not said here: the cloud knows."""
    pci: "tuple[PciDevice, ...]" = ()
    """Devices that can be given to guests."""
    more: "dict[str, Amount]" = {}
    """Resource classes besides VCPU, MEMORY_MB and DISK_GB: PCPU, CUSTOM_… ."""
    metrics: dict[str, float] = {}
    """What monitors measured last, such as ``cpu.percent``."""


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """Memory pages of one size in one NUMA cell."""

    size_kib: int
    total: int
    used: int = 0


class NumaCell(msgspec.Struct, frozen=True, kw_only=True):
    """One NUMA cell of a host: CPUs with one memory of their own, and what of them is taken."""

    id: int
    cpus: tuple[int, ...] = ()
    """Host CPUs that float: servers without pinned CPUs share them."""
    dedicated_cpus: tuple[int, ...] = ()
    """Host CPUs that are given away one by one (PCPU)."""
    pinned_cpus: tuple[int, ...] = ()
    """Of `dedicated_cpus`, those that are taken."""
    siblings: tuple[tuple[int, ...], ...] = ()
    """Threads of one core, where a core has several."""
    vcpus_used: int = 0
    """Virtual CPUs on the floating ones."""
    memory_mib: int
    memory_used_mib: int = 0
    pages: tuple[Pages, ...] = ()
    """By size. Empty: small pages only, and not counted."""


class PciDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One PCI device of a host that can be given to a guest."""

    address: str
    """As ``0000:3b:00.0``."""
    vendor_id: str
    product_id: str
    dev_type: str = "type-PCI"
    """``type-PCI``, ``type-PF``, ``type-VF`` or ``vdpa``."""
    numa_node: int | None = None
    tags: dict[str, str] = {}


class PciPool(msgspec.Struct, frozen=True, kw_only=True):
    """Equal PCI devices of a host that can be given to guests."""

    vendor_id: str
    product_id: str
    dev_type: str = "type-PCI"
    """``type-PCI``, ``type-PF``, ``type-VF`` or ``vdpa``."""
    numa_node: int | None = None
    tags: dict[str, str] = {}
    free: int
    """Devices that nobody has."""


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Inventory of one more resource class of a host."""

    total: int
    reserved: int = 0
    ratio: float = 1.0
    used: int = 0


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """One host as the scheduler's table sees it: one row of the feed.

    `seq` orders the feed: a row with a higher `seq` is newer. Amounts are totals, not free; ratios
    multiply ``total - reserved``. `deleted` rows leave the table.
    """

    seq: int
    id: int
    uuid: str
    name: str
    is_enabled: bool
    is_up: bool
    deleted: bool = False
    availability_zone: str | None = None
    aggregates: tuple[int, ...] = ()
    vcpus: int
    vcpus_reserved: int
    vcpus_ratio: float
    vcpus_used: int
    memory_mib: int
    memory_reserved_mib: int
    memory_ratio: float
    memory_used_mib: int
    disk_gib: int
    disk_reserved_gib: int
    disk_ratio: float
    disk_used_gib: int
    num_instances: int
    io_ops: int
    """Servers on this host that are being built, resized, migrated or snapshotted now."""
    failed_builds: int
    """Builds that failed here since the last one that went well."""
    arch: str
    hypervisor_type: str
    hypervisor_version: int
    vm_mode: str
    supported_instances: tuple[tuple[str, str, str], ...] = ()
    capabilities: dict[str, Any] = {}
    cpu_info: dict[str, Any] = {}
    traits: tuple[str, ...] = ()
    host_ip: str = ""
    cell: str = ""
    """Name of the cell that the host lives in."""
    metrics: dict[str, float] = {}
    """What monitors on the host measured last, such as ``cpu.percent``."""
    numa: tuple[NumaCell, ...] = ()
    pci: tuple[PciPool, ...] = ()
    more: dict[str, Amount] = {}
    """Resource classes besides VCPU, MEMORY_MB and DISK_GB: PCPU, VGPU, CUSTOM_… ."""
    server_flavors: tuple[str, ...] = ()
    """Names of the flavors of the servers on this host, each once."""
    server_image_properties: dict[str, int] = {}
    """``key=value`` of the image properties of the servers on this host, to how many servers have it."""


class AggregateState(msgspec.Struct, frozen=True, kw_only=True):
    """A host aggregate as the scheduler sees it."""

    id: int
    name: str
    hosts: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
