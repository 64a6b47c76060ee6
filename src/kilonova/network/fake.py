"""A host's networks in memory alone: for simulated hosts, which need neither root nor a kernel."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

from kilonova.base.log import get_logger
from kilonova.model.epochs import Epochs
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network.carried import Carried
from kilonova.network.driver import NetworkDriver, Report
from kilonova.rpcapi.network import NetworkAPI

log = get_logger(__name__)


class FakeNetworks(NetworkDriver):
    """Keeps the same books as a real driver, and touches nothing."""

    name: ClassVar[str] = "fake"

    def __init__(self) -> None:
        self._carried = Carried(Path("/nonexistent"))  # only its memory is used

    async def start(self) -> None:
        """Nothing to take up."""

    async def close(self, *, remove: bool = False) -> None:
        if remove:
            self._carried.replace((), ())

    async def plug(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        self._carried.replace(
            {**self._carried.networks, **{network.id: network for network in networks}}.values(),
            {**self._carried.ports, **{port.nic.port_id: port for port in ports}}.values(),
        )

    async def unplug(self, server_id: str) -> None:
        left = [port for port in self._carried.ports.values() if port.server_id != server_id]
        self._carried.replace(list(self._carried.networks.values()), left)

    def carried(self) -> HostNetworks:
        return self._carried.snapshot()

    async def reconcile(self, wanted: HostNetworks, *, leave: Collection[str] = ()) -> Report:
        becoming, report = self._carried.compare(wanted, leave=leave)
        self._carried.learn(wanted.members)
        self._carried.replace(becoming.networks, becoming.ports)
        return report

    async def repair(self) -> list[str]:
        return []


class FakeNetworkAgent(NetworkAPI):
    """The agent of a simulated host. It asks nobody: what it does not know, nobody misses."""

    def __init__(self) -> None:
        self.driver = FakeNetworks()
        self._epochs = Epochs()

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def refresh(self) -> None:
        """What it does not filter, it need not know of."""

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self.driver.plug(networks, ports)
        log.info("ports are ready", server=server_id, ports=len(ports))

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self.driver.unplug(server_id)
