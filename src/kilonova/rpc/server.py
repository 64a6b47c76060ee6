"""Answering other services.

An `RpcServer` consumes the three addresses of one endpoint: ``topic`` (shared with other workers),
``topic.host`` (this one alone) and the topic's fan-out. Each message runs in a task of its own, so a long
one holds up no other; it is acknowledged after the work and the answer, so that a message in the hands
of a process that dies goes to another.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger, set_service
from kilonova.model.errors import CloudError, MessageTooLarge
from kilonova.rpc.dispatcher import Dispatcher
from kilonova.rpc.duplicates import Handled, Verdict
from kilonova.rpc.envelope import (
    UNREADABLE,
    VERSION_METHOD,
    Message,
    Reply,
    WireError,
    decode_message,
    encode,
    pack,
    wire_error,
)
from kilonova.rpc.metrics import RpcMetrics
from kilonova.rpc.options import RpcOptions
from kilonova.rpc.transports.base import Address, Consumer, Delivery, Kind, Transport, fanout, replies, work

log = get_logger(__name__)

_CANCEL_S = 1.0
"""How long a cancelled handler may take to clean up before `stop` goes on without it."""


class MessageInHand(msgspec.Struct, frozen=True, kw_only=True):
    """One message that is being worked on, for an operator who looks into a running process."""

    msg_id: str
    method: str
    queue: str
    request_id: str | None
    source: str
    age_s: float


class RpcServer:
    """One endpoint on the queue."""

    def __init__(
        self,
        transport: Transport,
        *,
        protocol: type,
        endpoint: object,
        host: str,
        clock: Clock,
        topic: str | None = None,
        version: str | None = None,
        service: str | None = None,
        options: RpcOptions | None = None,
        metrics: RpcMetrics | None = None,
        handled: Handled | None = None,
    ) -> None:
        """
        Args:
            protocol: the class in `kilonova.rpcapi` that says what can be called.
            endpoint: an object that implements it.
            topic, version: those that `protocol` declares, unless given.
            service: the name under which handlers log; the topic, unless given.
            handled: the memory for duplicates, if workers of one process shall share it.
        """
        self.topic: str = topic or protocol.topic  # type: ignore[attr-defined]
        self.version: str = version or protocol.version  # type: ignore[attr-defined]
        self.host = host
        self._transport = transport
        self._clock = clock
        self._service = service or self.topic
        self._options = options or RpcOptions()
        self._metrics = metrics
        self._quiet: frozenset[str] = getattr(protocol, "quiet", frozenset()) | {VERSION_METHOD}
        self._dispatcher = Dispatcher(protocol, endpoint, topic=self.topic, host=host, version=self.version)
        self._handled = handled or Handled(self._options.remembered_messages)
        # A copy of a fan-out has the same msg_id for every worker, so this memory is never shared.
        self._fanouts_handled = Handled(1_000)
        self._consumers: list[Consumer] = []
        self._in_hand: dict[asyncio.Task[None], tuple[Message, str, float]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._context = contextvars.copy_context()
        if metrics is not None:
            metrics.watch_in_hand(self._in_hand.__len__)

    async def start(self) -> None:
        """Take messages from now on."""
        # Handlers log as this service, whoever's message it is that they work on.
        self._context = contextvars.copy_context()
        self._context.run(set_service, self._service, host=self.host)
        for address in (work(self.topic), work(self.topic, self.host), fanout(self.topic)):
            self._consumers.append(
                await self._transport.consume(
                    address, partial(self._on_message, address), prefetch=self._options.prefetch
                )
            )

    async def stop(self, drain_s: float = 5.0) -> None:
        """Take no more messages, finish those in hand within `drain_s` seconds, cancel the rest.

        What was cancelled is not acknowledged: another worker gets it, or this host when it is back.
        """
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.cancel()
        if self._in_hand and drain_s > 0:
            await self._until_idle(drain_s)
        for task in list(self._in_hand):
            task.cancel()
        if self._in_hand and not await self._until_idle(_CANCEL_S):
            log.warning("handlers ignore that they are cancelled", topic=self.topic, count=len(self._in_hand))
        for consumer in consumers:
            await consumer.close()

    def inspect(self) -> list[MessageInHand]:
        """The messages being worked on, oldest first."""
        now = self._clock.monotonic()
        return [
            MessageInHand(
                msg_id=message.msg_id,
                method=message.method,
                queue=queue,
                request_id=message.request_id,
                source=message.source,
                age_s=now - since,
            )
            for message, queue, since in self._in_hand.values()
        ]

    async def _until_idle(self, seconds: float) -> bool:
        """Wait until nothing is in hand, for at most `seconds` of the given clock."""
        idle = asyncio.ensure_future(self._idle.wait())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((idle, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            timer.cancel()
        return not self._in_hand

    # ---- one message -------------------------------------------------------------------------------

    def _on_message(self, address: Address, delivery: Delivery) -> None:
        context = self._context.copy()
        try:
            message = decode_message(delivery.body)
        except UNREADABLE as error:
            # Nobody can be told, and it would come back forever: note it and let it go.
            context.run(log.error, "message unreadable", queue=address.name, size=len(delivery.body), cause=str(error))
            self._count_drop("unreadable")
            self._spawn(delivery.ack(), context)
            return
        if message.request_id is not None:
            context.run(set_service, self._service, host=self.host, request_id=message.request_id)
        task = self._spawn(self._handle(message, address, delivery), context, message.method)
        self._in_hand[task] = (message, address.name, self._clock.monotonic())

    def _spawn(
        self, work: Coroutine[Any, Any, None], context: contextvars.Context, method: str = ""
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(
            work, name=f"rpc {self.topic}.{self.host} {method}", context=context
        )
        self._idle.clear()
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand.pop(task, None)
        if not self._in_hand:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("message handling broke", topic=self.topic, exc_info=error)

    async def _handle(self, message: Message, address: Address, delivery: Delivery) -> None:
        handled = self._fanouts_handled if address.kind is Kind.FANOUT else self._handled
        while (verdict := handled.begin(message.msg_id)) is Verdict.UNDER_WAY:
            await handled.settled(message.msg_id)
        if verdict is Verdict.DONE:
            await self._answer_again(message, handled)
        elif self._is_late(message):
            handled.finish(message.msg_id, None)
            log.warning("message came too late", msg_id=message.msg_id, method=message.method, source=message.source)
            self._count_drop("late")
        else:
            try:
                reply = await self._work(message, address)
            except BaseException:
                handled.give_up(message.msg_id)
                raise
            # From here on it has had its effect; if the answer is lost on its way, a duplicate brings it again.
            handled.finish(message.msg_id, reply)
            await self._send_reply(message, reply)
        await delivery.ack()

    def _is_late(self, message: Message) -> bool:
        """Whether the caller has given up long ago. The transport drops late messages by its own clock; this is
        for those that were kept or replayed, and allows for clocks that differ."""
        if message.deadline is None:
            return False
        return self._clock.now() > message.deadline + timedelta(seconds=self._options.clock_skew_s)

    async def _work(self, message: Message, address: Address) -> bytes | None:
        """Call the method; the encoded reply, if one is wanted."""
        is_quiet = message.method in self._quiet and (message.request_id is None or message.method == VERSION_METHOD)
        if not is_quiet:
            log.info(
                "message received",
                msg_id=message.msg_id,
                method=message.method,
                queue=address.name,
                reply_queue=message.reply_to,
                source=message.source,
            )
        started = self._clock.monotonic()
        error: WireError | None = None
        result = None
        try:
            result = pack(await self._dispatcher.dispatch(message))
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = wire_error(cancelled)  # something that the handler waited for was cancelled, not the handler
            log.exception("handler failed", method=message.method, msg_id=message.msg_id)
        except CloudError as known:
            error = wire_error(known)
            if message.reply_to is None:  # no caller to handle it
                log.warning(
                    "message refused",
                    msg_id=message.msg_id,
                    method=message.method,
                    code=known.code,
                    cause=error.message,
                )
        except Exception as unknown:
            error = wire_error(unknown)
            log.exception("handler failed", method=message.method, msg_id=message.msg_id)
        took = self._clock.monotonic() - started
        if self._metrics is not None:
            # Names that a stranger made up must not become time series.
            method = message.method if message.method in self._dispatcher.methods else "unknown"
            self._metrics.handled(self.topic, method, error.code if error else "ok", took)
        if message.reply_to is None:
            return None
        if message.remaining_s is not None and took > message.remaining_s:
            log.warning("answer comes too late", method=message.method, msg_id=message.msg_id, took_s=round(took, 3))
        if not is_quiet:
            log.info(
                "reply sent",
                msg_id=message.msg_id,
                method=message.method,
                queue=message.reply_to,
                outcome=error.code if error else "ok",
                took_ms=round(took * 1000, 1),
            )
        return self._encode_reply(message, result, error)

    def _encode_reply(self, message: Message, result: msgspec.Raw | None, error: WireError | None) -> bytes:
        if error is not None or result is None:
            reply = Reply(msg_id=message.msg_id, source=self._service, error=error)
        else:
            reply = Reply(msg_id=message.msg_id, source=self._service, result=result)
        try:
            return encode(reply, self._options.max_message_bytes)
        except MessageTooLarge as too_large:
            return encode(
                Reply(msg_id=message.msg_id, source=self._service, error=wire_error(too_large)),
                self._options.max_message_bytes,
            )

    async def _answer_again(self, message: Message, handled: Handled) -> None:
        log.info("duplicate dropped", msg_id=message.msg_id, method=message.method)
        self._count_drop("duplicate")
        await self._send_reply(message, handled.reply_of(message.msg_id))

    async def _send_reply(self, message: Message, reply: bytes | None) -> None:
        if reply is None or message.reply_to is None:
            return
        try:
            await self._transport.publish(replies(message.reply_to), reply, ttl_s=message.remaining_s)
        except CloudError as error:
            log.warning("reply lost", msg_id=message.msg_id, queue=message.reply_to, cause=str(error))

    def _count_drop(self, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.dropped(self.topic, reason)
