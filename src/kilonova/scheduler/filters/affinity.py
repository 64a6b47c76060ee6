"""Together or apart: by server group, by servers that the user names, by address."""

import functools
import ipaddress
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.groups import members_by_host
from kilonova.scheduler.hints import hint, hinted_servers
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Group, HostTable, Mask, RequestSpec, Shortfall
from kilonova.scheduler.steps import named


@dataclass(frozen=True)
class ServerGroupAffinityFilter:
    """With policy ``affinity``: pass the hosts where members of the server's group are; all, if there are none yet."""

    name: str = "ServerGroupAffinityFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.group is not None and spec.group.policy == "affinity" else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        if spec.group is None or spec.group.policy != "affinity":
            return hosts.everywhere(True)
        members = members_by_host(hosts, spec)
        return named(hosts, members) if members else hosts.everywhere(True)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left that already has members of this server group")


@dataclass(frozen=True)
class ServerGroupAntiAffinityFilter:
    """With policy ``anti-affinity``: pass hosts with fewer than `max_server_per_host` members of the server's group."""

    name: str = "ServerGroupAntiAffinityFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.group is not None and spec.group.policy == "anti-affinity" else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        if spec.group is None or spec.group.policy != "anti-affinity":
            return hosts.everywhere(True)
        members: Counter[str] = members_by_host(hosts, spec)
        limit = spec.group.max_server_per_host
        return ~named(hosts, [host for host, number in members.items() if number >= limit])

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left that may have another member of this server group")


@dataclass(frozen=True)
class SameHostFilter:
    """Hint ``same_host``: pass the hosts of the servers that it names."""

    name: str = "SameHostFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.scheduler_hints.get("same_host") else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        servers = hinted_servers(spec, "same_host")
        if not servers:
            return hosts.everywhere(True)
        return named(hosts, [spec.hosts_of_servers[each] for each in servers if each in spec.hosts_of_servers])

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left that has one of the servers named by the hint same_host")


@dataclass(frozen=True)
class DifferentHostFilter:
    """Hint ``different_host``: pass hosts that have none of the servers that it names."""

    name: str = "DifferentHostFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.scheduler_hints.get("different_host") else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        servers = hinted_servers(spec, "different_host")
        return ~named(hosts, [spec.hosts_of_servers[each] for each in servers if each in spec.hosts_of_servers])

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left that has none of the servers named by the hint different_host")


@dataclass(frozen=True)
class SimpleCIDRAffinityFilter:
    """Hints ``build_near_host_ip`` and ``cidr`` (default ``/24``): pass hosts with an address in that block."""

    name: str = "SimpleCIDRAffinityFilter"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return _block(spec) if hint(spec, "build_near_host_ip") else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        if not hint(spec, "build_near_host_ip"):
            return hosts.everywhere(True)
        block = _network(_block(spec))
        if block is None:
            return hosts.everywhere(False)
        mask = hosts.everywhere(False)
        for row, state in enumerate(hosts.states):
            if state is not None:
                try:
                    mask[row] = ipaddress.ip_address(state.host_ip) in block
                except ValueError:
                    hosts.complain(f"host '{state.name}': its address '{state.host_ip}' is none; it is near nothing")
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        if _network(_block(spec)) is None:
            return Shortfall(f"can be near '{_block(spec)}'", "that is no block of addresses")
        return Shortfall(f"has an address in {_block(spec)}")


def _block(spec: RequestSpec) -> str:
    return f"{hint(spec, 'build_near_host_ip')}{hint(spec, 'cidr') or '/24'}"


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@functools.lru_cache(maxsize=1_000)
def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
