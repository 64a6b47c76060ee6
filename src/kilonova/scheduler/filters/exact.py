"""Hosts that the server fills to the brim: for bare machines, which take one server of their own size.

Free is what the host has, less what it keeps for itself and what is used and promised. Allocation ratios do not count.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import Group, HostTable, Mask, RequestSpec, Shortfall
from kilonova.scheduler.words import count


@dataclass(frozen=True)
class ExactCoreFilter:
    """Pass hosts whose free CPUs (without over-commitment) are as many as the server's."""

    name: str = "ExactCoreFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.vcpus

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask: Mask = hosts.vcpus - hosts.vcpus_reserved - hosts.vcpus_used == spec.vcpus
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has exactly {count(spec.vcpus, 'free CPU')}")


@dataclass(frozen=True)
class ExactRamFilter:
    """Pass hosts whose free memory (without over-commitment) is as much as the server's."""

    name: str = "ExactRamFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.memory_mib

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask: Mask = hosts.memory_mib - hosts.memory_reserved_mib - hosts.memory_used_mib == spec.memory_mib
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has exactly {spec.memory_mib} MiB of free memory")


@dataclass(frozen=True)
class ExactDiskFilter:
    """Pass hosts whose free disk (without over-commitment) is as much as the server's disks together."""

    name: str = "ExactDiskFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.disk_gib

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask: Mask = hosts.disk_gib - hosts.disk_reserved_gib - hosts.disk_used_gib == spec.disk_gib
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has exactly {spec.disk_gib} GiB of free disk")
