"""A network agent that only keeps books: for simulated hosts."""

from kilonova.base.log import get_logger
from kilonova.model.epochs import Epochs
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.rpcapi.network import NetworkAPI

log = get_logger(__name__)


class FakeNetworkAgent(NetworkAPI):
    """Knows which ports are plugged, and touches nothing."""

    def __init__(self) -> None:
        self.ports: dict[str, tuple[str, ...]] = {}
        """Server id to its ports."""
        self._epochs = Epochs()

    async def start(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            self.ports[server_id] = tuple(port.nic.port_id for port in ports)
        log.info("ports are ready", server=server_id, ports=len(ports))

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            self.ports.pop(server_id, None)
