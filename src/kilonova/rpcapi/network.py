"""How the rest of the cloud talks to the network agent of a host.

1.0  plug, unplug
1.1  plug: ports have `admin_up` and `allowed_macs` (PortPlan 1.1)
1.2  refresh; plug: ports have `rules` (PortPlan 1.2)

A command goes out in the lowest version that says all of it, so that agents are upgraded one by one.
"""

from typing import Any, ClassVar, Protocol

from kilonova.base.log import get_logger
from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.rpc.client import Target
from kilonova.rpcapi.wire import downgrade

log = get_logger(__name__)


class NetworkAPI(Protocol):
    """Commands of one host's network agent. All are idempotent.

    Raises `NetworkFailed` where a bridge, a rule or an address server cannot be made.
    """

    topic: ClassVar[str] = "network"
    version: ClassVar[str] = "1.2"

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        """After it: each bridge is up, DHCP knows each port, and anti-spoofing rules stand for each tap,
        before the tap exists."""
        ...

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        """After it: nothing of the server's ports remains; a bridge without ports is gone with its address server."""
        ...

    async def refresh(self) -> None:
        """Ask the conductor what belongs here. Only a hint."""
        ...


class NetworkClient(NetworkAPI):
    """Sends to ``network.<host>``."""

    def __init__(self, target: Target) -> None:
        self._newest = target
        self._target = target.at("1.0")

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        if await self._newest.takes("1.2"):
            version, told = "1.2", list[Any](ports)
        else:
            version = "1.1" if await self._newest.takes("1.1") else "1.0"
            if version == "1.0" and not all(port.admin_up for port in ports):
                raise NetworkFailed("The network agent of this host is too old to keep a port down: upgrade it first.")
            if any(port.rules is not None for port in ports):
                log.warning("the agent is too old for security groups: all may come to these ports", server=server_id)
            told = [downgrade(port, version) for port in ports]
        await self._newest.at(version).call(
            "plug", server_id=server_id, networks=networks, ports=told, epoch=epoch, deadline_s=60
        )

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("unplug", server_id=server_id, epoch=epoch, deadline_s=60)

    async def refresh(self) -> None:
        await self._newest.at("1.2").cast("refresh")
