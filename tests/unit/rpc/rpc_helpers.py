"""A clock that moves only when a test says so, and a small conversation to hold on it."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol

from kilonova.base.ids import SeededIds
from kilonova.base.log import bound
from kilonova.model.errors import Conflict
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.base import Address, Consumer, Deliver, Transport
from kilonova.rpc.transports.memory import MemoryTransport


class VirtualClock:
    """Time stands still until `advance`; sleepers wake in the order of their time."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and everything happen that happens in them."""
        end = self._passed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._passed = max(self._passed, due)
                future.set_result(None)
                await settle()
        self._passed = end
        await settle()


async def settle() -> None:
    """Let every task run until it waits for time."""
    for _ in range(30):
        await asyncio.sleep(0)


class DeskAPI(Protocol):
    """The conversation of these tests."""

    topic: ClassVar[str] = "desk"
    version: ClassVar[str] = "1.1"
    quiet: ClassVar[frozenset[str]] = frozenset({"tick"})

    async def note(self, text: str) -> str: ...

    async def tick(self) -> None: ...

    async def nap(self, seconds: float) -> str: ...

    async def conflict(self) -> None: ...

    async def inner_cancel(self) -> None: ...

    async def unsendable(self) -> object: ...

    async def context(self) -> dict[str, str]: ...


class Desk:
    """Its endpoint."""

    def __init__(self, clock: VirtualClock, name: str = "d1") -> None:
        self.clock = clock
        self.name = name
        self.notes: list[str] = []
        self.done: list[str] = []
        self.ticks = 0
        self.stubborn = False

    async def note(self, text: str) -> str:
        self.notes.append(text)
        return self.name

    async def tick(self) -> None:
        self.ticks += 1

    async def nap(self, seconds: float) -> str:
        self.notes.append(f"nap {seconds:g}")
        try:
            await self.clock.sleep(seconds)
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
            await self.clock.sleep(1000)
        self.done.append(f"nap {seconds:g}")
        return self.name

    async def conflict(self) -> None:
        raise Conflict(detail="taken")

    async def inner_cancel(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def unsendable(self) -> object:
        return object()

    async def context(self) -> dict[str, str]:
        return {key: str(value) for key, value in bound().items()}


async def new_client(clock: VirtualClock, transport: Transport, **more: Any) -> RpcClient:
    """A started client."""
    client = RpcClient(transport, clock=clock, ids=SeededIds(7), **more)
    await client.start()
    return client


async def new_server(clock: VirtualClock, transport: Transport, desk: Desk, **more: Any) -> RpcServer:
    """A started server."""
    server = RpcServer(transport, protocol=DeskAPI, endpoint=desk, host=desk.name, clock=clock, **more)
    await server.start()
    return server


class Stalled(MemoryTransport):
    """A transport whose broker is away: publishing hangs until `back` is set."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.back = asyncio.Event()

    async def publish(self, *args: Any, **kwargs: Any) -> None:
        await self.back.wait()
        await super().publish(*args, **kwargs)


class Breaking(MemoryTransport):
    """A transport whose connection can break and come back, as one to a broker does by itself."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self._wanted: list[tuple[Address, Deliver, int]] = []
        self._real: list[Consumer] = []

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> Any:
        consumer = await super().consume(address, deliver, prefetch=prefetch)
        self._wanted.append((address, deliver, prefetch))
        self._real.append(consumer)
        return consumer

    async def reconnect(self) -> None:
        """Everything that was not acknowledged is delivered again, to the same consumers."""
        for consumer in self._real:
            await consumer.close()
        self._real = [
            await super(Breaking, self).consume(address, deliver, prefetch=prefetch)
            for address, deliver, prefetch in self._wanted
        ]
