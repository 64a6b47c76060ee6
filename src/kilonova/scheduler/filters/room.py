"""Does the server fit?"""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.fitting import usable, usable_by_aggregates
from kilonova.scheduler.plugin import (
    NOT_ASKED,
    AtLeast,
    Group,
    HostTable,
    IntColumn,
    Mask,
    RequestSpec,
    Shortfall,
)
from kilonova.scheduler.words import count, largest


@dataclass(frozen=True)
class CoreFilter(AtLeast):
    """Pass hosts with enough free virtual CPUs. CPUs of the server's own (PCPU) do not count here."""

    name: str = "CoreFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.amounts().get("VCPU") or NOT_ASKED

    def level(self, hosts: HostTable) -> IntColumn:
        """The most CPUs that one more server could have on each host."""
        return usable(hosts, "VCPU")

    def need(self, spec: RequestSpec) -> float:
        return spec.amounts().get("VCPU", 0)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        wanted = count(spec.amounts().get("VCPU", 0), "free vCPU")
        return Shortfall(f"has {wanted}", largest(self.level(hosts), among))


@dataclass(frozen=True)
class RamFilter(AtLeast):
    """Pass hosts with enough free memory."""

    name: str = "RamFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.amounts().get("MEMORY_MB") or NOT_ASKED

    def level(self, hosts: HostTable) -> IntColumn:
        """The most memory that one more server could have on each host."""
        return usable(hosts, "MEMORY_MB")

    def need(self, spec: RequestSpec) -> float:
        return spec.amounts().get("MEMORY_MB", 0)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        wanted = spec.amounts().get("MEMORY_MB", 0)
        return Shortfall(f"has {wanted} MiB of free memory", largest(self.level(hosts), among, " MiB"))


@dataclass(frozen=True)
class DiskFilter(AtLeast):
    """Pass hosts with enough free disk for root, ephemeral and swap disks together."""

    name: str = "DiskFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.amounts().get("DISK_GB") or NOT_ASKED

    def level(self, hosts: HostTable) -> IntColumn:
        """The most disk that one more server could have on each host."""
        return usable(hosts, "DISK_GB")

    def need(self, spec: RequestSpec) -> float:
        return spec.amounts().get("DISK_GB", 0)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        wanted = spec.amounts().get("DISK_GB", 0)
        return Shortfall(f"has {wanted} GiB of free disk", largest(self.level(hosts), among, " GiB"))


@dataclass(frozen=True)
class AggregateCoreFilter(CoreFilter):
    """As CoreFilter, but by an aggregate's ``cpu_allocation_ratio``; of several, by the smallest."""

    name: str = "AggregateCoreFilter"
    reads: Group = Group.USAGE | Group.FACTS | Group.AGGREGATES

    def level(self, hosts: HostTable) -> IntColumn:
        return usable_by_aggregates(hosts, "VCPU", "cpu_allocation_ratio")


@dataclass(frozen=True)
class AggregateRamFilter(RamFilter):
    """As RamFilter, but by an aggregate's ``ram_allocation_ratio``; of several, by the smallest."""

    name: str = "AggregateRamFilter"
    reads: Group = Group.USAGE | Group.FACTS | Group.AGGREGATES

    def level(self, hosts: HostTable) -> IntColumn:
        return usable_by_aggregates(hosts, "MEMORY_MB", "ram_allocation_ratio")


@dataclass(frozen=True)
class AggregateDiskFilter(DiskFilter):
    """As DiskFilter, but by an aggregate's ``disk_allocation_ratio``; of several, by the smallest."""

    name: str = "AggregateDiskFilter"
    reads: Group = Group.USAGE | Group.FACTS | Group.AGGREGATES

    def level(self, hosts: HostTable) -> IntColumn:
        return usable_by_aggregates(hosts, "DISK_GB", "disk_allocation_ratio")
