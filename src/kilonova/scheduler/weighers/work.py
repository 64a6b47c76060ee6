"""Prefer hosts by what goes on there: work in flight, servers, builds that failed."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import Column, Group, HostTable, RequestSpec


@dataclass(frozen=True)
class IoOpsWeigher:
    """Score a host by its builds, resizes, snapshots and migrations in flight; the default multiplier is negative."""

    name: str = "IoOpsWeigher"
    multiplier_option: str = "io_ops_weight_multiplier"
    minimum: float | None = 0.0
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.io_ops.astype(float)


@dataclass(frozen=True)
class NumInstancesWeigher:
    """Score a host by its servers: positive multipliers pack, negative ones spread; off by default."""

    name: str = "NumInstancesWeigher"
    multiplier_option: str = "num_instances_weight_multiplier"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.num_instances.astype(float)


@dataclass(frozen=True)
class BuildFailureWeigher:
    """Push hosts away on which builds failed since the last one that went well."""

    name: str = "BuildFailureWeigher"
    multiplier_option: str = "build_failure_weight_multiplier"
    sign: float = -1.0
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.failed_builds.astype(float)
