"""The whole cloud in one process: every service on one event loop, SQLite, the queue in memory.

It is the same code as many processes on a broker; only what is chosen here differs. The API answers
first; hosts join as their agents come up.
"""

import asyncio
import contextlib
import platform

from kilonova.api.http.app import HttpOptions, make_app
from kilonova.api.http.server import HttpServer, ServerOptions
from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import SystemIds
from kilonova.base.log import bind, get_logger
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.quotas import QuotaOptions
from kilonova.conductor.endpoint import ConductorEndpoint
from kilonova.conductor.hands import Hands
from kilonova.conductor.housekeeping import ConductorOptions, Housekeeping
from kilonova.conductor.liveness import Liveness, LivenessOptions
from kilonova.conductor.tasks import KINDS
from kilonova.launch.agents import HostAgents, Surroundings, build_host, choose_virt
from kilonova.launch.calls import Calls
from kilonova.launch.cloud import APIS, build_cloud, image_references
from kilonova.launch.heartbeats import Heartbeats
from kilonova.launch.options import UpOptions
from kilonova.launch.plugins import build_scheduler
from kilonova.launch.state import StateDir
from kilonova.model.errors import CloudError
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import quotas
from kilonova.tasks.engine import Engine, TaskOptions

log = get_logger(__name__)


class EmbeddedCloud:
    """One process's cloud: `start`, then it runs until `stop`."""

    def __init__(self, state: StateDir, options: UpOptions, config: Config) -> None:
        self.state = state
        self.options = options
        self.config = config
        self.virt = choose_virt(options.virt)
        self.hosts: list[HostAgents] = []
        self._clock = SystemClock()
        self._ids = SystemIds()
        self._joining: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the API listens."""
        host, _, port = self.options.listen.rpartition(":")
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}"  # noqa: S104 - only compared

    async def start(self) -> None:
        """Bring everything up; hosts go on joining after this returns.

        Raises:
            OSError: the address to listen on cannot be had.
        """
        stack, clock, ids, config = self._stack, self._clock, self._ids, self.config
        store = Store.open(self.state.database_url)
        stack.push_async_callback(store.close)
        migrations.upgrade(store.engine)
        await store.run(quotas.set_limits, "", config.get(QuotaOptions).limits())

        transport = MemoryTransport(clock)
        await transport.open()
        stack.push_async_callback(transport.close)
        rpc = RpcClient(transport, clock=clock, ids=ids, name="api")
        await rpc.start()
        stack.push_async_callback(rpc.stop)
        calls = Calls(rpc)

        self.cloud = cloud = await build_cloud(self.state, self.options, config, store, clock, ids, calls, self.url)
        await self._conductor(store, transport, cloud, calls)
        await self._scheduler(store, transport)
        host, _, port = self.options.listen.rpartition(":")
        app = make_app(APIS, cloud, config.get(HttpOptions))
        http = HttpServer(app, host.strip("[]") or "127.0.0.1", int(port), config.get(ServerOptions))
        around = Surroundings(
            transport=transport,
            rpc=rpc,
            clock=clock,
            ids=ids,
            config=config,
            state=self.state,
            metadata_secret=self.state.secret("metadata"),
            api_url=self.url,
        )
        names = self._host_names()
        self.hosts = [build_host(around, name, self.virt) for name in names]
        cloud.readiness.wait_for("hosts", f"{len(names)} to come")
        await http.start()
        stack.push_async_callback(http.stop)
        log.info("the API answers", url=self.url)
        beats = Heartbeats(
            calls.conductor,
            clock,
            ("api", "conductor", "scheduler"),
            host=platform.node() or "localhost",
            agent_id=ids.uuid(),
            every_s=config.get(LivenessOptions).report_interval,
        )
        beats.start()
        stack.push_async_callback(beats.stop)
        self._joining = [asyncio.create_task(self._join_all(), name="launch.hosts")]

    async def stop(self) -> None:
        """Drain and stop everything; guests run on."""
        for task in self._joining:
            task.cancel()
        await asyncio.gather(*self._joining, return_exceptions=True)
        await self._stack.aclose()

    async def remove_what_guests_need(self) -> None:
        """Stop what hosts keep running for guests (hypervisor daemons). Only where no guest is left."""
        for host in self.hosts:
            await host.clean_up()

    def _host_names(self) -> list[str]:
        if self.virt == "fake":
            return [f"fake-{number:04d}" for number in range(1, self.options.hosts + 1)]
        return [self.options.host_name or platform.node() or "localhost"]

    async def _conductor(self, store: Store, transport: MemoryTransport, cloud: Cloud, calls: Calls) -> None:
        clock, ids, config = self._clock, self._ids, self.config
        hands = Hands(
            store=store,
            scheduler=calls.scheduler,
            compute=calls.compute,
            network=calls.network,
            image_ref=image_references(self.state, self.url, config, store, clock),
        )
        engine = Engine(store, clock, ids, config.get(TaskOptions), KINDS, hands)
        liveness = Liveness(store, clock, ids, config.get(LivenessOptions), alone=True)
        endpoint = ConductorEndpoint(store, clock, ids, engine, liveness)
        server = RpcServer(
            transport, protocol=ConductorAPI, endpoint=endpoint, host=platform.node(), clock=clock, service="conductor"
        )
        with bind(service="conductor"):
            await liveness.start()
            self._stack.push_async_callback(liveness.stop)
            await engine.start(alone=True)
            self._stack.push_async_callback(engine.stop)
            housekeeping = Housekeeping(store, clock, config.get(ConductorOptions), config.get(TaskOptions))
            housekeeping.start()
            self._stack.push_async_callback(housekeeping.stop)
        await server.start()
        self._stack.push_async_callback(server.stop)

    async def _scheduler(self, store: Store, transport: MemoryTransport) -> None:
        endpoint = build_scheduler(self.config, store, self._clock, self._ids)
        server = RpcServer(transport, protocol=SchedulerAPI, endpoint=endpoint, host=platform.node(), clock=self._clock)
        with bind(service="scheduler"):
            await endpoint.start()
            self._stack.push_async_callback(endpoint.stop)
        await server.start()
        self._stack.push_async_callback(server.stop)

    async def _join_all(self) -> None:
        readiness = self.cloud.readiness
        for host in self.hosts:
            while True:
                try:
                    await host.start()
                except CloudError as error:
                    readiness.wait_for("hosts", f"{host.host}: {error.message}")
                    log.error("host cannot start; it is tried again", host=host.host, cause=error.message)
                    await self._clock.sleep(5)
                else:
                    self._stack.push_async_callback(host.stop)
                    log.info("host is up", host=host.host, virt=self.virt)
                    break
        readiness.is_up("hosts")
