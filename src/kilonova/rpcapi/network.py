"""How the rest of the cloud talks to the network agent of a host.

1.0  plug, unplug, refresh
"""

from typing import ClassVar, Protocol

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.rpc.client import Target


class NetworkAPI(Protocol):
    """Commands of one host's network agent. All are idempotent.

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

    async def refresh(self) -> None:
        """Ask the conductor what belongs here, and make it so. Only a hint: the agent does it by the clock, too."""
        ...


class NetworkClient(NetworkAPI):
    """Sends to ``network.<host>``."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        await self._target.call("plug", server_id=server_id, networks=networks, ports=ports, epoch=epoch, deadline_s=60)

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("unplug", server_id=server_id, epoch=epoch, deadline_s=60)

    async def refresh(self) -> None:
        await self._target.cast("refresh")
