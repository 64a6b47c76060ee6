"""Keep builds away from hosts that are busy with disk-heavy work."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import Group, HostTable, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class IoOpsFilter:
    """Pass hosts with fewer than `max_io_ops_per_host` builds, resizes, snapshots or migrations in flight."""

    max_io_ops_per_host: int = 8
    name: str = "IoOpsFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.io_ops < self.max_io_ops_per_host

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is free of other builds and moves for now", "trying again later may help")


@dataclass(frozen=True)
class AggregateIoOpsFilter(IoOpsFilter):
    """As IoOpsFilter, but an aggregate's ``max_io_ops_per_host`` wins; of several, the smallest."""

    name: str = "AggregateIoOpsFilter"
    reads: Group = Group.USAGE | Group.AGGREGATES

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.io_ops < hosts.aggregate_min("max_io_ops_per_host", self.max_io_ops_per_host)
