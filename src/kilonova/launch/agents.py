"""The agents of hosts: compute and network, on real parts or simulated ones. Nothing here knows a database."""

import asyncio
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import httpx

from kilonova.base.log import bind, get_logger
from kilonova.compute.agent import ComputeAgent
from kilonova.compute.endpoint import ComputeEndpoint
from kilonova.compute.epoch_book import EpochBook
from kilonova.compute.options import ComputeOptions
from kilonova.compute.tracker import Tracker
from kilonova.launch.process import Process
from kilonova.model.epochs import Epochs
from kilonova.model.errors import CloudError
from kilonova.network.agent import NetworkAgent
from kilonova.network.fake import FakeNetworkAgent
from kilonova.network.options import NetworkAgentOptions
from kilonova.rpc.server import RpcServer
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.rpcapi.network import NetworkAPI
from kilonova.virt.driver import ImageUse, VirtDriver
from kilonova.virt.fake.driver import FakeDriver
from kilonova.virt.fake.options import FakeOptions
from kilonova.virt.image_cache import ImageCache, ImageCacheOptions

log = get_logger(__name__)


COMPUTE, NETWORK = "compute", "network"

STARTING = 16
"""Simulated hosts of one process that start at the same time."""


class Agents:
    """The agents of the hosts that one process stands for: one real host, or any number of simulated ones."""

    def __init__(
        self,
        process: Process,
        virt: str,
        hosts: Sequence[str],
        *,
        api_url: str,
        services: Collection[str] = (COMPUTE, NETWORK),
    ) -> None:
        """
        Args:
            virt: ``libvirt`` or ``fake``.
            api_url: where guests' questions for metadata are answered.
            services: which of the two agents.
        """
        self.virt = virt
        self.hosts = [_make_host(process, host, virt, services=services, api_url=api_url) for host in hosts]
        self._process = process

    async def join(self) -> None:
        """Start the hosts, some at a time; one that cannot start is tried again until it can."""
        readiness = self._process.readiness
        readiness.wait_for("hosts", f"{len(self.hosts)} to come")
        gate = asyncio.Semaphore(STARTING)
        async with asyncio.TaskGroup() as group:
            for agents in self.hosts:
                group.create_task(self._join_one(agents, gate), name=f"launch.{agents.host}")
        readiness.is_up("hosts")

    async def _join_one(self, agents: "HostAgents", gate: asyncio.Semaphore) -> None:
        while True:
            try:
                async with gate:
                    await agents.start()
            except CloudError as error:
                self._process.readiness.wait_for("hosts", f"{agents.host}: {error.message}")
                log.error("host cannot start; it is tried again", host=agents.host, cause=error.message)
                await self._process.clock.sleep(5)
            else:
                log.info("host is up", host=agents.host, virt=self.virt)
                return

    async def stop(self) -> None:
        """Finish what is in hand, then let go; guests and their networks stay."""
        await asyncio.gather(*(agents.stop() for agents in self.hosts))


@dataclass
class HostAgents:
    """The agents of one host, and their ends of the queue."""

    host: str
    compute: ComputeAgent | None
    network: "Network | None"
    servers: Sequence[RpcServer]
    images: ImageCache | None = None
    _started: bool = False

    async def start(self) -> None:
        """Networks first: guests that start again need their bridges. Commands are taken last."""
        if self.network is not None:
            with bind(service=NETWORK, host=self.host):
                await self.network.start()
        if self.images is not None:
            await self.images.start()
        if self.compute is not None:
            with bind(service=COMPUTE, host=self.host):
                await self.compute.start()
        for server in self.servers:
            await server.start()
        if self.compute is not None:
            with bind(service=COMPUTE, host=self.host):
                self.compute.run()
        self._started = True

    async def stop(self) -> None:
        """Finish what is in hand, then let go; guests and their networks stay."""
        if not self._started:
            return
        await asyncio.gather(*(server.stop(drain_s=4.0) for server in self.servers))
        if self.compute is not None:
            await self.compute.stop()
        if self.images is not None:
            await self.images.close()
        if self.network is not None:
            await self.network.close()


def choose_virt(virt: str) -> str:
    """``auto`` is libvirt where QEMU and libvirt are installed, else fake."""
    if virt != "auto":
        return virt
    return "libvirt" if shutil.which("libvirtd") and shutil.which("qemu-system-x86_64") else "fake"


def _make_host(process: Process, host: str, virt: str, *, services: Collection[str], api_url: str) -> HostAgents:
    ends: list[tuple[type, object]] = []
    conductor = process.calls.conductor
    compute: ComputeAgent | None = None
    network: Network | None = None
    images: ImageCache | None = None
    if COMPUTE in services:
        if virt != "fake":
            images = _image_cache(process, host)
        driver = _driver(process, host, images)
        if images is not None and isinstance(driver, ImageUse):
            _prune_now_and_then(process, host, images, driver)
        # The same state directory is the same host: an agent that was killed is followed by itself.
        agent_id = process.state.stable_id(f"hosts/{host}/agent-id", process.ids.uuid())
        book = EpochBook(process.state.host(host) / "epochs")
        epochs, tracker = Epochs(known=book.read(), record=book.record), Tracker()
        options = process.config.get(ComputeOptions)
        compute = ComputeAgent(host, agent_id, driver, conductor, tracker, epochs, process.clock, options)
        ends.append((ComputeAPI, ComputeEndpoint(host, driver, tracker, epochs, builds=options.max_concurrent_builds)))
    if NETWORK in services:
        network = FakeNetworkAgent() if virt == "fake" else _network(process, host, api_url)
        ends.append((NetworkAPI, network))
    servers = [
        RpcServer(process.transport, protocol=protocol, endpoint=endpoint, host=host, clock=process.clock)
        for protocol, endpoint in ends
    ]
    return HostAgents(host, compute, network, servers, images)


Network = NetworkAgent | FakeNetworkAgent


def _http_client() -> httpx.AsyncClient:
    # The API is on this machine or on the operator's network: no proxy stands between.
    return httpx.AsyncClient(timeout=60, trust_env=False)


def _owner(process: Process, host: str) -> str:
    """Marks what is ours on this machine."""
    return process.state.stable_id(f"hosts/{host}/owner", process.ids.uuid())


def _driver(process: Process, host: str, images: ImageCache | None) -> VirtDriver:
    directory, config = process.state.host(host), process.config
    if images is None:
        return FakeDriver(host, config.get(FakeOptions), process.clock, process.ids, file=directory / "guests.jsonl")
    # Imported where it is chosen: libvirt is not installed where only the fake driver is used.
    from kilonova.virt.libvirt.driver import LibvirtDriver, LibvirtOptions
    from kilonova.virt.libvirt.host_pci import PciDeviceOptions

    return LibvirtDriver(
        host,
        directory,
        config.get(LibvirtOptions),
        images,
        process.clock,
        owner=_owner(process, host),
        devices=config.get(PciDeviceOptions).read(),
    )


def _image_cache(process: Process, host: str) -> ImageCache:
    directory = process.state.host(host) / "image-cache"
    return ImageCache(directory, _http_client, process.clock, process.config.get(ImageCacheOptions))


def _prune_now_and_then(process: Process, host: str, images: ImageCache, driver: ImageUse) -> None:
    async def prune() -> None:
        await images.prune(await driver.images_in_use())

    process.repeat(f"compute.images.{host}", process.config.get(ImageCacheOptions).prune_interval_s, prune)


def _network(process: Process, host: str, api_url: str) -> NetworkAgent:
    return NetworkAgent(
        host,
        process.state.host(host) / "network",
        process.calls.conductor,
        process.config.get(NetworkAgentOptions),
        process.clock,
        process.readiness.registry,
        table=f"kilonova_{_owner(process, host)[:8]}",
        api_url=api_url,
        secret=process.state.secret("metadata"),
    )
