"""Keep builds away from hosts that are busy with disk-heavy work."""

from dataclasses import dataclass

from kilonova.scheduler.plugin import AtLeast, Column, Group, HostTable, IntColumn, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class IoOpsFilter(AtLeast):
    """Pass hosts with fewer than `max_io_ops_per_host` builds, resizes, snapshots or migrations in flight."""

    max_io_ops_per_host: int = 8
    name: str = "IoOpsFilter"
    reads: Group = Group.USAGE

    def level(self, hosts: HostTable) -> Column | IntColumn:
        return self.max_io_ops_per_host - hosts.io_ops

    def need(self, spec: RequestSpec) -> float:
        return 1

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is free of other builds and moves for now", "trying again later may help")


@dataclass(frozen=True)
class AggregateIoOpsFilter(IoOpsFilter):
    """As IoOpsFilter, but an aggregate's ``max_io_ops_per_host`` wins; of several, the smallest."""

    name: str = "AggregateIoOpsFilter"
    reads: Group = Group.USAGE | Group.AGGREGATES

    def level(self, hosts: HostTable) -> Column:
        limits: Column = hosts.aggregate_min("max_io_ops_per_host", self.max_io_ops_per_host, whole=True)
        return limits - hosts.io_ops
