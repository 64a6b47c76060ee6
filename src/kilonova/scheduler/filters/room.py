"""Does the server fit? Free amounts are (total - reserved) * allocation ratio, less what is used.

The claim asks the same of the database and decides; these filters only spare it the hosts that cannot win.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.plugin import Shortfall
from kilonova.scheduler.table import FACTS, USAGE, HostTable, IntColumn, Mask
from kilonova.scheduler.words import count, largest

_READS = frozenset({USAGE, FACTS})


def at_least(hosts: HostTable, free: IntColumn, amount: int) -> Mask:
    """Hosts with `amount` free. What asks for nothing fits even where nothing is free."""
    return free >= amount if amount else hosts.everywhere(True)


@dataclass(frozen=True)
class CoreFilter:
    """Pass hosts with enough free virtual CPUs."""

    name: str = "CoreFilter"
    reads: frozenset[str] = _READS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.vcpus

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return at_least(hosts, hosts.free_vcpus, spec.vcpus)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has {count(spec.vcpus, 'free vCPU')}", largest(hosts.free_vcpus, among))


@dataclass(frozen=True)
class RamFilter:
    """Pass hosts with enough free memory."""

    name: str = "RamFilter"
    reads: frozenset[str] = _READS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.memory_mib

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return at_least(hosts, hosts.free_memory_mib, spec.memory_mib)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has {spec.memory_mib} MiB of free memory", largest(hosts.free_memory_mib, among, " MiB"))


@dataclass(frozen=True)
class DiskFilter:
    """Pass hosts with enough free disk for root, ephemeral and swap disks together."""

    name: str = "DiskFilter"
    reads: frozenset[str] = _READS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.disk_gib

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return at_least(hosts, hosts.free_disk_gib, spec.disk_gib)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has {spec.disk_gib} GiB of free disk", largest(hosts.free_disk_gib, among, " GiB"))
