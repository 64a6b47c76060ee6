"""Networks, subnets and ports."""

from datetime import datetime
from typing import Any

import msgspec


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `mtu` in bytes."""

    id: str
    project_id: str
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    shared: bool = False
    external: bool = False
    mtu: int = 1500
    port_security: bool = True
    subnet_ids: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime

    @property
    def bridge(self) -> str:
        """Its bridge on a host; Linux allows 15 characters."""
        return "kb" + self.id.replace("-", "")[:11]


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """An IPv4 subnet. `pools` are pairs of first and last address."""

    id: str
    network_id: str
    project_id: str
    name: str = ""
    description: str = ""
    cidr: str
    gateway_ip: str | None = None
    host_address: str
    """The address that each host has on it: the gateway, or one kept back where there is none."""
    enable_dhcp: bool = True
    dns: list[str] = []
    host_routes: list[dict[str, str]] = []
    pools: list[tuple[str, str]] = []
    created_at: datetime
    updated_at: datetime


class PortAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One fixed address of a port."""

    address: str
    subnet_id: str


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port: a card on a network, of a server or waiting for one."""

    id: str
    network_id: str
    network_name: str = ""
    project_id: str
    name: str = ""
    description: str = ""
    mac: str
    admin_state_up: bool = True
    device_id: str = ""
    device_owner: str = ""
    host: str = ""
    hostname: str = ""
    auto: bool = False
    """Made for a server, and goes with it."""
    port_security: bool = True
    allowed_address_pairs: list[dict[str, Any]] = []
    fixed_ips: tuple[PortAddress, ...] = ()
    security_groups: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime

    @property
    def tap(self) -> str:
        """Its device on a host."""
        return "kn" + self.id.replace("-", "")[:11]
