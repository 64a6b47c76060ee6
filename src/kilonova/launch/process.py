"""What every process of a cloud has: a queue, a name, time and chance, options, and an orderly end."""

import asyncio
import contextlib
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kilonova.base.clock import Clock, SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import Ids, SystemIds
from kilonova.base.log import get_logger, set_service
from kilonova.cloud.readiness import Readiness
from kilonova.launch.calls import Calls
from kilonova.launch.state import StateDir
from kilonova.model.errors import CloudError, Unavailable
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.base import Transport

log = get_logger(__name__)

PATIENCE_S = 30.0
"""The longest pause between two tries to reach a broker or a database that is not there yet."""


@dataclass
class Loop:
    """Periodic work of a process: how it goes. Times are of the process's monotonic clock."""

    every_s: float
    since: float
    last_end: float | None = None
    running_since: float | None = None
    runs: int = 0
    failure: str = ""
    """Why it failed the last time; empty if it did not."""


class Process:
    """One operating-system process. Services are started into it, and stopped in reverse order by `close`."""

    def __init__(
        self,
        state: StateDir,
        config: Config,
        transport: Transport,
        *,
        name: str,
        host: str = "",
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """
        Args:
            name: what it calls itself in messages and logs.
            host: the machine's name in the cloud; its own host name, if empty.
        """
        self.state = state
        self.config = config
        self.transport = transport
        self.name = name
        self.host = host or platform.node() or "localhost"
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or SystemIds()
        self.rpc = RpcClient(transport, clock=self.clock, ids=self.ids, name=name)
        self.calls = Calls(self.rpc)
        self.readiness = Readiness()
        self.servers: list[RpcServer] = []
        self.loops: dict[str, Loop] = {}
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Join the queue; where the broker is not there yet, wait for it."""
        await self.until_there("the broker", self.transport.open)
        self.at_end(self.transport.close)
        await self.rpc.start()
        self.at_end(self.rpc.stop)

    def at_end(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Call `stop` at the end, before all that was handed in earlier."""
        self._stack.push_async_callback(stop)

    async def serve(self, protocol: type, endpoint: object, *, service: str | None = None, host: str = "") -> None:
        """Answer others at `protocol`'s topic until the end."""
        server = RpcServer(
            self.transport,
            protocol=protocol,
            endpoint=endpoint,
            host=host or self.host,
            clock=self.clock,
            service=service,
        )
        await server.start()
        self.servers.append(server)
        self.at_end(server.stop)

    def repeat(self, name: str, every_s: float, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work` every `every_s` seconds until the end, whatever becomes of each time."""

        loop = self.loops[name] = Loop(every_s, since=self.clock.monotonic())

        async def forever() -> None:
            set_service(name.partition(".")[0])
            while True:
                await self.clock.sleep(every_s)
                loop.running_since, failure = self.clock.monotonic(), ""
                try:
                    await work()
                except CloudError as error:
                    failure = error.message
                    log.warning("periodic work failed", work=name, cause=error.message)
                except Exception as error:
                    failure = type(error).__name__
                    log.exception("periodic work failed", work=name)
                loop.last_end, loop.running_since, loop.failure = self.clock.monotonic(), None, failure
                loop.runs += 1

        task = asyncio.create_task(forever(), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.at_end(end)

    async def until_there(self, what: str, reach: Callable[[], Awaitable[None]]) -> None:
        """Try `reach` until it works: services of one cloud are started in any order."""
        pause = 0.5
        while True:
            try:
                return await reach()
            except Unavailable as error:
                log.warning("waiting", waiting_for=what, cause=error.message)
                await self.clock.sleep(pause * (0.75 + self.ids.chance.random() / 2))
                pause = min(PATIENCE_S, pause * 2)

    async def close(self) -> None:
        """Stop everything, the last first."""
        await self._stack.aclose()
