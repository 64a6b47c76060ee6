"""Limit the number of servers on a host."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import Group, HostTable, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class NumInstancesFilter:
    """Pass hosts with fewer than `max_instances_per_host` servers."""

    max_instances_per_host: int = 50
    name: str = "NumInstancesFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.num_instances < self.max_instances_per_host

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("may have one more server", "all have as many as hosts may have here")


@dataclass(frozen=True)
class AggregateNumInstancesFilter(NumInstancesFilter):
    """As NumInstancesFilter, but an aggregate's ``max_instances_per_host`` wins; of several, the smallest."""

    name: str = "AggregateNumInstancesFilter"
    reads: Group = Group.USAGE | Group.AGGREGATES

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.num_instances < hosts.aggregate_min("max_instances_per_host", self.max_instances_per_host)
