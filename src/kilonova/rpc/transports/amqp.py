"""RabbitMQ as the broker, by aio-pika: ``amqp://user:password@host:5672/vhost``, ``amqps://`` with TLS.

How the three kinds of address are made:

- **work**: a durable queue of the same name. Messages are persistent, and a publication has happened when the broker
  has confirmed it. A queue that all workers of a topic share is a quorum queue (it survives the loss of a node of a
  cluster); that of one host is a classic one, because there may be thousands.
- **reply**: a queue that expires some minutes after its process was heard of last.
- **fan-out**: an exchange of the topic, to which every worker binds a queue of its own, which expires likewise.

Two connections whatever the load: one that sends, one that takes, so that a broker that holds senders back still
gets its acknowledgements. When they are lost they are made anew, with growing pauses; consumers come back with
them. The same happens when the broker ends a consumer of ours (its queue was removed, or the node that led it is
gone): nothing else would tell that nobody listens any more. A publication whose confirmation was lost is repeated:
the other side drops what it has seen.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
    ConsumerTag,
)
from aio_pika.exceptions import AMQPError, ChannelClosed, ChannelNotFoundEntity, DeliveryError, PublishError

from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Address, Deliver, Kind, QueueDepth, Unkept, masked

log = get_logger(__name__)

BROKEN: Final = (AMQPError, OSError, TimeoutError, RuntimeError, asyncio.InvalidStateError)
"""What a lost connection shows itself as, depending on the moment."""

FAREWELL_S: Final = 2.0
"""How long the broker may take to confirm that a consumer ends: one that hangs must not hold up our own end."""

T = TypeVar("T")


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Around requests to the broker: where a channel closes under a request, the library raises a plain `Exception`,
    which leaves here as one of `BROKEN`."""
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ConnectionResetError("The channel was closed meanwhile.") from error
        raise


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """Around farewells, which nobody needs to hear: on a lost connection they are superfluous."""
    with contextlib.suppress(*BROKEN), speaking():
        yield


@dataclass(frozen=True, kw_only=True)
class AmqpOptions:
    """``[amqp]`` of kilonova.conf."""

    section: ClassVar[str] = "amqp"

    topic_queues: Literal["quorum", "classic"] = "quorum"
    """Kind of the queues that all workers of a topic share. ``quorum`` survives the loss of a node of a cluster."""

    publish_timeout_s: float = 30.0
    """How long a message waits for a broker that is away before it is refused."""

    connect_timeout_s: float = 10.0
    """How long one try to connect may take."""

    longest_pause_s: float = 10.0
    """The longest pause between two tries to connect."""

    heartbeat_s: int = 30
    """Seconds of silence after which a connection is looked after; after two of them it is dead."""

    idle_queue_expires_s: int = 600
    """Seconds after which the queues of a process that is gone are removed. Not those with work in them."""

    ca_file: str = ""
    """Certificates of the authority that the broker's certificate must be from (``amqps://``); empty: the system's."""


@dataclass
class _Link:
    """One life of the two connections."""

    sending: AbstractConnection
    taking: AbstractConnection
    sender: AbstractChannel
    taker: AbstractChannel
    known: set[str] = field(default_factory=set)
    """Work queues that exist, as far as we know."""
    exchanges: dict[str, AbstractExchange] = field(default_factory=dict)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    deaf: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the broker has ended a consumer of ours."""

    async def close(self) -> None:
        for connection in (self.taking, self.sending):
            with parting():
                await connection.close()


class _Delivery:
    """A `Delivery` of a queue that wants acknowledgement."""

    __slots__ = ("_consumer", "_message", "body", "redelivered")

    def __init__(self, consumer: "_Consumer", message: AbstractIncomingMessage) -> None:
        self._consumer = consumer
        self._message = message
        self.body = message.body
        self.redelivered = bool(message.redelivered)

    async def ack(self) -> None:
        await self._consumer.ack(self._message)


class _Consumer:
    """A standing wish, which outlives connections."""

    def __init__(self, transport: "AmqpTransport", address: Address, deliver: Deliver, prefetch: int, own: str) -> None:
        """`own`: name of the queue."""
        self.address = address
        self.own = own
        self._transport = transport
        self._deliver = deliver
        self._prefetch = prefetch
        self._queue: AbstractQueue | None = None
        self._tag: ConsumerTag | None = None
        self._link: _Link | None = None
        self._is_wanted = True
        self._gives_back = False
        self._changing = asyncio.Lock()
        """Held while it is attached or detached: a reconnection must not attach what is being closed."""
        self.unacked: dict[int, AbstractIncomingMessage] = {}

    async def attach(self, link: _Link) -> None:
        """Consume on this link from now on, if it is still wanted."""
        async with self._changing, link.making:
            if not self._is_wanted or self._link is link:
                return
            self.unacked.clear()  # of an earlier link: the broker gives them out again
            with speaking():
                self._queue = await self._transport.make_queue(link, self.address, self.own, channel=link.taker)
                if self.address.kind is not Kind.REPLY:
                    await link.taker.set_qos(prefetch_count=self._prefetch)  # holds for what is consumed after it
                self._tag = await self._queue.consume(self._on_message, no_ack=self.address.kind is Kind.REPLY)
                self._link = link
                if not self._is_wanted:  # not any more: who cancelled did not wait for us
                    await self._queue.cancel(self._tag)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        if self.address.kind is Kind.REPLY:
            self._deliver(Unkept(message.body))
        elif self._gives_back:  # it was on its way when we closed
            with parting():
                await message.nack(requeue=True)
        elif message.delivery_tag is not None:
            self.unacked[message.delivery_tag] = message
            self._deliver(_Delivery(self, message))

    async def ack(self, message: AbstractIncomingMessage) -> None:
        if message.delivery_tag is None or self.unacked.get(message.delivery_tag) is not message:
            return  # given back meanwhile, or of an earlier link
        del self.unacked[message.delivery_tag]
        with parting():
            # Not waiting until it is on its way: on a connection that is closed meanwhile, that may last for ever.
            async with asyncio.timeout(FAREWELL_S):
                await message.channel.basic_ack(message.delivery_tag, wait=False)

    async def cancel(self) -> None:
        self._is_wanted = False
        self._transport.forget(self)
        with parting():
            async with asyncio.timeout(FAREWELL_S), self._changing:
                if self._tag is not None and self._queue is not None:
                    tag, self._tag = self._tag, None
                    await self._queue.cancel(tag)

    async def close(self) -> None:
        await self.cancel()
        self._gives_back = True
        held, self.unacked = self.unacked, {}
        with parting():
            async with asyncio.timeout(FAREWELL_S):
                for message in held.values():
                    await message.nack(requeue=True)
                if self._queue is not None and self.address.kind is not Kind.WORK:
                    await self._queue.delete(if_unused=False, if_empty=False)


class AmqpTransport:
    """One process's connections to RabbitMQ: a `Transport`."""

    def __init__(self, url: str, ids: Ids, options: AmqpOptions | None = None) -> None:
        self._url = url
        self._ids = ids
        self._options = options or AmqpOptions()
        self._consumers: list[_Consumer] = []
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False
        self._making: set[asyncio.Task[Any]] = set()
        self.reconnects = 0
        """How often the connections were made anew."""

    @property
    def where(self) -> str:
        """The broker's address, without secrets."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}{parts.path}"

    # ---- connections ---------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._keeper is not None:
            return
        self._is_closed = False
        self._use(await self._connect())
        self._keeper = asyncio.create_task(self._keep(), name="rpc.amqp")

    async def close(self) -> None:
        self._is_closed = True
        for consumer in list(self._consumers):
            await consumer.close()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        link, self._link = self._link, None
        self._linked.clear()
        if link is not None:
            await link.close()

    def _use(self, link: _Link) -> None:
        self._link = link
        self._linked.set()

    async def _connect(self) -> _Link:
        """Both connections with a channel each.

        Raises:
            Unavailable: the broker cannot be reached, or does not let us in.
        """
        opened: list[AbstractConnection] = []
        try:
            for purpose in ("sends", "takes"):
                with speaking():
                    made = await aio_pika.connect(
                        self._url,
                        timeout=self._options.connect_timeout_s,
                        ssl_context=self._tls(),
                        heartbeat=self._options.heartbeat_s,
                        client_properties={"connection_name": f"kilonova {purpose}"},
                    )
                opened.append(made)
            sending, taking = opened
            with speaking():
                sender = await sending.channel(publisher_confirms=True, on_return_raises=True)
                taker = await taking.channel(publisher_confirms=False)
                link = _Link(sending, taking, sender, taker)
                (await taker.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: link.deaf.set())
        except BaseException as error:
            for connection in opened:
                with parting():
                    await connection.close()
            if not isinstance(error, BROKEN):
                raise
            reason = self._masked(str(error) or type(error).__name__)
            raise Unavailable(detail=f"The broker at {self.where} cannot be reached: {reason}") from None
        return link

    def _masked(self, text: str) -> str:
        return masked(text, self._url)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._url.startswith("amqps"):
            return None
        return ssl.create_default_context(cafile=self._options.ca_file or None)

    async def _keep(self) -> None:
        """As long as the transport is open, have a link."""
        while True:
            link = self._link
            assert link is not None
            await _until_lost(link)
            self._linked.clear()
            self._link = None
            if link.deaf.is_set():
                log.warning("the broker has ended a consumer: connecting anew", broker=self.where)
            else:
                log.warning("connection to the broker is lost", broker=self.where)
            await link.close()
            self._use(await self._again())
            self.reconnects += 1
            log.info("connection to the broker is back", broker=self.where)

    async def _again(self) -> _Link:
        """A new link with all consumers on it, as soon as there can be one."""
        pause = 0.1
        told = ""
        while True:
            cause = ""
            try:
                link = await self._connect()
            except Unavailable as error:
                log.debug("the broker is still away", broker=self.where, cause=error.message)
            else:
                try:
                    for consumer in list(self._consumers):
                        await consumer.attach(link)
                    return link
                except BaseException as error:
                    await link.close()
                    if not isinstance(error, BROKEN):
                        raise
                    cause = self._masked(str(error) or type(error).__name__)
            if cause and cause != told:  # it is there, and refuses us: somebody has to do something
                told = cause
                log.warning("queues cannot be consumed again", broker=self.where, cause=cause)
            await asyncio.sleep(pause * (0.5 + self._ids.chance.random()))
            pause = min(self._options.longest_pause_s, pause * 2)

    async def _current(self, patience_s: float) -> _Link:
        """The link, waiting for it if it is being made anew.

        Raises:
            Unavailable
        """
        if self._link is None and not self._is_closed and self._keeper is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._linked.wait()
        if self._link is None or self._is_closed:
            what = "The message transport is closed." if self._is_closed else f"The broker at {self.where} is away."
            raise Unavailable(detail=what)
        return self._link

    # ---- queues ----------------------------------------------------------------------------------------

    async def make_queue(self, link: _Link, address: Address, own: str, *, channel: AbstractChannel) -> AbstractQueue:
        """The queue of `address` on `channel`, made if it is not there."""
        if address.kind is Kind.WORK:
            kind = self._options.topic_queues if "." not in own else "classic"
            queue = await channel.declare_queue(own, durable=True, arguments={"x-queue-type": kind})
            link.known.add(own)
            return queue
        expires: dict[str, Any] = {"x-expires": self._options.idle_queue_expires_s * 1000}
        queue = await channel.declare_queue(own, durable=True, arguments=expires)
        if address.kind is Kind.FANOUT:
            await queue.bind(await self._exchange(link, address.name, channel))
        return queue

    async def _exchange(self, link: _Link, topic: str, channel: AbstractChannel) -> AbstractExchange:
        return await channel.declare_exchange(f"fanout.{topic}", aio_pika.ExchangeType.FANOUT, durable=True)

    # ---- sending ---------------------------------------------------------------------------------------

    async def publish(self, address: Address, body: bytes, *, ttl_s: float | None = None) -> None:
        message = aio_pika.Message(
            body,
            expiration=None if ttl_s is None else max(ttl_s, 0.001),
            delivery_mode=(
                aio_pika.DeliveryMode.PERSISTENT if address.kind is Kind.WORK else aio_pika.DeliveryMode.NOT_PERSISTENT
            ),
        )
        patience = self._options.publish_timeout_s
        loop = asyncio.get_running_loop()
        until = loop.time() + (patience if ttl_s is None else min(patience, ttl_s))
        while True:
            link = await self._current(until - loop.time())
            try:
                async with asyncio.timeout_at(until):
                    with speaking():
                        await self._put(link, address, message)
                return
            except PublishError:
                link.known.discard(address.name)  # somebody removed the queue: it is made anew
                cause = "the queue is gone"
            except DeliveryError:
                raise Unavailable(detail=f"The broker refuses a message for {address.name}.") from None
            except ChannelClosed as error:
                raise Unavailable(detail=f"The broker refuses queue {address.name}: {error}") from None
            except BROKEN as error:
                cause = str(error) or type(error).__name__
            if loop.time() >= until:
                raise Unavailable(detail=f"The broker at {self.where} did not take a message: {self._masked(cause)}")
            await asyncio.sleep(0.05)

    async def _put(self, link: _Link, address: Address, message: aio_pika.Message) -> None:
        if address.kind is Kind.FANOUT:
            exchange = link.exchanges.get(address.name)
            if exchange is None:
                exchange = await self._whole(self._exchange(link, address.name, link.sender))
                link.exchanges[address.name] = exchange
            await exchange.publish(message, routing_key="", mandatory=False)
            return
        if address.kind is Kind.WORK and address.name not in link.known:
            await self._whole(self.make_queue(link, address, address.name, channel=link.sender))
        is_work = address.kind is Kind.WORK
        await link.sender.default_exchange.publish(message, routing_key=address.name, mandatory=is_work)

    async def _whole(self, making: Coroutine[Any, Any, T]) -> T:
        """The result of `making`, which goes on if we are cancelled: the library closes the channel of a request that
        is given up, and all that others have under way on it is lost."""
        task = asyncio.get_running_loop().create_task(making)
        self._making.add(task)
        task.add_done_callback(self._made)
        return await asyncio.shield(task)

    def _made(self, task: asyncio.Task[Any]) -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, if nobody waits for it any more

    # ---- taking ----------------------------------------------------------------------------------------

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> _Consumer:
        own = f"fanout.{address.name}.{self._ids.uuid()}" if address.kind is Kind.FANOUT else address.name
        consumer = _Consumer(self, address, deliver, prefetch, own)
        link = await self._current(self._options.publish_timeout_s)
        try:
            await consumer.attach(link)
        except BROKEN as error:
            raise Unavailable(detail=f"Queue {own} cannot be consumed: {self._masked(str(error))}") from None
        self._consumers.append(consumer)
        if self._link is not link:  # lost meanwhile: it was not yet among those that come back by themselves
            await consumer.attach(await self._current(self._options.publish_timeout_s))
        return consumer

    def forget(self, consumer: _Consumer) -> None:
        """A consumer wishes for nothing more."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    async def depths(self) -> Mapping[str, QueueDepth]:
        """The work queues that this process uses. In hand are those that are in this process's own hands."""
        link = await self._current(1.0)
        names = link.known | {c.own for c in self._consumers if c.address.kind is Kind.WORK}
        found: dict[str, QueueDepth] = {}
        channel: AbstractChannel | None = None
        try:
            with speaking():
                for name in sorted(names):
                    channel = channel or await link.sending.channel()
                    try:
                        queue = await channel.declare_queue(name, passive=True)
                    except ChannelNotFoundEntity:  # somebody removed it, and the broker has closed the channel
                        link.known.discard(name)
                        channel = None
                        continue
                    found[name] = QueueDepth(
                        waiting=queue.declaration_result.message_count or 0,
                        unacked=sum(len(c.unacked) for c in self._consumers if c.own == name),
                        consumers=queue.declaration_result.consumer_count or 0,
                    )
        except BROKEN as error:
            raise Unavailable(detail=f"The broker does not tell of its queues: {self._masked(str(error))}") from None
        finally:
            if channel is not None:
                with parting():
                    await channel.close()
        return found


async def _until_lost(link: _Link) -> None:
    """Return when a connection or a channel of the link is no more, or a consumer of ours was ended."""
    waits: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(_closed(thing.closed)) for thing in (link.sending, link.taking, link.sender, link.taker)
    ]
    waits.append(asyncio.ensure_future(link.deaf.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _closed(closed: Callable[[], Awaitable[Any]]) -> None:
    with parting():
        await closed()
