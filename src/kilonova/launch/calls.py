"""The clients of one process: who it calls, and the bell."""

from kilonova.launch.bell import RpcBell
from kilonova.rpc.client import RpcClient
from kilonova.rpcapi.compute import ComputeAPI, ComputeClient
from kilonova.rpcapi.conductor import ConductorAPI, ConductorClient
from kilonova.rpcapi.network import NetworkAPI, NetworkClient
from kilonova.rpcapi.scheduler import SchedulerAPI, SchedulerClient


class Calls:
    """Typed clients on one RPC client."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self.conductor = ConductorClient(rpc.target_of(ConductorAPI))
        self.scheduler = SchedulerClient(rpc.target_of(SchedulerAPI))
        self.bell = RpcBell(
            {"conductor": self.conductor.wake, "scheduler": self.scheduler.refresh},
            of_host={"network": lambda host: self.network(host).refresh()},
        )

    def compute(self, host: str) -> ComputeClient:
        """The compute agent of a host."""
        return ComputeClient(self._rpc.target_of(ComputeAPI, host=host))

    def network(self, host: str) -> NetworkClient:
        """The network agent of a host."""
        return NetworkClient(self._rpc.target_of(NetworkAPI, host=host))
