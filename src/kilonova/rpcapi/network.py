"""How the rest of the cloud talks to the network agent of a host.

1.0  plug, unplug
"""

from typing import ClassVar, Protocol

import msgspec

from kilonova.model.guest import Nic
from kilonova.rpc.client import Target


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

    version: str = "1.0"
    nic: Nic
    server_id: str
    project_id: str
    hostname: str


class HostNetworks(msgspec.Struct, frozen=True, kw_only=True):
    """All that one host carries: what the agent asks for when it starts."""

    version: str = "1.0"
    networks: tuple[NetworkPlan, ...] = ()
    ports: tuple[PortPlan, ...] = ()


class NetworkAPI(Protocol):
    """Commands of one host's network agent. Both are idempotent.

    Raises `NetworkFailed` where a bridge, a rule or an address server cannot be made.
    """

    topic: ClassVar[str] = "network"
    version: ClassVar[str] = "1.0"

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        """After it: each bridge is up, DHCP knows each port, and anti-spoofing rules stand for each tap,
        before the tap exists."""
        ...

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        """After it: nothing of the server's ports remains; a bridge without ports is gone with its address server."""
        ...


class NetworkClient(NetworkAPI):
    """Sends to ``network.<host>``."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        await self._target.call("plug", server_id=server_id, networks=networks, ports=ports, epoch=epoch, deadline_s=60)

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("unplug", server_id=server_id, epoch=epoch, deadline_s=60)
