"""Prefer hosts by what they have free: positive multipliers spread, negative ones pack."""

from dataclasses import dataclass

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.table import Column, HostTable


@dataclass(frozen=True)
class RAMWeigher:
    """Score a host by its free memory, in MiB."""

    name: str = "RAMWeigher"
    multiplier_option: str = "ram_weight_multiplier"
    minimum: float | None = 0.0

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_memory_mib.astype(float)


@dataclass(frozen=True)
class CPUWeigher:
    """Score a host by its free virtual CPUs."""

    name: str = "CPUWeigher"
    multiplier_option: str = "cpu_weight_multiplier"
    minimum: float | None = 0.0

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_vcpus.astype(float)


@dataclass(frozen=True)
class DiskWeigher:
    """Score a host by its free disk, in GiB."""

    name: str = "DiskWeigher"
    multiplier_option: str = "disk_weight_multiplier"
    minimum: float | None = 0.0

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.free_disk_gib.astype(float)
