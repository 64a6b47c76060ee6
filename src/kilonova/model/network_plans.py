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


class PortPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One server's card on one network. `server_id` and `project_id` answer for it to the metadata service."""

    version: str = "1.1"
    nic: Nic
    server_id: str
    project_id: str
    hostname: str
    admin_up: bool = True
    """Since 1.1. False: nothing that its guest sends is let through."""


class HostNetworks(msgspec.Struct, frozen=True, kw_only=True):
    """All that one host carries: what the agent asks for when it starts."""

    version: str = "1.0"
    networks: tuple[NetworkPlan, ...] = ()
    ports: tuple[PortPlan, ...] = ()
