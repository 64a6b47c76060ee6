"""Prefer hosts by what goes on there: work in flight, and builds that failed."""

from dataclasses import dataclass

from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.table import Column, HostTable


@dataclass(frozen=True)
class IoOpsWeigher:
    """Score a host by its builds, resizes, snapshots and migrations in flight (the multiplier is negative)."""

    name: str = "IoOpsWeigher"
    multiplier_option: str = "io_ops_weight_multiplier"
    minimum: float | None = 0.0

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.io_ops.astype(float)


@dataclass(frozen=True)
class BuildFailureWeigher:
    """Push hosts away on which builds failed since the last one that went well."""

    name: str = "BuildFailureWeigher"
    multiplier_option: str = "build_failure_weight_multiplier"
    sign: float = -1.0

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.failed_builds.astype(float)
