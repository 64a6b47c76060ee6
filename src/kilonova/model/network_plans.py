"""What a host's network agent is told to carry: networks with their subnets, and ports."""

import msgspec

from kilonova.model.guest import Nic


class SubnetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One subnet as a host shall serve it. `host_address` is the bridge's own, on a flat network the gateway."""

    id: str
    cidr: str
    gateway: str | None = None
    host_address: str | None = None
    enable_dhcp: bool = True
    dns: tuple[str, ...] = ()
    host_routes: tuple[tuple[str, str], ...] = ()
    """Pairs (destination CIDR, next hop)."""


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One network as a host shall carry it: a bridge with an address server."""

    version: str = "1.0"
    id: str
    name: str
    bridge: str
    """At most 15 characters."""
    mtu: int = 1500
    subnets: tuple[SubnetPlan, ...] = ()


class RulePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of traffic that a security group lets through. Empty, or None, is any."""

    direction: str
    """``ingress`` or ``egress``."""
    protocol: str = ""
    """``tcp``, ``udp``, ``icmp``, or a number."""
    port_min: int | None = None
    """Of ICMP: the type."""
    port_max: int | None = None
    """Of ICMP: the code."""
    remote: str = ""
    """A CIDR."""
    remote_group: str = ""
    """Id of the group whose members it is about; see `GroupMembers`."""


class PortPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One server's card on one network. `server_id` and `project_id` answer for it to the metadata service."""

    version: str = "1.2"
    nic: Nic
    server_id: str
    project_id: str
    hostname: str
    admin_up: bool = True
    """Since 1.1. False: nothing that its guest sends is let through."""
    allowed_macs: tuple[tuple[str, str], ...] = ()
    """Since 1.1: pairs (address or block, MAC) for which it may speak from that other MAC."""
    rules: tuple[RulePlan, ...] | None = None
    """Since 1.2: what its security groups let through; None: it is not filtered by any."""


class GroupMembers(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and blocks, on one network, of one security group's ports, on whatever host."""

    network_id: str
    group_id: str
    addresses: tuple[str, ...] = ()


class HostNetworks(msgspec.Struct, frozen=True, kw_only=True):
    """All that one host carries: what the agent asks for when it starts."""

    version: str = "1.1"
    networks: tuple[NetworkPlan, ...] = ()
    ports: tuple[PortPlan, ...] = ()
    members: tuple[GroupMembers, ...] = ()
    """Of the groups that rules of `ports` name."""
