"""The whole cloud in one process: every service on one event loop, SQLite, the queue in memory.

It is the same code as many processes on a broker; only what is chosen here differs. The API answers
first; hosts join as their agents come up.
"""

import asyncio
from functools import partial

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.log import get_logger
from kilonova.conductor.liveness import LivenessOptions
from kilonova.launch.addresses import Address
from kilonova.launch.agents import Agents, choose_virt
from kilonova.launch.control import answers, guests_shown, open_store, start_api, start_conductor, start_scheduler
from kilonova.launch.heartbeats import start_heartbeats
from kilonova.launch.operations import Operations, OperationsOptions
from kilonova.launch.options import UpOptions
from kilonova.launch.process import Process
from kilonova.launch.services import SERVICES
from kilonova.launch.state import StateDir
from kilonova.rpc.transports.memory import MemoryTransport

log = get_logger(__name__)


class EmbeddedCloud:
    """One process's cloud: `start`, then it runs until `stop`."""

    def __init__(self, state: StateDir, options: UpOptions, config: Config) -> None:
        """
        Raises:
            ValueError: the address to listen on is none.
        """
        self.state = state
        self.options = options
        self.virt = choose_virt(options.virt)
        self.listen = Address.parse(options.listen)
        looked_at = Address.parse(config.get(OperationsOptions).listen)
        clock = SystemClock()
        self._process = Process(
            state, config, MemoryTransport(clock), name="kilonova", host=options.host_name, clock=clock
        )
        self.agents = Agents(self._process, self.virt, self._host_names(), api_url=self.url)
        self._operations = Operations(self._process, looked_at, SERVICES)
        self._joining: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the API listens."""
        return self.listen.url

    async def start(self) -> None:
        """Bring everything up; hosts go on joining after this returns.

        Raises:
            OSError: the address to listen on cannot be had.
        """
        process = self._process
        store = await open_store(process, self.state.database_url, migrate=True)
        await process.open()
        await self._operations.start()
        self._operations.add_check("database", partial(store.read, answers))
        engine = await start_conductor(process, store, api_url=self.url, alone=True)
        self._operations.add_section("tasks", engine.look)
        self._operations.add_answer("/guests", partial(guests_shown, process, store))
        await start_scheduler(process, store)
        self.cloud = await start_api(process, store, self.listen, alone=True)
        beat_s = process.config.get(LivenessOptions).report_interval
        networks = ("network",) if self.virt != "fake" else ()  # simulated hosts have none that could fail
        start_heartbeats(process, ("api", "conductor", "scheduler", *networks), every_s=beat_s)
        self._joining = asyncio.create_task(self.agents.join(), name="launch.hosts")

    async def stop(self) -> None:
        """Drain and stop everything; guests run on."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
        await self.agents.stop()
        await self._process.close()

    def _host_names(self) -> list[str]:
        if self.virt == "fake":
            return [f"fake-{number:04d}" for number in range(1, self.options.hosts + 1)]
        return [self._process.host]
