"""The broker of a simulation: the queues of the memory transport, at a distance, on an unreliable network.

Messages take their time, and so overtake one another. They can be lost, also those that a real broker would keep: that
no message matters is what is to be shown. A confirmation that is lost makes the sender repeat, so messages are doubled.
When a service is killed its connection breaks, and what it had in hand goes to another. When the broker itself
dies, what is on its way and what waits in reply and fan-out queues is lost; work queues are on its disk, and what was
not acknowledged is handed out again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Address, Consumer, Deliver, Delivery, Kind, QueueDepth
from kilonova.rpc.transports.memory import MemoryBroker, MemoryTransport
from kilonova.sim.clock import SimulatedClock
from kilonova.sim.faults import Faults
from kilonova.sim.loop import Life, SimulatedLoop

T = TypeVar("T")

LONGEST_DELAY_S = 90.0
"""Longer than any service waits for an answer of a database or another service's word."""


class SimulatedBroker:
    """The one broker of a run."""

    def __init__(self, loop: SimulatedLoop, faults: Faults) -> None:
        self.loop = loop
        self.faults = faults
        self.queues = MemoryBroker(SimulatedClock(loop))
        self.lost = 0
        self.agents: frozenset[str] = frozenset()
        """Processes that are agents of hosts."""
        self.cut_off: dict[str, float] = {}
        """Process to the time until which no message reaches it, and none of its own reaches anybody."""
        self.deaths = 0
        self.doom: Callable[[Life, float], None] = _nothing
        """Kills a life in so many seconds."""

        self._back_at = 0.0
        self._connections: dict[str, SimulatedTransport] = {}

    def cut_for(self, life: Life) -> float:
        """Seconds for which this process is still cut off."""
        return max(0.0, max(self._back_at, self.cut_off.get(life.machine, 0.0)) - self.loop.time())

    def cut_off_until(self) -> float:
        """When everybody is reached again, as it stands now."""
        return max((self._back_at, *self.cut_off.values()))

    def connect(self, life: Life) -> "SimulatedTransport":
        """A connection of `life`, which breaks when that is killed."""
        transport = self._connections[life.machine] = SimulatedTransport(self, life)
        life.on_death.append(transport.cut)
        return transport

    def die(self, seconds: float) -> None:
        """Break all connections, and let nobody in for so long."""
        self.deaths += 1
        self._back_at = self.loop.time() + seconds
        alive = [transport for transport in self._connections.values() if transport.is_alive]
        for transport in alive:
            transport.hang_up()
        for transport in alive:
            self.loop.later(seconds + self.faults.between(0, 3), transport.listen_again)


def _nothing(life: Life, seconds: float) -> None:
    """Nobody is killed."""


class SimulatedTransport:
    """One service's connection: a `Transport`."""

    def __init__(self, broker: SimulatedBroker, life: Life) -> None:
        self.reconnects = 0
        self._broker = broker
        self._life = life
        self._inner = MemoryTransport(broker.queues.clock, broker=broker.queues)
        self._consumers: list[_Consumer] = []

    @property
    def is_alive(self) -> bool:
        """Whether its process is."""
        return not self._life.is_over

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    def cut(self) -> None:
        """The connection breaks: the broker notices, this side does not."""
        _now(self._inner.close())

    def hang_up(self) -> None:
        """The broker is gone: it keeps what it has on disk, and forgets who listened."""
        for consumer in self._consumers:
            consumer.break_off()

    def listen_again(self) -> None:
        """As a client library does by itself when the broker is back."""
        if self.is_alive:
            for consumer in self._consumers:
                consumer.listen()

    async def publish(self, address: Address, body: bytes, *, ttl_s: float | None = None) -> None:
        faults, broker = self._broker.faults, self._broker
        if faults.strikes("messages.broker_dies"):
            broker.die(faults.between(1, 20))
        if faults.strikes("messages.cut_off"):
            broker.cut_off[self._life.machine] = broker.loop.time() + faults.between(1, 150)
        if broker.cut_for(self._life) > 0:
            await asyncio.sleep(min(10.0, broker.cut_for(self._life)))
            raise Unavailable(detail="The broker cannot be reached.")
        if faults.strikes("messages.refuse"):
            await asyncio.sleep(faults.between(0.01, 10))
            raise Unavailable(detail="The broker did not take the message.")
        way = faults.latency()
        if faults.strikes("messages.lose"):
            self._broker.lost += 1
        else:
            self._send(way, address, body, ttl_s)
        if faults.strikes("messages.double"):
            self._send(faults.between(0, (5, LONGEST_DELAY_S)[faults.one_of(2)]), address, body, ttl_s)
        await asyncio.sleep(way + faults.latency() if address.kind is Kind.WORK else 0)

    def _send(self, way: float, address: Address, body: bytes, ttl_s: float | None) -> None:
        faults = self._broker.faults
        if faults.strikes("messages.delay"):
            way = faults.between(0.01, 1) if faults.one_of(2) else faults.between(1, LONGEST_DELAY_S)
        self._broker.loop.later(way, self._arrive, address, body, ttl_s, self._broker.deaths)

    def _arrive(self, address: Address, body: bytes, ttl_s: float | None, deaths: int) -> None:
        if deaths != self._broker.deaths:
            self._broker.lost += 1
            return
        try:
            self._broker.queues.publish(address, body, ttl_s)
        except Unavailable:  # the queue is full, and the sender has gone
            self._broker.lost += 1

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> Consumer:
        context, life, broker = self._life.context, self._life, self._broker
        is_command = life.machine in broker.agents and address.kind is Kind.WORK
        kill = "kill.at_command" if life.machine in broker.agents else "kill.at_message"

        def take(delivery: Delivery) -> None:
            if (way := broker.cut_for(life)) > 0:
                broker.loop.later(way + broker.faults.latency(), take, delivery)
                return
            if broker.faults.strikes(kill):
                # At once, while it answers, or in the middle of longer work.
                broker.doom(life, broker.faults.between(0, (0.002, 0.02, 4)[broker.faults.one_of(3)]))
            if is_command and broker.faults.strikes("messages.again"):
                again = broker.faults.between(5, LONGEST_DELAY_S)
                broker.doom(life, broker.faults.between(1, again))
                self._send(again, address, delivery.body, None)
            if not life.is_over:
                handed = delivery if address.kind is Kind.REPLY else _Delivery(delivery, broker)
                context.copy().run(deliver, handed)

        consumer = _Consumer(self._inner, address, take, prefetch)
        self._consumers.append(consumer)
        if broker.cut_for(life) == 0:
            consumer.listen()
        else:
            broker.loop.later(broker.cut_for(life), self.listen_again)
        return consumer

    async def depths(self) -> Mapping[str, QueueDepth]:
        return await self._inner.depths()


class _Consumer:
    """A `Consumer` that comes back when the broker does."""

    def __init__(self, transport: MemoryTransport, address: Address, deliver: Deliver, prefetch: int) -> None:
        self._listen = partial(transport.consume, address, deliver, prefetch=prefetch)
        self._inner: Consumer | None = None
        self._is_wanted = True

    def listen(self) -> None:
        """Take messages from now on."""
        if self._is_wanted and self._inner is None:
            self._inner = _now(self._listen())

    def break_off(self) -> None:
        """What is in hand goes back to the queue."""
        inner, self._inner = self._inner, None
        if inner is not None:
            _now(inner.close())

    async def cancel(self) -> None:
        self._is_wanted = False
        if self._inner is not None:
            await self._inner.cancel()

    async def close(self) -> None:
        self._is_wanted = False
        self.break_off()


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The result of what never waits, and so is over with its first step."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the memory transport waits for something")


class _Delivery:
    """A `Delivery` whose acknowledgement takes its time: a service can be killed before it is there."""

    __slots__ = ("_broker", "_inner", "body", "redelivered")

    def __init__(self, inner: Delivery, broker: SimulatedBroker) -> None:
        self._inner = inner
        self._broker = broker
        self.body = inner.body
        self.redelivered = inner.redelivered

    async def ack(self) -> None:
        await asyncio.sleep(self._broker.faults.latency())
        await self._inner.ack()
