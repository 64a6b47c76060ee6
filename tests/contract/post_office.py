"""The conversation that the contract of transports holds: parcels, offices that weigh them, and their customers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar, Protocol

import msgspec
import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.base.log import bound
from kilonova.model.errors import (
    QuotaExceeded,
)
from kilonova.rpc.client import RpcClient, Target
from kilonova.rpc.options import RpcOptions
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.base import Transport

TransportFactory = Callable[[], Awaitable[Transport]]

MIB = 1024 * 1024
CLOCK = SystemClock()
IDS = SystemIds()


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """An object that crosses the wire."""

    version: str = "1.3"
    weight: int
    labels: tuple[str, ...] = ()


class PostAPI(Protocol):
    """The conversation that these tests hold."""

    topic: ClassVar[str] = "post"
    version: ClassVar[str] = "2.5"

    async def weigh(self, parcel: Parcel, *, times: int = 1) -> Parcel: ...

    async def note(self, text: str) -> str: ...

    async def hold(self, name: str) -> str:
        """Answers when the test opens the gate."""
        ...

    async def refuse(self) -> None: ...

    async def break_down(self) -> None: ...

    async def fill(self, size: int) -> str: ...

    async def measure(self, text: str) -> int: ...

    async def context(self) -> dict[str, str]: ...


class PostOffice(PostAPI):
    """An endpoint that keeps what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []
        self.held: list[str] = []
        self.gate = asyncio.Event()

    async def weigh(self, parcel: Parcel, *, times: int = 1) -> Parcel:
        assert isinstance(parcel, Parcel)
        return Parcel(weight=parcel.weight * times, labels=(*parcel.labels, self.name))

    async def note(self, text: str) -> str:
        self.notes.append(text)
        return self.name

    async def hold(self, name: str) -> str:
        self.held.append(name)
        await self.gate.wait()
        return f"{self.name}: {name}"

    async def refuse(self) -> None:
        raise QuotaExceeded(resource="cores", limit=20, used=19, asked=2)

    async def break_down(self) -> None:
        raise KeyError("no such drawer")

    async def fill(self, size: int) -> str:
        return "x" * size

    async def measure(self, text: str) -> int:
        return len(text)

    async def context(self) -> dict[str, str]:
        return {key: str(value) for key, value in bound().items()}

    async def not_declared(self) -> str:
        return "the protocol does not name this method"


class Post:
    """One topic of its own on the broker, with as many processes as a test wants."""

    def __init__(self, factory: TransportFactory) -> None:
        self.topic = f"post-{IDS.uuid()[:8]}"
        self._factory = factory
        self._closing = contextlib.AsyncExitStack()

    async def transport(self) -> Transport:
        """Another process's connection."""
        transport = await self._factory()
        self._closing.push_async_callback(transport.close)
        return transport

    async def office(self, host: str, *, prefetch: int = 256, version: str = "2.5") -> tuple[PostOffice, RpcServer]:
        """A worker on `host`, in a process of its own."""
        endpoint = PostOffice(host)
        server = await self.serve(endpoint, await self.transport(), prefetch=prefetch, version=version)
        return endpoint, server

    async def serve(
        self, endpoint: PostOffice, transport: Transport, *, prefetch: int = 256, version: str = "2.5"
    ) -> RpcServer:
        server = RpcServer(
            transport,
            protocol=PostAPI,
            endpoint=endpoint,
            host=endpoint.name,
            clock=CLOCK,
            topic=self.topic,
            version=version,
            service="post-office",
            options=RpcOptions(prefetch=prefetch),
        )
        await server.start()
        self._closing.push_async_callback(server.stop, 0)
        return server

    async def client(self) -> RpcClient:
        """A caller, in a process of its own."""
        client = RpcClient(await self.transport(), clock=CLOCK, ids=IDS, name="customer")
        await client.start()
        self._closing.push_async_callback(client.stop)
        return client

    async def target(self, host: str | None = None, *, version: str = "2.5") -> Target:
        return (await self.client()).target(self.topic, host=host, version=version)

    async def close(self) -> None:
        await self._closing.aclose()


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for what must become true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def post(transport_factory: TransportFactory) -> AsyncIterator[Post]:
    """A topic that nobody else uses."""
    post = Post(transport_factory)
    yield post
    await post.close()
