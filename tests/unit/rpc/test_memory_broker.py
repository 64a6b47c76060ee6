"""The in-process broker under a clock that stands still: order, turns, expiry, bounds."""

import pytest
from rpc_helpers import VirtualClock

from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Delivery, fanout, replies, work
from kilonova.rpc.transports.memory import MemoryBroker, MemoryTransport

QUEUE = work("q")


async def test_consumers_take_strict_turns() -> None:
    transport = MemoryTransport(VirtualClock())
    turns: list[str] = []
    for name in "abc":
        await transport.consume(QUEUE, lambda delivery, name=name: turns.append(name), prefetch=100)  # type: ignore[misc]
    for _ in range(7):
        await transport.publish(QUEUE, b"")
    assert "".join(turns) == "abcabca"


async def test_acknowledging_makes_room_for_the_next() -> None:
    transport = MemoryTransport(VirtualClock())
    held: list[Delivery] = []
    await transport.consume(QUEUE, held.append, prefetch=1)
    for n in range(3):
        await transport.publish(QUEUE, b"%d" % n)
    assert [delivery.body for delivery in held] == [b"0"]
    await held[0].ack()
    await held[0].ack()  # twice is once
    assert [delivery.body for delivery in held] == [b"0", b"1"]


async def test_given_back_messages_keep_their_order_before_newer_ones() -> None:
    transport = MemoryTransport(VirtualClock())
    held: list[Delivery] = []
    consumer = await transport.consume(QUEUE, held.append, prefetch=3)
    for n in range(5):
        await transport.publish(QUEUE, b"%d" % n)
    await consumer.close()
    again: list[Delivery] = []
    await transport.consume(QUEUE, again.append, prefetch=10)
    assert [(delivery.body, delivery.redelivered) for delivery in again] == [
        (b"0", True),
        (b"1", True),
        (b"2", True),
        (b"3", False),
        (b"4", False),
    ]


async def test_message_expires_by_the_given_clock() -> None:
    clock = VirtualClock()
    transport = MemoryTransport(clock)
    await transport.publish(QUEUE, b"short", ttl_s=10)
    await transport.publish(QUEUE, b"long", ttl_s=20)
    await clock.advance(10)
    seen: list[Delivery] = []
    await transport.consume(QUEUE, seen.append, prefetch=10)
    assert [delivery.body for delivery in seen] == [b"long"]


async def test_full_queue_refuses_but_makes_room_of_the_expired_first() -> None:
    clock = VirtualClock()
    broker = MemoryBroker(clock, max_waiting=3)
    transport = MemoryTransport(clock, broker=broker)
    await transport.publish(QUEUE, b"perishable", ttl_s=5)
    await transport.publish(QUEUE, b"1")
    await transport.publish(QUEUE, b"2")
    with pytest.raises(Unavailable, match="q is full"):
        await transport.publish(QUEUE, b"3")
    await clock.advance(6)
    await transport.publish(QUEUE, b"3")
    assert (await transport.depths())["q"].waiting == 3


async def test_closing_a_connection_leaves_the_others_alone() -> None:
    clock = VirtualClock()
    broker = MemoryBroker(clock)
    one, two = MemoryTransport(clock, broker=broker), MemoryTransport(clock, broker=broker)
    seen_one: list[Delivery] = []
    seen_two: list[Delivery] = []
    for transport, seen in ((one, seen_one), (two, seen_two)):
        await transport.consume(fanout("q"), seen.append, prefetch=10)
        await transport.consume(QUEUE, seen.append, prefetch=10)
    await one.close()
    await two.publish(QUEUE, b"work")
    await two.publish(fanout("q"), b"news")
    assert seen_one == []
    assert [delivery.body for delivery in seen_two] == [b"work", b"news"]


async def test_nothing_is_left_of_closed_consumers() -> None:
    transport = MemoryTransport(VirtualClock())
    seen: list[Delivery] = []
    consumers = [
        await transport.consume(address, seen.append, prefetch=1) for address in (QUEUE, fanout("q"), replies("r"))
    ]
    for consumer in consumers:
        await consumer.cancel()
        await consumer.close()
        await consumer.close()
    await transport.publish(fanout("q"), b"news")
    await transport.publish(replies("r"), b"answer")
    assert seen == []
    assert transport._consumers == []
    assert transport.broker.replies == {}
    assert transport.broker.fanouts["q"] == {}
    depth = (await transport.depths())["q"]
    assert (depth.waiting, depth.unacked, depth.consumers) == (0, 0, 0)


async def test_same_seed_same_bytes() -> None:
    """What the broker carries depends on nothing but what is handed in."""
    from rpc_helpers import Desk, new_client, new_server

    async def run() -> list[bytes]:
        clock = VirtualClock()
        transport = MemoryTransport(clock)
        seen: list[bytes] = []
        transport.tap(lambda _, body: seen.append(body))
        server = await new_server(clock, transport, Desk(clock))
        client = await new_client(clock, transport)
        target = client.target("desk", version="1.0")
        for n in range(3):
            await target.call("note", text=str(n), deadline_s=5)
        await target.cast("note", text="end")
        await server.stop()
        await client.stop()
        return seen

    assert await run() == await run()
