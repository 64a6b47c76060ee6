"""Which hosts may be asked at all."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class AllHostsFilter:
    """Pass every host."""

    name: str = "AllHostsFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.everywhere(True)


@dataclass(frozen=True)
class ComputeFilter(AtLeast):
    """Pass hosts whose compute service is up and enabled."""

    name: str = "ComputeFilter"
    reads: Group = Group.LIVENESS

    def level(self, hosts: HostTable) -> IntColumn:
        return (hosts.is_up & hosts.is_enabled).astype(np.int64)

    def need(self, spec: RequestSpec) -> float:
        return 1

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        down = int((among & ~hosts.is_up).sum())
        disabled = int((among & hosts.is_up & ~hosts.is_enabled).sum())
        return Shortfall("is up and enabled", f"{down} down, {disabled} disabled")
