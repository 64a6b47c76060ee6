"""Answering under a clock that stands still: duplicates, lateness, stopping, log lines."""

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import structlog
from rpc_helpers import Breaking, Desk, DeskAPI, VirtualClock, new_client, new_server, settle

from kilonova.base.log import bind
from kilonova.base.metrics import new_registry
from kilonova.model.errors import Conflict, RemoteFault
from kilonova.rpc.duplicates import Handled
from kilonova.rpc.envelope import Message, encode, pack
from kilonova.rpc.metrics import RpcMetrics
from kilonova.rpc.options import RpcOptions
from kilonova.rpc.transports.base import fanout, work
from kilonova.rpc.transports.memory import MemoryTransport

Lines = list[dict[str, Any]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def transport(clock: VirtualClock) -> MemoryTransport:
    return MemoryTransport(clock)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged, with the context in which it was."""
    from kilonova.base.log import bound

    seen: Lines = []

    def keep(_: Any, level: str, event: Any) -> str:
        seen.append({**bound(), **event, "level": level})
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    yield seen
    structlog.configure(**before)


def a_message(method: str = "note", **fields: Any) -> Message:
    args = fields.pop("args", {"text": "x"})
    return Message(**{"msg_id": "m-1", "method": method, "version": "1.0", "args": pack(args), **fields})


async def test_nap_takes_virtual_time_only(clock: VirtualClock, transport: MemoryTransport) -> None:
    await new_server(clock, transport, Desk(clock))
    client = await new_client(clock, transport)
    nap = asyncio.create_task(client.target("desk", version="1.0").call("nap", seconds=3600, deadline_s=7200))
    await clock.advance(3600)
    assert await nap == "d1"


# ---- once, and in time ---------------------------------------------------------------------------------


async def test_fanout_copies_and_work_may_share_an_id_without_hiding_each_other(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    shared = Handled(100)
    desks = [Desk(clock, f"d{n}") for n in range(3)]
    for desk in desks:
        await new_server(clock, transport, desk, handled=shared)
    await transport.publish(fanout("desk"), encode(a_message(), 10_000))
    await settle()
    assert [desk.notes for desk in desks] == [["x"]] * 3


async def test_workers_of_one_process_share_what_they_have_handled(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    shared = Handled(100)
    desks = [Desk(clock, f"d{n}") for n in range(3)]
    for desk in desks:
        await new_server(clock, transport, desk, handled=shared)
    for _ in range(6):
        await transport.publish(work("desk"), encode(a_message(), 10_000))
    await settle()
    assert [desk.notes for desk in desks] == [["x"], [], []]


async def test_duplicate_takes_over_from_one_that_was_given_up(clock: VirtualClock, transport: MemoryTransport) -> None:
    shared = Handled(100)
    leaving, staying = Desk(clock, "leaving"), Desk(clock, "staying")
    server = await new_server(clock, transport, leaving, handled=shared)
    message = encode(a_message("nap", args={"seconds": 50}), 10_000)
    await transport.publish(work("desk"), message)
    await settle()
    await new_server(clock, transport, staying, handled=shared)
    await transport.publish(work("desk"), message)
    await transport.publish(work("desk"), message)
    await settle()
    assert staying.notes == []
    await server.stop(drain_s=0)
    await clock.advance(50)
    assert (leaving.done, staying.done) == ([], ["nap 50"])
    assert (await transport.depths())["desk"].unacked == 0


async def test_duplicate_is_acknowledged_only_after_the_work_of_the_first(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    """It may be the only copy that the broker still has."""
    desk = Desk(clock)
    await new_server(clock, transport, desk)
    for _ in range(2):
        await transport.publish(work("desk"), encode(a_message("nap", args={"seconds": 5}), 10_000))
    await clock.advance(4)
    assert (await transport.depths())["desk"].unacked == 2
    await clock.advance(1)
    assert (await transport.depths())["desk"].unacked == 0
    assert desk.done == ["nap 5"]


async def test_casts_over_a_connection_that_breaks_again_and_again_have_one_effect_each(clock: VirtualClock) -> None:
    transport = Breaking(clock)
    desk = Desk(clock)
    await new_server(clock, transport, desk, options=RpcOptions(prefetch=50))
    target = (await new_client(clock, transport)).target_of(DeskAPI)
    chance = random.Random(5)
    redelivered = 0
    for n in range(2000):
        await target.cast("nap", seconds=1 + n / 10_000)
        if chance.random() < 0.02:
            await clock.advance(chance.random() * 2)
            redelivered += (await transport.depths())["desk"].unacked
            await transport.reconnect()
    while len(desk.done) < 2000:
        await clock.advance(1)
    await clock.advance(10)
    assert redelivered > 500
    assert sorted(desk.done) == sorted(f"nap {1 + n / 10_000:g}" for n in range(2000))
    depth = (await transport.depths())["desk"]
    assert (depth.waiting, depth.unacked) == (0, 0)


async def test_call_kept_for_long_is_not_done(clock: VirtualClock, transport: MemoryTransport, lines: Lines) -> None:
    desk = Desk(clock)
    await new_server(clock, transport, desk)
    for number, seconds_ago in enumerate((29, 31)):
        late = a_message(msg_id=f"m-{number}", deadline=clock.now() - timedelta(seconds=seconds_ago), remaining_s=5)
        await transport.publish(work("desk"), encode(late, 10_000))
    await settle()
    assert desk.notes == ["x"]
    assert [line["msg_id"] for line in lines if line["event"] == "message came too late"] == ["m-1"]
    assert (await transport.depths())["desk"].unacked == 0


async def test_message_is_acknowledged_only_after_the_work(clock: VirtualClock, transport: MemoryTransport) -> None:
    await new_server(clock, transport, Desk(clock))
    await transport.publish(work("desk"), encode(a_message("nap", args={"seconds": 5}), 10_000))
    await clock.advance(4)
    assert (await transport.depths())["desk"].unacked == 1
    await clock.advance(1)
    assert (await transport.depths())["desk"].unacked == 0


# ---- errors --------------------------------------------------------------------------------------------


async def test_cancellation_inside_a_handler_is_an_error_of_the_handler(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock))
    target = (await new_client(clock, transport)).target("desk", version="1.0")
    with pytest.raises(RemoteFault) as caught:
        await target.call("inner_cancel", deadline_s=5)
    assert caught.value.type == "CancelledError"
    assert await target.call("note", text="alive", deadline_s=5) == "d1"


async def test_result_that_json_cannot_carry_is_an_error_of_the_handler(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock))
    target = (await new_client(clock, transport)).target("desk", version="1.0")
    with pytest.raises(RemoteFault) as caught:
        await target.call("unsendable", deadline_s=5)
    assert caught.value.type == "TypeError"


async def test_deeply_nested_bytes_do_not_kill_the_worker(clock: VirtualClock, transport: MemoryTransport) -> None:
    desk = Desk(clock)
    await new_server(clock, transport, desk)
    await transport.publish(work("desk"), b"[" * 1_000_000)
    deep = b'{"msg_id":"d","method":"note","version":"1.0","args":{"text":' + b"[" * 500_000 + b"]" * 500_000 + b"}}"
    await transport.publish(work("desk"), deep)
    await transport.publish(work("desk"), encode(a_message(), 10_000))
    await settle()
    assert desk.notes == ["x"]
    assert (await transport.depths())["desk"].unacked == 0


# ---- stopping ------------------------------------------------------------------------------------------


async def test_stop_waits_as_long_as_it_may_and_no_longer(clock: VirtualClock, transport: MemoryTransport) -> None:
    desk = Desk(clock)
    server = await new_server(clock, transport, desk)
    target = (await new_client(clock, transport)).target("desk", version="1.0")
    short = asyncio.create_task(target.call("nap", seconds=4, deadline_s=60))
    long = asyncio.create_task(target.call("nap", seconds=40, deadline_s=60))
    await settle()
    stopping = asyncio.create_task(server.stop(drain_s=5))
    await clock.advance(4.9)
    assert short.done()
    assert not stopping.done()
    await clock.advance(0.2)
    assert stopping.done()
    assert desk.done == ["nap 4"]
    assert (await transport.depths())["desk"].waiting == 1
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_stop_with_nothing_to_do_takes_no_time(clock: VirtualClock, transport: MemoryTransport) -> None:
    server = await new_server(clock, transport, Desk(clock))
    await server.stop(drain_s=60)
    await server.stop(drain_s=60)
    assert clock.sleeping == 0


async def test_stop_does_not_hang_on_a_handler_that_ignores_it(
    clock: VirtualClock, transport: MemoryTransport, lines: Lines
) -> None:
    desk = Desk(clock)
    desk.stubborn = True
    server = await new_server(clock, transport, desk)
    await transport.publish(work("desk"), encode(a_message("nap", args={"seconds": 500}), 10_000))
    await settle()
    stopping = asyncio.create_task(server.stop(drain_s=2))
    await clock.advance(4)
    assert stopping.done()
    assert "handlers ignore that they are cancelled" in [line["event"] for line in lines]


# ---- what an operator sees -----------------------------------------------------------------------------


async def test_one_call_can_be_followed_through_the_log(
    clock: VirtualClock, transport: MemoryTransport, lines: Lines
) -> None:
    await new_server(clock, transport, Desk(clock), service="reception")
    client = await new_client(clock, transport)
    with bind(request_id="req-1", service="api", server="s-1"):
        await client.target_of(DeskAPI, host="d1").call("note", text="secret words", deadline_s=5)
    sent, received, replied = lines
    assert [line["event"] for line in lines] == ["message sent", "message received", "reply sent"]
    assert len({line["msg_id"] for line in lines}) == 1
    assert {line["request_id"] for line in lines} == {"req-1"}
    assert (sent["service"], sent["queue"], sent["reply_queue"]) == ("api", "desk.d1", client.reply_queue)
    assert (received["service"], received["host"], received["queue"]) == ("reception", "d1", "desk.d1")
    assert received["source"] == "api"
    assert "server" not in received
    assert (replied["queue"], replied["outcome"]) == (client.reply_queue, "ok")
    assert "secret words" not in str(lines)


async def test_quiet_methods_speak_only_as_part_of_a_request(
    clock: VirtualClock, transport: MemoryTransport, lines: Lines
) -> None:
    desk = Desk(clock)
    await new_server(clock, transport, desk)
    target = (await new_client(clock, transport)).target_of(DeskAPI)
    await target.call("tick", deadline_s=5)
    await target.cast("tick")
    await target.fanout("tick")
    await settle()
    assert (desk.ticks, lines) == (3, [])
    with bind(request_id="req-1"):
        await target.cast("tick")
    await settle()
    assert [line["event"] for line in lines] == ["message sent", "message received"]


async def test_request_of_one_message_does_not_stick_to_the_next(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    await new_server(clock, transport, Desk(clock))
    target = (await new_client(clock, transport)).target_of(DeskAPI)
    with bind(request_id="req-1"):
        # The first call of a client starts its timer, the first message of a server its tasks.
        assert (await target.call("context", deadline_s=5))["request_id"] == "req-1"
    assert await target.call("context", deadline_s=5) == {"service": "desk", "host": "d1"}


async def test_error_of_a_cast_is_not_lost(clock: VirtualClock, transport: MemoryTransport, lines: Lines) -> None:
    await new_server(clock, transport, Desk(clock))
    target = (await new_client(clock, transport)).target_of(DeskAPI)
    await target.cast("conflict")
    await settle()
    assert [(line["event"], line["code"]) for line in lines if line["level"] == "warning"] == [
        ("message refused", "conflict")
    ]
    lines.clear()
    with pytest.raises(Conflict):  # a caller logs its error itself
        await target.call("conflict", deadline_s=5)
    assert [line for line in lines if line["level"] != "info"] == []


async def test_answer_after_the_deadline_is_told(clock: VirtualClock, transport: MemoryTransport, lines: Lines) -> None:
    await new_server(clock, transport, Desk(clock))
    target = (await new_client(clock, transport)).target_of(DeskAPI)
    call = asyncio.create_task(target.call("nap", seconds=20, deadline_s=5))
    await clock.advance(20)
    await asyncio.gather(call, return_exceptions=True)
    (told,) = [line for line in lines if line["event"] == "answer comes too late"]
    assert (told["method"], told["took_s"]) == ("nap", 20)


async def test_inspection_shows_what_is_in_hand(clock: VirtualClock, transport: MemoryTransport) -> None:
    server = await new_server(clock, transport, Desk(clock))
    client = await new_client(clock, transport, name="somebody")
    with bind(request_id="req-7"):
        call = asyncio.create_task(
            client.target("desk", host="d1", version="1.0").call("nap", seconds=9, deadline_s=60)
        )
        await clock.advance(3)
    (shown,) = server.inspect()
    assert (shown.method, shown.queue, shown.request_id, shown.source, shown.age_s) == (
        "nap",
        "desk.d1",
        "req-7",
        "somebody",
        3,
    )
    assert any(task.get_name() == "rpc desk.d1 nap" for task in asyncio.all_tasks())
    await clock.advance(6)
    assert await call == "d1"
    assert server.inspect() == []


async def test_dropped_messages_are_counted_and_strange_names_make_no_series(
    clock: VirtualClock, transport: MemoryTransport
) -> None:
    registry = new_registry()
    await new_server(clock, transport, Desk(clock), metrics=RpcMetrics(registry))
    await transport.publish(work("desk"), b"noise")
    for _ in range(3):
        await transport.publish(work("desk"), encode(a_message(), 10_000))
    for n in range(5):
        await transport.publish(work("desk"), encode(a_message(f"made_up_{n}", msg_id=f"u-{n}"), 10_000))
    await settle()
    assert registry.get_sample_value("kilonova_rpc_dropped_total", {"topic": "desk", "reason": "duplicate"}) == 2
    assert registry.get_sample_value("kilonova_rpc_dropped_total", {"topic": "desk", "reason": "unreadable"}) == 1
    unknown = {"topic": "desk", "method": "unknown", "outcome": "rpc.unknown_method"}
    assert registry.get_sample_value("kilonova_rpc_handled_seconds_count", unknown) == 5


async def test_options_reach_the_queue(clock: VirtualClock, transport: MemoryTransport) -> None:
    desk = Desk(clock)
    await new_server(clock, transport, desk, options=RpcOptions(prefetch=2))
    for n in range(5):
        message = a_message("nap", msg_id=str(n), args={"seconds": 10})
        await transport.publish(work("desk"), encode(message, 10_000))
    await settle()
    assert len(desk.notes) == 2
    await clock.advance(30)
    assert len(desk.done) == 5
