"""Server groups with soft rules: kept while there is room, broken without an error."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from kilonova.scheduler.groups import members_by_host
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Column, Group, HostTable, RequestSpec


@dataclass(frozen=True)
class ServerGroupSoftAffinityWeigher:
    """With policy ``soft-affinity``: score a host by its members of the server's group."""

    name: str = "ServerGroupSoftAffinityWeigher"
    multiplier_option: str = "soft_affinity_weight_multiplier"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.group is not None and spec.group.policy == "soft-affinity" else NOT_ASKED

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return _members(hosts, spec, "soft-affinity")


@dataclass(frozen=True)
class ServerGroupSoftAntiAffinityWeigher:
    """With policy ``soft-anti-affinity``: score a host the lower, the more members of the server's group it has."""

    name: str = "ServerGroupSoftAntiAffinityWeigher"
    multiplier_option: str = "soft_anti_affinity_weight_multiplier"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.group is not None and spec.group.policy == "soft-anti-affinity" else NOT_ASKED

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return -_members(hosts, spec, "soft-anti-affinity")


def _members(hosts: HostTable, spec: RequestSpec, policy: str) -> Column:
    """How many members of the group each host has; 0 everywhere under another policy."""
    column = np.zeros(hosts.size)
    if spec.group is not None and spec.group.policy == policy:
        for host, number in members_by_host(hosts, spec).items():
            if host in hosts.row_of:
                column[hosts.row_of[host]] = number
    return column
