"""Calls under a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from rpc_helpers import Desk, DeskAPI, Stalled, VirtualClock, new_client, new_server, settle

from kilonova.base.metrics import new_registry
from kilonova.model.errors import Conflict, DeadlinePassed, RemoteFault, Unavailable, UnsupportedVersion
from kilonova.rpc.client import RpcClient
from kilonova.rpc.metrics import RpcMetrics
from kilonova.rpc.options import RpcOptions
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.base import Address, work
from kilonova.rpc.transports.memory import MemoryTransport


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def transport(clock: VirtualClock) -> MemoryTransport:
    return MemoryTransport(clock)


@pytest.fixture
async def client(clock: VirtualClock, transport: MemoryTransport) -> AsyncIterator[RpcClient]:
    client = await new_client(clock, transport)
    yield client
    await client.stop()


async def test_deadline_passes_on_the_given_clock(client: RpcClient, clock: VirtualClock) -> None:
    target = client.target("desk", host="gone", version="1.0")
    call = asyncio.create_task(target.call("note", text="?", deadline_s=600))
    await clock.advance(599)
    assert not call.done()
    await clock.advance(1)
    with pytest.raises(DeadlinePassed, match=r"No answer to note from desk\.gone within 600 s"):
        await call


async def test_short_call_after_a_long_one_ends_first(client: RpcClient, clock: VirtualClock) -> None:
    target = client.target("desk", version="1.0")
    long = asyncio.create_task(target.call("note", text="long", deadline_s=600))
    await settle()
    short = asyncio.create_task(target.call("note", text="short", deadline_s=5))
    await clock.advance(5)
    assert (short.done(), long.done()) == (True, False)
    await clock.advance(595)
    assert long.done()
    await asyncio.gather(long, short, return_exceptions=True)


async def test_deadline_covers_a_transport_that_hangs(clock: VirtualClock) -> None:
    client = await new_client(clock, Stalled(clock))
    call = asyncio.create_task(client.target("desk", version="1.0").call("note", text="?", deadline_s=10))
    await clock.advance(10)
    with pytest.raises(DeadlinePassed):
        await call
    assert not call.cancelled()
    assert client.inspect() == []


async def test_cancelling_a_caller_whose_transport_hangs_is_a_cancellation(clock: VirtualClock) -> None:
    client = await new_client(clock, Stalled(clock))
    call = asyncio.create_task(client.target("desk", version="1.0").call("note", text="?", deadline_s=10))
    await settle()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()


async def test_stopping_frees_callers_whose_transport_hangs(clock: VirtualClock) -> None:
    client = await new_client(clock, Stalled(clock))
    call = asyncio.create_task(client.target("desk", version="1.0").call("note", text="?", deadline_s=10))
    await settle()
    await client.stop()
    with pytest.raises(Unavailable, match="being stopped"):
        await call


async def test_caller_cancelled_while_the_client_stops_is_cancelled(clock: VirtualClock) -> None:
    client = await new_client(clock, Stalled(clock))
    call = asyncio.create_task(client.target("desk", version="1.0").call("note", text="?", deadline_s=10))
    await settle()
    call.cancel()
    await client.stop()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_client_can_be_started_again(clock: VirtualClock, transport: MemoryTransport) -> None:
    client = await new_client(clock, transport)
    target = client.target("desk", version="1.0")
    for _ in range(2):
        call = asyncio.create_task(target.call("note", text="?", deadline_s=10))
        await settle()
        await client.stop()
        with pytest.raises(Unavailable):
            await call
        await client.start()
    call = asyncio.create_task(target.call("note", text="?", deadline_s=600))
    await clock.advance(600)
    with pytest.raises(DeadlinePassed):
        await call
    await client.stop()


async def test_one_call_too_many_is_refused(clock: VirtualClock, transport: MemoryTransport) -> None:
    client = await new_client(clock, transport, options=RpcOptions(max_outstanding=3))
    target = client.target("desk", version="1.0")
    calls = [asyncio.create_task(target.call("note", text=str(n), deadline_s=10)) for n in range(3)]
    await settle()
    with pytest.raises(Unavailable, match="3 calls wait"):
        await target.call("note", text="one more", deadline_s=10)
    await clock.advance(10)
    await asyncio.gather(*calls, return_exceptions=True)
    assert client.inspect() == []


async def test_call_before_start_says_what_is_missing(clock: VirtualClock, transport: MemoryTransport) -> None:
    from kilonova.base.ids import SeededIds

    client = RpcClient(transport, clock=clock, ids=SeededIds(1))
    with pytest.raises(Unavailable, match="not running"):
        await client.target("desk", version="1.0").call("note", text="?", deadline_s=1)


async def test_inspection_shows_what_is_outstanding(client: RpcClient, clock: VirtualClock) -> None:
    call = asyncio.create_task(client.target("desk", host="h", version="1.0").call("nap", seconds=9, deadline_s=60))
    await clock.advance(7)
    (shown,) = client.inspect()
    assert (shown.method, shown.queue, shown.waited_s, shown.deadline_s) == ("nap", "desk.h", 7, 60)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_answer_of_another_type_than_expected_is_a_typed_error(
    client: RpcClient, clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock))
    with pytest.raises(RemoteFault, match="UnexpectedReply: desk note"):
        await client.target("desk", version="1.0").call("note", text="x", deadline_s=5, returns=list[int])


async def test_error_says_where_it_was_raised(
    client: RpcClient, clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock), service="reception")
    with pytest.raises(Conflict) as caught:
        await client.target("desk", version="1.0").call("conflict", deadline_s=5)
    assert caught.value.__notes__ == ["raised by reception in desk.conflict"]


async def test_arguments_may_have_any_name(client: RpcClient, transport: MemoryTransport) -> None:
    """`method` and `self` are arguments like others."""
    seen: list[bytes] = []
    transport.tap(lambda _, body: seen.append(body))
    await client.target("desk", version="1.0").cast("note", method="a", self="b")
    assert b'"args":{"method":"a","self":"b"}' in seen[0]


async def test_version_is_asked_once_and_again_after_a_while(
    client: RpcClient, clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock), version="1.1")
    asked: list[Address] = []
    transport.tap(lambda address, body: asked.append(address) if b"rpc.version" in body else None)
    target = client.target_of(DeskAPI)
    for _ in range(5):
        assert await target.can("1.1")
        assert not await target.can("1.2")
        assert await target.at("1.0").can("1.1")
    assert asked == [work("desk")]
    await clock.advance(61)
    assert await target.can("1.1")
    assert len(asked) == 2


async def test_refused_version_makes_it_ask_again(
    client: RpcClient, clock: VirtualClock, transport: MemoryTransport
) -> None:
    new: RpcServer = await new_server(clock, transport, Desk(clock), version="1.1")
    target = client.target_of(DeskAPI)
    assert await target.can("1.1")
    await new.stop()
    await new_server(clock, transport, Desk(clock), version="1.0")  # somebody went back to the older release
    assert await target.can("1.1")
    with pytest.raises(UnsupportedVersion):
        await target.call("note", text="x", deadline_s=5)
    assert not await target.can("1.1")
    assert await target.at("1.0").call("note", text="x", deadline_s=5) == "d1"


async def test_nobody_to_ask_for_a_version(client: RpcClient, clock: VirtualClock) -> None:
    asking = asyncio.create_task(client.target("desk", version="1.0").can("1.0"))
    await clock.advance(5)
    with pytest.raises(DeadlinePassed):
        await asking


async def test_calls_are_counted_by_how_they_ended(clock: VirtualClock, transport: MemoryTransport) -> None:
    registry = new_registry()
    metrics = RpcMetrics(registry)
    client = await new_client(clock, transport, metrics=metrics)
    server = await new_server(clock, transport, Desk(clock), metrics=metrics)
    target = client.target_of(DeskAPI)
    await target.call("note", text="x", deadline_s=5)
    with pytest.raises(Conflict):
        await target.call("conflict", deadline_s=5)
    slow = asyncio.create_task(target.call("nap", seconds=100, deadline_s=5))
    await clock.advance(1)
    assert registry.get_sample_value("kilonova_rpc_outstanding") == 1
    assert registry.get_sample_value("kilonova_rpc_in_hand") == 1
    await clock.advance(99)
    with pytest.raises(DeadlinePassed):
        await slow
    await target.fanout("tick")
    await settle()

    def count(name: str, method: str, outcome: str) -> float | None:
        return registry.get_sample_value(
            f"kilonova_rpc_{name}_count", {"topic": "desk", "method": method, "outcome": outcome}
        )

    assert count("call_seconds", "note", "ok") == 1
    assert count("call_seconds", "conflict", "conflict") == 1
    assert count("call_seconds", "nap", "rpc.deadline") == 1
    assert count("handled_seconds", "nap", "ok") == 1
    assert count("handled_seconds", "tick", "ok") == 1
    assert registry.get_sample_value("kilonova_rpc_timeouts_total", {"topic": "desk", "method": "nap"}) == 1
    sent = {"topic": "desk", "method": "tick", "kind": "fanout"}
    assert registry.get_sample_value("kilonova_rpc_sent_total", sent) == 1
    assert registry.get_sample_value("kilonova_rpc_outstanding") == 0
    await server.stop()
    await client.stop()
