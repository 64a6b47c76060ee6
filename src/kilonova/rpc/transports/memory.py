"""The broker inside the process: the default transport, and the one that tests can see through.

A `MemoryBroker` holds the queues; each `MemoryTransport` is one connection to it, so that several
"processes" can share a broker and one of them can die with messages in hand. There is no task and no
timer in here: a message is handed over in the call that publishes it or makes room for it, which is
both fast and repeatable under a virtual clock.
"""

from collections import deque
from collections.abc import Callable, Mapping

from kilonova.base.clock import Clock
from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Address, Deliver, Kind, QueueDepth, Unkept

Tap = Callable[[Address, bytes], None]
"""Sees every message that is published."""


class _Entry:
    """A message that the broker answers for."""

    __slots__ = ("body", "expires", "redelivered")

    def __init__(self, body: bytes, expires: float | None) -> None:
        self.body = body
        self.expires = expires
        self.redelivered = False


class _Held:
    """A `Delivery` that its queue wants acknowledged."""

    __slots__ = ("_consumer", "_entry", "body", "redelivered")

    def __init__(self, consumer: "_Consumer", entry: _Entry) -> None:
        self._consumer = consumer
        self._entry = entry
        self.body = entry.body
        self.redelivered = entry.redelivered

    async def ack(self) -> None:
        self._consumer.ack(self._entry)


class _Queue:
    """One queue: messages in order, consumers in turn."""

    def __init__(self, name: str, clock: Clock, max_waiting: int) -> None:
        self.name = name
        self.waiting: deque[_Entry] = deque()
        self.consumers: deque[_Consumer] = deque()
        self.unacked = 0
        self._clock = clock
        self._max_waiting = max_waiting

    def put(self, body: bytes, ttl_s: float | None) -> None:
        entry = _Entry(body, None if ttl_s is None else self._clock.monotonic() + ttl_s)
        if not self.waiting and (consumer := self._next()) is not None:
            consumer.take(entry)
            return
        if len(self.waiting) >= self._max_waiting:
            self._drop_expired()
        if len(self.waiting) >= self._max_waiting:
            raise Unavailable(detail=f"Queue {self.name} is full: {len(self.waiting)} messages wait.")
        self.waiting.append(entry)

    def pump(self) -> None:
        """Hand out what waits, as long as somebody has a hand free."""
        while self.waiting and (consumer := self._next()) is not None:
            entry = self.waiting.popleft()
            if entry.expires is None or entry.expires > self._clock.monotonic():
                consumer.take(entry)

    def put_back(self, entries: list[_Entry]) -> None:
        """Return messages to the head of the queue, in the order they had."""
        for entry in reversed(entries):
            entry.redelivered = True
            self.waiting.appendleft(entry)
        self.pump()

    def _next(self) -> "_Consumer | None":
        consumers = self.consumers
        for _ in range(len(consumers)):
            consumer = consumers[0]
            consumers.rotate(-1)
            if len(consumer.unacked) < consumer.prefetch:
                return consumer
        return None

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        self.waiting = deque(entry for entry in self.waiting if entry.expires is None or entry.expires > now)


class _Consumer:
    """One consumer of one queue, with what it has in hand."""

    def __init__(self, queue: _Queue, deliver: Deliver, prefetch: int, on_close: Callable[[], None]) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.unacked: dict[int, _Entry] = {}
        self._deliver = deliver
        self._on_close = on_close
        self._takes = True

    def take(self, entry: _Entry) -> None:
        self.unacked[id(entry)] = entry
        self.queue.unacked += 1
        self._deliver(_Held(self, entry))

    def ack(self, entry: _Entry) -> None:
        if self.unacked.pop(id(entry), None) is not None:
            self.queue.unacked -= 1
            self.queue.pump()

    async def cancel(self) -> None:
        if self._takes:
            self._takes = False
            self.queue.consumers.remove(self)

    async def close(self) -> None:
        await self.cancel()
        entries = list(self.unacked.values())
        self.unacked.clear()
        self.queue.unacked -= len(entries)
        self._on_close()
        self.queue.put_back(entries)


class _ReplyConsumer:
    """The consumer of a reply queue."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close

    async def cancel(self) -> None:
        self._on_close()

    async def close(self) -> None:
        self._on_close()


class MemoryBroker:
    """The queues that `MemoryTransport`s share."""

    def __init__(self, clock: Clock, *, max_waiting: int = 100_000) -> None:
        """`max_waiting`: messages that may wait in one queue; the next one is refused as unavailable."""
        self.clock = clock
        self.queues: dict[str, _Queue] = {}
        self.fanouts: dict[str, dict[int, _Queue]] = {}
        self.replies: dict[str, Deliver] = {}
        self.taps: list[Tap] = []
        self._max_waiting = max_waiting

    def queue(self, name: str) -> _Queue:
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = self.new_queue(name)
        return found

    def new_queue(self, name: str) -> _Queue:
        return _Queue(name, self.clock, self._max_waiting)

    def publish(self, address: Address, body: bytes, ttl_s: float | None) -> None:
        for tap in self.taps:
            tap(address, body)
        if address.kind is Kind.WORK:
            self.queue(address.name).put(body, ttl_s)
        elif address.kind is Kind.REPLY:
            deliver = self.replies.get(address.name)
            if deliver is not None:
                deliver(Unkept(body))
        else:
            for queue in list(self.fanouts.get(address.name, {}).values()):
                queue.put(body, ttl_s)


class MemoryTransport:
    """One connection to a `MemoryBroker`: a `Transport`."""

    def __init__(self, clock: Clock, *, broker: MemoryBroker | None = None) -> None:
        """Without a `broker` it gets one of its own; give ``other.broker`` to be a second process beside `other`."""
        self.broker = broker or MemoryBroker(clock)
        self.reconnects = 0
        self._consumers: list[_Consumer | _ReplyConsumer] = []
        self._is_closed = False

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Show `tap` every message of the broker from now on; call what is returned to end that."""
        self.broker.taps.append(tap)
        return lambda: self.broker.taps.remove(tap)

    async def open(self) -> None:
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True
        for consumer in list(self._consumers):
            await consumer.close()

    async def publish(self, address: Address, body: bytes, *, ttl_s: float | None = None) -> None:
        if self._is_closed:
            raise Unavailable(detail="The message transport is closed.")
        self.broker.publish(address, body, ttl_s)

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> _Consumer | _ReplyConsumer:
        if self._is_closed:
            raise Unavailable(detail="The message transport is closed.")
        if address.kind is Kind.REPLY:
            return self._consume_replies(address.name, deliver)
        if address.kind is Kind.WORK:
            queue = self.broker.queue(address.name)
            copies: dict[int, _Queue] = {}
        else:
            queue = self.broker.new_queue(address.name)
            copies = self.broker.fanouts.setdefault(address.name, {})
            copies[id(queue)] = queue

        def forget() -> None:
            copies.pop(id(queue), None)
            if consumer in self._consumers:
                self._consumers.remove(consumer)

        consumer = _Consumer(queue, deliver, prefetch, forget)
        self._consumers.append(consumer)
        queue.consumers.append(consumer)
        queue.pump()
        return consumer

    def _consume_replies(self, name: str, deliver: Deliver) -> _ReplyConsumer:
        def forget() -> None:
            self.broker.replies.pop(name, None)
            if consumer in self._consumers:
                self._consumers.remove(consumer)

        consumer = _ReplyConsumer(forget)
        self._consumers.append(consumer)
        self.broker.replies[name] = deliver
        return consumer

    async def depths(self) -> Mapping[str, QueueDepth]:
        return {
            name: QueueDepth(waiting=len(queue.waiting), unacked=queue.unacked, consumers=len(queue.consumers))
            for name, queue in self.broker.queues.items()
        }
