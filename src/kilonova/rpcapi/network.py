"""How the rest of the cloud talks to the network agent of a host.

1.0  plug, unplug
1.1  plug: ports have `admin_up` and pairs of address and MAC (PortPlan 1.1)
"""

from typing import Any, ClassVar, Protocol

from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.rpc.client import Target
from kilonova.rpcapi.wire import downgrade


class NetworkAPI(Protocol):
    """Commands of one host's network agent. Both are idempotent.

    Raises `NetworkFailed` where a bridge, a rule or an address server cannot be made.
    """

    topic: ClassVar[str] = "network"
    version: ClassVar[str] = "1.1"

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
        self._newest = target
        self._target = target.at("1.0")

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        if await self._newest.takes("1.1"):
            target, told = self._newest.at("1.1"), list[Any](ports)
        elif all(port.admin_up for port in ports):
            target, told = self._target, [downgrade(port, "1.0") for port in ports]
        else:
            raise NetworkFailed("The network agent of this host is too old to keep a port down: upgrade it first.")
        await target.call("plug", server_id=server_id, networks=networks, ports=told, epoch=epoch, deadline_s=60)

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("unplug", server_id=server_id, epoch=epoch, deadline_s=60)
