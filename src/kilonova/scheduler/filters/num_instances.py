"""Limit the number of servers on a host."""

from dataclasses import dataclass

from kilonova.scheduler.plugin import AtLeast, Column, Group, HostTable, IntColumn, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class NumInstancesFilter(AtLeast):
    """Pass hosts with fewer than `max_instances_per_host` servers."""

    max_instances_per_host: int = 50
    name: str = "NumInstancesFilter"
    reads: Group = Group.USAGE

    def level(self, hosts: HostTable) -> Column | IntColumn:
        return self.max_instances_per_host - hosts.num_instances

    def need(self, spec: RequestSpec) -> float:
        return 1

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("may have one more server", "all have as many as hosts may have here")


@dataclass(frozen=True)
class AggregateNumInstancesFilter(NumInstancesFilter):
    """As NumInstancesFilter, but an aggregate's ``max_instances_per_host`` wins; of several, the smallest."""

    name: str = "AggregateNumInstancesFilter"
    reads: Group = Group.USAGE | Group.AGGREGATES

    def level(self, hosts: HostTable) -> Column:
        limits: Column = hosts.aggregate_min("max_instances_per_host", self.max_instances_per_host, whole=True)
        return limits - hosts.num_instances
