"""Prefer hosts by what they have free: positive multipliers spread, negative ones pack."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import Column, Group, HostTable, RequestSpec


@dataclass(frozen=True)
class RAMWeigher:
    """Score a host by its free memory, in MiB."""

    name: str = "RAMWeigher"
    multiplier_option: str = "ram_weight_multiplier"
    minimum: float | None = 0.0
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_memory_mib.astype(float)


@dataclass(frozen=True)
class CPUWeigher:
    """Score a host by its free virtual CPUs."""

    name: str = "CPUWeigher"
    multiplier_option: str = "cpu_weight_multiplier"
    minimum: float | None = 0.0
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_vcpus.astype(float)


@dataclass(frozen=True)
class DiskWeigher:
    """Score a host by its free disk, in GiB."""

    name: str = "DiskWeigher"
    multiplier_option: str = "disk_weight_multiplier"
    minimum: float | None = 0.0
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_disk_gib.astype(float)
