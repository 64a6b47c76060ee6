"""NATS as the broker, by nats-py: ``nats://user:password@host:4222``, ``tls://`` with TLS. The server needs JetStream.

How the three kinds of address are made:

- **work**: a subject of one JetStream stream, which keeps each message on disk until somebody has acknowledged it. The
  workers of a queue share a durable consumer and pull from it, each no more than it can hold. As long as a message is
  being worked on, its worker says so now and then; one that falls silent loses it to another.
- **reply** and **fan-out**: plain subjects. What nobody listens to is gone.

One connection, whatever the load; the library makes it anew when it is lost. A publication whose confirmation was lost
is repeated under the same message id, which the stream knows. NATS 2.9 has no lifetime of single messages: each
carries its own end in a header, and who takes it too late lets it go.

The server's ``max_payload`` must allow for our largest message (``max_payload: 12MB``); by itself it is 1 MB.
"""

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Address, Deliver, Kind, QueueDepth, Unkept

log = get_logger(__name__)

BROKEN: Final = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
"""What a lost connection shows itself as, depending on the moment."""

ENDS: Final = "Kilonova-Ends"
"""Header: the wall-clock second after which nobody wants the message any more."""

PULL_S: Final = 5.0
"""How long one request for messages stands."""

WRITE_S: Final = 5.0
"""How long a write may take. The library's own time limits begin after it has written, and while a connection is made
anew it may wait for room in its buffer for ever."""


GIVEN_BACK_S: Final = 0.1
"""Delay after which work that is given back goes to another. Without one, NATS 2.9.10 was seen to count a delivery that
reached nobody (in one of five tries while the consumer ended), and the work lay still until `silence_s` had passed."""


@dataclass(frozen=True, kw_only=True)
class NatsOptions:
    """``[nats]`` of kilonova.conf."""

    section: ClassVar[str] = "nats"

    stream: str = "KILONOVA"
    """The stream that keeps work; clouds that share a server have different ones."""

    replicas: int = 1
    """Servers of a cluster that keep each message."""

    publish_timeout_s: float = 30.0
    """How long a message waits for a broker that is away before it is refused."""

    connect_timeout_s: float = 10.0
    """How long the first try to connect may take."""

    silence_s: float = 10.0
    """Seconds after which work in the hands of a process that is gone goes to another."""

    ca_file: str = ""
    """Certificates of the authority that the server's certificate must be from (``tls://``); empty: the system's."""


class _Delivery:
    """A `Delivery` that the stream wants acknowledged."""

    __slots__ = ("_consumer", "_message", "body", "redelivered")

    def __init__(self, consumer: "_WorkConsumer", message: Msg) -> None:
        self._consumer = consumer
        self._message = message
        self.body = message.data
        self.redelivered = message.metadata.num_delivered > 1

    async def ack(self) -> None:
        await self._consumer.ack(self._message)


class _PlainConsumer:
    """Of a reply queue or a fan-out."""

    def __init__(self, transport: "NatsTransport", subscription: Subscription) -> None:
        self._transport = transport
        self._subscription = subscription

    async def cancel(self) -> None:
        self._transport.forget(self)
        await _told(self._subscription.unsubscribe())

    async def close(self) -> None:
        await self.cancel()


class _WorkConsumer:
    """Pulls from one queue, as much as it has hands for."""

    def __init__(self, transport: "NatsTransport", name: str, deliver: Deliver, prefetch: int) -> None:
        self.name = name
        self._transport = transport
        self._deliver = deliver
        self._prefetch = prefetch
        self.held: dict[str, Msg] = {}
        self._hands_free = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._pull: JetStreamContext.PullSubscription | None = None

    async def start(self) -> None:
        await self._subscribe()
        self._loops = [
            asyncio.create_task(self._take_forever(), name=f"rpc.nats.take {self.name}"),
            asyncio.create_task(self._hold_forever(), name=f"rpc.nats.hold {self.name}"),
        ]

    async def _subscribe(self) -> None:
        transport = self._transport
        self._pull = await transport.stream.pull_subscribe(
            transport.work_subject(self.name),
            durable=_durable(self.name),
            stream=transport.options.stream,
            config=ConsumerConfig(
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=transport.options.silence_s,
                max_ack_pending=-1,
                max_deliver=-1,
                inactive_threshold=7 * 86400.0,
            ),
        )

    async def _take_forever(self) -> None:
        while True:
            room = self._prefetch - len(self.held)
            if room <= 0:
                self._hands_free.clear()
                await self._hands_free.wait()
                continue
            try:
                assert self._pull is not None
                async with asyncio.timeout(PULL_S + WRITE_S):
                    messages = await self._pull.fetch(min(room, 256), timeout=PULL_S)
                for message in messages:
                    await self._take(message)
            except nats.errors.TimeoutError:
                continue  # nothing came
            except BROKEN as error:
                log.debug("queue cannot be read now", queue=self.name, cause=str(error) or type(error).__name__)
                await asyncio.sleep(0.2)
                with contextlib.suppress(*BROKEN):
                    await self._subscribe()

    async def _take(self, message: Msg) -> None:
        ends = (message.headers or {}).get(ENDS)
        if ends is not None and float(ends) < time.time():
            await _told(message.ack())
            return
        self.held[message.reply] = message
        self._deliver(_Delivery(self, message))

    async def _hold_forever(self) -> None:
        while True:
            await asyncio.sleep(self._transport.options.silence_s / 3)
            for message in list(self.held.values()):
                await _told(message.in_progress())

    async def ack(self, message: Msg) -> None:
        if self.held.get(message.reply) is not message:
            return  # given back meanwhile
        del self.held[message.reply]
        self._hands_free.set()
        await _told(message.ack())

    async def cancel(self) -> None:
        self._transport.forget(self)
        if not self._loops:
            return
        taking = self._loops[0]
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        if self._pull is not None:
            waiting = self._pull._sub._pending_queue
            while not waiting.empty():
                message = waiting.get_nowait()
                if message.reply:
                    await _told(message.nak(delay=GIVEN_BACK_S))
            await _told(self._pull.unsubscribe())
            await _told(self._transport.client.flush())

    async def close(self) -> None:
        await self.cancel()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        held, self.held = self.held, {}
        for message in held.values():
            await _told(message.nak(delay=GIVEN_BACK_S))


class NatsTransport:
    """One process's connection to NATS: a `Transport`."""

    def __init__(self, url: str, ids: Ids, options: NatsOptions | None = None) -> None:
        self._url = url
        self._ids = ids
        self.options = options or NatsOptions()
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._consumers: list[_PlainConsumer | _WorkConsumer] = []
        self._known: set[str] = set()
        self._is_closed = False
        self._complaint: Exception | None = None
        self.reconnects = 0
        """How often the connection was made anew."""

    @property
    def where(self) -> str:
        """The server's address, without secrets."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"

    @property
    def client(self) -> Client:
        """The connection.

        Raises:
            Unavailable: closed, or not open yet.
        """
        if self._client is None or self._is_closed:
            raise Unavailable(detail="The message transport is closed.")
        return self._client

    @property
    def stream(self) -> JetStreamContext:
        """The stream that keeps work."""
        assert self._stream is not None
        return self._stream

    def work_subject(self, name: str) -> str:
        """The subject of a work queue."""
        return f"{self.options.stream}.work.{name}"

    def _plain_subject(self, address: Address) -> str:
        return f"{self.options.stream}.{address.kind.value}.{address.name}"

    # ---- connection --------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._client is not None:
            return
        self._is_closed = False
        client = Client()
        try:
            async with asyncio.timeout(self.options.connect_timeout_s):
                await client.connect(
                    self._url,
                    name="kilonova",
                    error_cb=self._on_error,
                    disconnected_cb=self._on_lost,
                    reconnected_cb=self._on_back,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.5,  # type: ignore[arg-type] # declared whole, used as seconds
                    connect_timeout=2,
                    ping_interval=10,
                    tls=self._tls(),
                    pending_size=32 * 1024 * 1024,
                )
                self._stream = client.jetstream(timeout=5, publish_async_max_pending=100_000)
                await self._make_stream(self._stream)
        except BROKEN as error:
            with contextlib.suppress(Exception):
                await client.close()
            # The library goes on trying; what it met is told aside.
            reason = str(self._complaint or error) or type(error).__name__
            raise Unavailable(detail=f"NATS at {self.where} cannot be used: {self._masked(reason)}") from None
        self._client = client

    async def _make_stream(self, stream: JetStreamContext) -> None:
        await stream.add_stream(
            StreamConfig(
                name=self.options.stream,
                subjects=[f"{self.options.stream}.work.>"],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                num_replicas=self.options.replicas,
                duplicate_window=120,
            )
        )

    def _masked(self, text: str) -> str:
        password = urlsplit(self._url).password
        return text.replace(password, "***") if password else text

    def _tls(self) -> ssl.SSLContext | None:
        if not self._url.startswith("tls"):
            return None
        return ssl.create_default_context(cafile=self.options.ca_file or None)

    async def _on_error(self, error: Exception) -> None:
        self._complaint = error
        log.debug("NATS complains", cause=self._masked(str(error)))

    async def _on_lost(self) -> None:
        if not self._is_closed:
            log.warning("connection to the broker is lost", broker=self.where)

    async def _on_back(self) -> None:
        self.reconnects += 1
        log.info("connection to the broker is back", broker=self.where)

    async def close(self) -> None:
        for consumer in list(self._consumers):
            await consumer.close()
        client, self._client = self._client, None
        self._is_closed = True
        if client is not None:
            await _told(client.flush())
            await _told(client.close())

    # ---- sending -----------------------------------------------------------------------------------

    async def publish(self, address: Address, body: bytes, *, ttl_s: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        patience = self.options.publish_timeout_s
        until = loop.time() + (patience if ttl_s is None else min(patience, ttl_s))
        headers = {"Nats-Msg-Id": self._ids.uuid()}
        if ttl_s is not None:
            headers[ENDS] = repr(time.time() + ttl_s)
        while True:
            client = self.client
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._put(client, address, body, headers)
                return
            except nats.errors.MaxPayloadError:
                raise Unavailable(
                    detail=f"A message of {len(body)} bytes is over max_payload of the NATS server: set it to 12MB."
                ) from None
            except BROKEN as error:
                cause = str(error) or type(error).__name__
            if loop.time() >= until:
                raise Unavailable(detail=f"NATS at {self.where} did not take a message: {self._masked(cause)}")
            await asyncio.sleep(0.1)

    async def _put(self, client: Client, address: Address, body: bytes, headers: dict[str, str]) -> None:
        if not client.is_connected:
            raise nats.errors.ConnectionReconnectingError
        if address.kind is Kind.WORK:
            self._known.add(address.name)
            await self.stream.publish(self.work_subject(address.name), body, timeout=WRITE_S, headers=headers)
        else:
            await client.publish(self._plain_subject(address), body)

    # ---- taking ------------------------------------------------------------------------------------

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> _PlainConsumer | _WorkConsumer:
        client = self.client
        try:
            if address.kind is Kind.WORK:
                self._known.add(address.name)
                worker = _WorkConsumer(self, address.name, deliver, prefetch)
                await worker.start()
                self._consumers.append(worker)
                return worker

            async def on_message(message: Msg) -> None:
                deliver(Unkept(message.data))

            subject = self._plain_subject(address)
            listener = _PlainConsumer(self, await client.subscribe(subject, cb=on_message))
            await client.flush()  # the server knows of it before anybody is told where to answer
        except BROKEN as error:
            raise Unavailable(detail=f"{address.name} cannot be consumed: {self._masked(str(error))}") from None
        self._consumers.append(listener)
        return listener

    def forget(self, consumer: _PlainConsumer | _WorkConsumer) -> None:
        """A consumer wishes for nothing more."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    async def depths(self) -> Mapping[str, QueueDepth]:
        """The work queues that this process uses. Consumers are this process's own: the server counts requests."""
        found: dict[str, QueueDepth] = {}
        for name in sorted(self._known):
            own = sum(isinstance(consumer, _WorkConsumer) and consumer.name == name for consumer in self._consumers)
            try:
                info: Any = await self.stream.consumer_info(self.options.stream, _durable(name))
            except nats.js.errors.NotFoundError:
                continue  # nobody has consumed it yet
            except BROKEN as error:
                raise Unavailable(detail=f"NATS does not tell of its queues: {self._masked(str(error))}") from None
            found[name] = QueueDepth(waiting=info.num_pending or 0, unacked=info.num_ack_pending or 0, consumers=own)
        return found


async def _told(telling: Awaitable[object]) -> None:
    """Tell the server something that does no harm if it is not heard: what is not acknowledged comes again."""
    with contextlib.suppress(*BROKEN):
        async with asyncio.timeout(WRITE_S):
            await telling


def _durable(name: str) -> str:
    """A queue's name as that of a consumer, which may have no dots."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"={ord(match[0]):02x}", name)
