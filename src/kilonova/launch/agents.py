"""Build the agents of one host: compute and network, on real parts or simulated ones."""

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from kilonova.base.clock import Clock
from kilonova.base.config import Config
from kilonova.base.ids import Ids
from kilonova.base.log import bind, get_logger
from kilonova.compute.agent import ComputeAgent
from kilonova.compute.endpoint import ComputeEndpoint
from kilonova.compute.options import ComputeOptions
from kilonova.compute.tracker import Tracker
from kilonova.launch.state import StateDir
from kilonova.model.epochs import Epochs
from kilonova.network.agent import NetworkAgent
from kilonova.network.fake import FakeNetworkAgent
from kilonova.network.options import NetworkAgentOptions
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.base import Transport
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.rpcapi.conductor import ConductorAPI, ConductorClient
from kilonova.rpcapi.network import NetworkAPI
from kilonova.virt.driver import VirtDriver
from kilonova.virt.fake.driver import FakeDriver, FakeOptions
from kilonova.virt.image_cache import ImageCache, ImageCacheOptions

log = get_logger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What every agent is handed: the queue, time and chance, options, and where the APIs are."""

    transport: Transport
    rpc: RpcClient
    clock: Clock
    ids: Ids
    config: Config
    state: StateDir
    metadata_secret: str
    api_url: str


@dataclass
class HostAgents:
    """The two agents of one host, and their ends of the queue."""

    host: str
    compute: ComputeAgent
    network: NetworkAgent | FakeNetworkAgent
    servers: list[RpcServer]
    clean_up: Callable[[], Awaitable[None]]
    """Removes what the hypervisor driver keeps running for guests, once there are none."""

    async def start(self) -> None:
        """Networks first: guests that start again need their bridges. Commands are taken last."""
        with bind(service="network", host=self.host):
            await self.network.start()
        with bind(service="compute", host=self.host):
            await self.compute.start()
        for server in self.servers:
            await server.start()
        with bind(service="compute", host=self.host):
            self.compute.run()

    async def stop(self) -> None:
        """Finish what is in hand, then let go; guests and their networks stay."""
        for server in self.servers:
            await server.stop(drain_s=5.0)
        await self.compute.stop()
        await self.network.close()


def choose_virt(virt: str) -> str:
    """``auto`` is libvirt where QEMU and libvirt are installed, else fake."""
    if virt != "auto":
        return virt
    return "libvirt" if shutil.which("libvirtd") and shutil.which("qemu-system-x86_64") else "fake"


def build_host(around: Surroundings, host: str, virt: str) -> HostAgents:
    """The agents of `host`, not started."""
    conductor = ConductorClient(around.rpc.target_of(ConductorAPI))
    agent_id = around.ids.uuid()
    epochs, tracker = Epochs(), Tracker()
    if virt == "fake":
        driver, network, clean_up = _fake_parts(around, host)
    else:
        driver, network, clean_up = _libvirt_parts(around, host, conductor)
        # The same state directory is the same host: an agent that was killed is followed by itself.
        agent_id = around.state.stable_id(f"hosts/{host}/agent-id", agent_id)
    compute = ComputeAgent(
        host,
        agent_id,
        driver,
        conductor,
        tracker,
        epochs,
        around.clock,
        around.config.get(ComputeOptions),
    )
    ends: list[tuple[type, object]] = [
        (ComputeAPI, ComputeEndpoint(host, driver, tracker, epochs)),
        (NetworkAPI, network),
    ]
    servers = [
        RpcServer(around.transport, protocol=protocol, endpoint=endpoint, host=host, clock=around.clock)
        for protocol, endpoint in ends
    ]
    return HostAgents(host, compute, network, servers, clean_up)


Network = NetworkAgent | FakeNetworkAgent
Parts = tuple[VirtDriver, Network, Callable[[], Awaitable[None]]]


async def _nothing() -> None:
    return None


def _http_client() -> httpx.AsyncClient:
    # The API is on this machine or on the operator's network: no proxy stands between.
    return httpx.AsyncClient(timeout=60, trust_env=False)


def _fake_parts(around: Surroundings, host: str) -> Parts:
    options = around.config.get(FakeOptions)
    file = around.state.host(host) / "guests.json"
    return FakeDriver(host, options, around.clock, around.ids, file=file), FakeNetworkAgent(), _nothing


def _libvirt_parts(around: Surroundings, host: str, conductor: ConductorAPI) -> Parts:
    # Imported where it is chosen: libvirt is not installed where only the fake driver is used.
    from kilonova.virt.libvirt.driver import LibvirtDriver, LibvirtOptions

    directory = around.state.host(host)
    owner = around.state.stable_id(f"hosts/{host}/owner", around.ids.uuid())
    images = ImageCache(directory / "image-cache", _http_client, around.clock, around.config.get(ImageCacheOptions))
    driver = LibvirtDriver(host, directory, around.config.get(LibvirtOptions), images, around.clock, owner=owner)
    network = NetworkAgent(
        host,
        directory / "network",
        conductor,
        table=f"kilonova_{owner[:8]}",
        api_url=around.api_url,
        secret=around.metadata_secret,
        clock=around.clock,
        options=around.config.get(NetworkAgentOptions),
    )
    return driver, network, driver.stop_daemons
