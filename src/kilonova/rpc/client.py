"""Calling other services.

A process has one `RpcClient` with one reply queue; replies find their call by `msg_id`. A `Target` is
an address with a version: ``client.target("compute", host="h1", version="1.0")``. The typed clients of
`kilonova.rpcapi` stand on it.

A call that is cancelled, or whose deadline passes, is forgotten here only: the other side finishes what
it began. That is why everything that can be called may be called again.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import bound, get_logger
from kilonova.model.errors import CloudError, DeadlinePassed, RemoteFault, Unavailable, UnsupportedVersion
from kilonova.rpc.deadlines import Deadlines
from kilonova.rpc.envelope import (
    UNREADABLE,
    VERSION_METHOD,
    Message,
    Offer,
    Reply,
    decode_reply,
    encode,
    pack,
    raised_error,
    unpack,
)
from kilonova.rpc.metrics import RpcMetrics
from kilonova.rpc.options import RpcOptions
from kilonova.rpc.transports.base import Address, Consumer, Delivery, Transport, fanout, replies, work
from kilonova.rpc.versions import satisfies

log = get_logger(__name__)

_VERSION_DEADLINE_S = 5.0


class CallInFlight(msgspec.Struct, frozen=True, kw_only=True):
    """One outstanding call, for an operator who looks into a running process."""

    msg_id: str
    method: str
    queue: str
    request_id: str | None
    waited_s: float
    deadline_s: float


class _Gone:
    """Why a call ends without a reply."""


_TIMED_OUT: Final = _Gone()
_STOPPED: Final = _Gone()


class _Waiting:
    """One outstanding call."""

    __slots__ = ("answer", "deadline_s", "gone", "message", "queue", "sender", "since")

    def __init__(
        self, message: Message, queue: str, answer: asyncio.Future[Reply | _Gone], since: float, deadline_s: float
    ) -> None:
        self.message = message
        self.queue = queue
        self.answer = answer
        self.since = since
        self.deadline_s = deadline_s
        self.sender: asyncio.Task[Any] | None = None
        """The task that is handing the message to the transport, as long as it does."""
        self.gone: _Gone | None = None

    def end(self, why: _Gone) -> None:
        """No reply will come, or nobody will wait for it any longer."""
        self.gone = why
        if self.sender is not None:
            self.sender.cancel()
        elif not self.answer.done():
            self.answer.set_result(why)


class RpcClient:
    """One process's way to call others."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        ids: Ids,
        name: str = "kilonova",
        options: RpcOptions | None = None,
        metrics: RpcMetrics | None = None,
    ) -> None:
        """`name` goes into messages as their source where the log context names no service."""
        self.clock = clock
        self.options = options or RpcOptions()
        self.reply_queue = f"reply_{ids.uuid()}"
        self._transport = transport
        self._ids = ids
        self._name = name
        self._metrics = metrics
        self._waiting: dict[str, _Waiting] = {}
        self._deadlines = Deadlines(clock, self._waiting, self._expire)
        self._consumer: Consumer | None = None
        self._offers: dict[tuple[str, str | None], tuple[Offer, float]] = {}
        if metrics is not None:
            metrics.watch_outstanding(self._waiting.__len__)

    async def start(self) -> None:
        """Open the reply queue. The transport is open already."""
        if self._consumer is None:
            self._consumer = await self._transport.consume(
                replies(self.reply_queue), self._on_reply, prefetch=self.options.prefetch
            )

    async def stop(self) -> None:
        """End all outstanding calls with `Unavailable` and close the reply queue."""
        consumer, self._consumer = self._consumer, None
        self._deadlines.close()
        for waiting in self._waiting.values():
            waiting.end(_STOPPED)
        if consumer is not None:
            await consumer.close()

    def target(
        self, topic: str, *, host: str | None = None, version: str, quiet: frozenset[str] = frozenset()
    ) -> "Target":
        """Any worker of `topic`, or the one on `host`. `quiet` methods are logged only as part of a request."""
        return Target(self, topic, host, version, quiet)

    def target_of(self, protocol: type, *, host: str | None = None) -> "Target":
        """The target of a conversation: topic, version and quiet methods are those that `protocol` declares."""
        return self.target(
            protocol.topic,  # type: ignore[attr-defined]
            host=host,
            version=protocol.version,  # type: ignore[attr-defined]
            quiet=getattr(protocol, "quiet", frozenset()),
        )

    def inspect(self) -> list[CallInFlight]:
        """The outstanding calls, oldest first."""
        now = self.clock.monotonic()
        return [
            CallInFlight(
                msg_id=msg_id,
                method=waiting.message.method,
                queue=waiting.queue,
                request_id=waiting.message.request_id,
                waited_s=now - waiting.since,
                deadline_s=waiting.deadline_s,
            )
            for msg_id, waiting in self._waiting.items()
        ]

    # ---- used by Target ----------------------------------------------------------------------------

    async def call(self, target: "Target", method: str, args: dict[str, Any], deadline_s: float, returns: Any) -> Any:
        """See `Target.call`."""
        started = self.clock.monotonic()
        outcome = "ok"
        try:
            reply = await self._ask(target, method, args, deadline_s, started)
            if reply.error is not None:
                error = raised_error(reply.error)
                if isinstance(error, UnsupportedVersion):
                    self._offers.pop(target.key, None)
                error.add_note(f"raised by {reply.source} in {target.topic}.{method}")
                raise error
            try:
                return unpack(reply.result, returns)
            except UNREADABLE as error:
                raise RemoteFault(type="UnexpectedReply", detail=f"{target.address.name} {method}: {error}") from error
        except CloudError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if self._metrics is not None:
                self._metrics.called(target.topic, method, outcome, self.clock.monotonic() - started)

    async def send(self, target: "Target", address: Address, kind: str, method: str, args: dict[str, Any]) -> None:
        """See `Target.cast` and `Target.fanout`."""
        message = self._message(target, method, args)
        await self._transport.publish(address, encode(message, self.options.max_message_bytes))
        if self._metrics is not None:
            self._metrics.sent(target.topic, method, kind)
        self._log_sent(target, message, address, kind)

    async def offer_of(self, target: "Target") -> Offer:
        """What the other side says it offers, asked for at most once in ``offer_cache_s``."""
        known = self._offers.get(target.key)
        if known is not None and known[1] > self.clock.monotonic():
            return known[0]
        offer: Offer = await self.call(target, VERSION_METHOD, {}, _VERSION_DEADLINE_S, Offer)
        self._offers[target.key] = (offer, self.clock.monotonic() + self.options.offer_cache_s)
        return offer

    # ---- inside ------------------------------------------------------------------------------------

    def _message(self, target: "Target", method: str, args: dict[str, Any], deadline_s: float | None = None) -> Message:
        context = bound()
        return Message(
            msg_id=self._ids.uuid(),
            reply_to=None if deadline_s is None else self.reply_queue,
            method=method,
            version=target.version,
            args=pack(args),
            request_id=context.get("request_id"),
            source=context.get("service", self._name),
            deadline=None if deadline_s is None else self.clock.now() + timedelta(seconds=deadline_s),
            remaining_s=deadline_s,
        )

    async def _ask(
        self, target: "Target", method: str, args: dict[str, Any], deadline_s: float, started: float
    ) -> Reply:
        if self._consumer is None:
            raise Unavailable(detail="This process does not take replies: its RPC client is not running.")
        if len(self._waiting) >= self.options.max_outstanding:
            raise Unavailable(detail=f"{len(self._waiting)} calls wait for an answer already.")
        message = self._message(target, method, args, deadline_s)
        body = encode(message, self.options.max_message_bytes)
        answer: asyncio.Future[Reply | _Gone] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(message, target.address.name, answer, started, deadline_s)
        self._waiting[message.msg_id] = waiting
        self._deadlines.add(message.msg_id, deadline_s)
        try:
            await self._hand_over(waiting, target.address, body)
            if waiting.gone is None:
                self._log_sent(target, message, target.address, "call")
            reply = await answer
        finally:
            self._waiting.pop(message.msg_id, None)
        if isinstance(reply, _Gone):
            if reply is _STOPPED:
                raise Unavailable(detail="This process is being stopped.")
            raise self._deadline_passed(target, method, deadline_s)
        return reply

    async def _hand_over(self, waiting: _Waiting, address: Address, body: bytes) -> None:
        """Publish within the deadline: a transport whose broker is away may hold us for long."""
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        waiting.sender = task
        try:
            await self._transport.publish(address, body, ttl_s=waiting.deadline_s)
        except asyncio.CancelledError:
            # Ours if `end` did it and nobody else wants the task to end.
            if waiting.gone is None or task.uncancel() > cancelled_before:
                raise
            if not waiting.answer.done():
                waiting.answer.set_result(waiting.gone)
        finally:
            waiting.sender = None

    def _expire(self, msg_id: str) -> None:
        self._waiting[msg_id].end(_TIMED_OUT)

    def _deadline_passed(self, target: "Target", method: str, deadline_s: float) -> DeadlinePassed:
        if self._metrics is not None:
            self._metrics.timed_out(target.topic, method)
        return DeadlinePassed(method=method, target=target.address.name, deadline_s=deadline_s)

    def _on_reply(self, delivery: Delivery) -> None:
        try:
            reply = decode_reply(delivery.body)
        except UNREADABLE as error:
            log.error("reply unreadable", queue=self.reply_queue, size=len(delivery.body), cause=str(error))
            return
        waiting = self._waiting.get(reply.msg_id)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(reply)

    def _log_sent(self, target: "Target", message: Message, address: Address, kind: str) -> None:
        if message.method in target.quiet and message.request_id is None:
            return
        if message.method == VERSION_METHOD:
            return
        log.info(
            "message sent",
            kind=kind,
            msg_id=message.msg_id,
            method=message.method,
            queue=address.name,
            reply_queue=message.reply_to,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """An address, the version that is spoken to it, and the client to reach it with."""

    client: RpcClient
    topic: str
    host: str | None
    version: str
    quiet: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, str | None]:
        """What identifies the other side, whatever version is spoken to it."""
        return self.topic, self.host

    @property
    def address(self) -> Address:
        """The queue that calls and casts go to."""
        return work(self.topic, self.host)

    def at(self, version: str) -> "Target":
        """The same target, spoken to in another version; for the other side that `can` not do ours."""
        return Target(self.client, self.topic, self.host, version, self.quiet)

    async def call(self, method: str, /, *, deadline_s: float, returns: Any = None, **args: Any) -> Any:
        """Send, wait, and return the answer as a `returns` (plain JSON values without one).

        Raises:
            CloudError: the one that the other side raised, of the same type.
            RemoteFault: the other side met an error that is not one of ours.
            DeadlinePassed: no answer within `deadline_s` seconds. The other side may still do it.
            MessageTooLarge: more than the limit; nothing was sent.
            Unavailable: the transport did not take the message, or too many calls are outstanding.
        """
        return await self.client.call(self, method, args, deadline_s, returns)

    async def cast(self, method: str, /, **args: Any) -> None:
        """Send and do not wait for an answer. Raises `MessageTooLarge`, `Unavailable`."""
        await self.client.send(self, self.address, "cast", method, args)

    async def fanout(self, method: str, /, **args: Any) -> None:
        """Send to every worker of the topic that is there now. Raises `MessageTooLarge`, `Unavailable`."""
        await self.client.send(self, fanout(self.topic), "fanout", method, args)

    async def takes(self, version: str) -> bool:
        """As `can`, and no if the other side does not answer: it will find the message later, and older versions are
        understood by all."""
        try:
            return await self.can(version)
        except DeadlinePassed:
            return False

    async def can(self, version: str) -> bool:
        """Whether the other side takes messages of `version`. Asked over the queue, then remembered for a while.

        Of a topic with several workers one is asked: speak the older version until all are upgraded.

        Raises:
            DeadlinePassed: nobody is there to ask.
        """
        return satisfies(version, (await self.client.offer_of(self)).version)
