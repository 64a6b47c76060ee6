"""What every transport must carry: one suite, run by the in-process transport and by each broker's.

A transport's test module subclasses `TransportContract` and supplies the fixture `transport_factory`: an
async function that returns a new, open `Transport`, each time another connection to the same broker (in
the words of these tests: another process). Time is real here, because a broker's is.
"""

import asyncio
from typing import Any

import pytest
from post_office import CLOCK, IDS, MIB, Parcel, Post, PostOffice, until

from kilonova.base.log import bind
from kilonova.model.errors import (
    BadArguments,
    CloudError,
    DeadlinePassed,
    MessageTooLarge,
    QuotaExceeded,
    RemoteFault,
    Unavailable,
    UnknownMethod,
    UnsupportedVersion,
)
from kilonova.rpc.envelope import Message, encode, pack
from kilonova.rpc.transports.base import Delivery, replies, work


class TransportContract:
    """Every transport passes this; its test module only supplies `transport_factory`."""

    # ---- call, cast, fan-out -----------------------------------------------------------------------

    async def test_call_returns_the_typed_answer(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        answer = await target.call(
            "weigh", parcel=Parcel(weight=7, labels=("a",)), times=3, deadline_s=10, returns=Parcel
        )
        assert answer == Parcel(weight=21, labels=("a", "h1"))

    async def test_call_without_a_type_returns_plain_values(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        answer = await target.call("weigh", parcel=Parcel(weight=7), deadline_s=10)
        assert answer == {"version": "1.3", "weight": 7, "labels": ["h1"]}

    async def test_cast_has_one_effect(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        await target.cast("note", text="once")
        await target.call("note", text="after", deadline_s=10)
        await until(lambda: len(office.notes) == 2)
        assert sorted(office.notes) == ["after", "once"]

    async def test_fanout_reaches_each_worker_once(self, post: Post) -> None:
        offices = [(await post.office(f"h{n}"))[0] for n in range(5)]
        target = await post.target()
        await target.fanout("note", text="aggregate changed")
        await until(lambda: all(office.notes for office in offices))
        await asyncio.sleep(0.1)
        assert [office.notes for office in offices] == [["aggregate changed"]] * 5

    async def test_fanout_without_workers_is_no_error_and_is_not_kept(self, post: Post) -> None:
        target = await post.target()
        await target.fanout("note", text="nobody hears this")
        office, _ = await post.office("h1")
        await target.call("note", text="later", deadline_s=10)
        assert office.notes == ["later"]

    async def test_calls_of_two_processes_find_their_own_answers(self, post: Post) -> None:
        await post.office("h1")
        one, two = await post.target(), await post.target()
        weights = range(50)
        answers = await asyncio.gather(
            *(
                target.call("weigh", parcel=Parcel(weight=n), times=times, deadline_s=10, returns=Parcel)
                for n in weights
                for target, times in ((one, 1), (two, 1000))
            )
        )
        assert [answer.weight for answer in answers] == [n * times for n in weights for times in (1, 1000)]

    # ---- who gets it -------------------------------------------------------------------------------

    async def test_topic_is_shared(self, post: Post) -> None:
        offices = [(await post.office(f"h{n}"))[0] for n in range(3)]
        target = await post.target()
        for n in range(60):
            await target.call("note", text=str(n), deadline_s=10)
        counts = [len(office.notes) for office in offices]
        assert sum(counts) == 60
        assert min(counts) >= 8

    async def test_topic_and_host_reaches_that_host_alone(self, post: Post) -> None:
        here, _ = await post.office("a")
        there, _ = await post.office("b")
        target = await post.target("a")
        for n in range(10):
            assert await target.call("note", text=f"stop {n}", deadline_s=10) == "a"
        assert len(here.notes) == 10
        assert there.notes == []

    async def test_message_waits_for_a_worker_to_come(self, post: Post) -> None:
        target = await post.target()
        for n in range(5):
            await target.cast("note", text=str(n))
        office, _ = await post.office("h1")
        await until(lambda: len(office.notes) == 5)
        assert sorted(office.notes) == ["0", "1", "2", "3", "4"]

    async def test_directed_message_waits_for_the_host_to_return(self, post: Post) -> None:
        other, _ = await post.office("b")
        _, server = await post.office("a")
        await server.stop()
        target = await post.target("a")
        await target.cast("note", text="for a")
        await asyncio.sleep(0.1)
        back, _ = await post.office("a")
        await until(lambda: back.notes == ["for a"])
        assert other.notes == []

    # ---- errors and deadlines ----------------------------------------------------------------------

    async def test_error_arrives_as_its_type_with_its_facts(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        with pytest.raises(QuotaExceeded) as caught:
            await target.call("refuse", deadline_s=10)
        assert caught.value.facts() == {"resource": "cores", "limit": 20, "used": 19, "asked": 2}

    async def test_unknown_exception_arrives_as_remote_fault(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        with pytest.raises(RemoteFault) as caught:
            await target.call("break_down", deadline_s=10)
        assert caught.value.type == "KeyError"
        assert "no such drawer" in caught.value.detail
        assert await target.call("note", text="alive", deadline_s=10) == "h1"

    async def test_deadline_passes_when_nobody_is_there(self, post: Post) -> None:
        target = await post.target("nowhere")
        started = CLOCK.monotonic()
        with pytest.raises(DeadlinePassed) as caught:
            await target.call("note", text="hello?", deadline_s=0.3)
        assert 0.25 < CLOCK.monotonic() - started < 3
        assert (caught.value.method, caught.value.target) == ("note", f"{post.topic}.nowhere")
        assert target.client.inspect() == []

    async def test_call_that_nobody_waits_for_any_more_is_not_done(self, post: Post) -> None:
        target = await post.target("a")
        with pytest.raises(DeadlinePassed):
            await target.call("note", text="too late", deadline_s=0.2)
        await asyncio.sleep(0.3)
        office, _ = await post.office("a")
        await target.call("note", text="in time", deadline_s=10)
        assert office.notes == ["in time"]

    async def test_late_answer_disturbs_nobody(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        with pytest.raises(DeadlinePassed):
            await target.call("hold", name="slow", deadline_s=0.2)
        office.gate.set()
        assert await target.call("note", text="next", deadline_s=10) == "h1"

    # ---- what is refused ---------------------------------------------------------------------------

    @pytest.mark.parametrize("method", ["no_such_method", "not_declared", "__init__", "_private", "name"])
    async def test_method_that_is_not_offered_is_refused(self, post: Post, method: str) -> None:
        await post.office("h1")
        target = await post.target()
        with pytest.raises(UnknownMethod) as caught:
            await target.call(method, deadline_s=10)
        assert caught.value.method == method
        assert await target.call("note", text="alive", deadline_s=10) == "h1"

    @pytest.mark.parametrize("asked", ["2.6", "1.0", "3.0", "nonsense"])
    async def test_version_that_is_not_offered_is_refused(self, post: Post, asked: str) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        with pytest.raises(UnsupportedVersion) as caught:
            await target.at(asked).call("note", text="strange", deadline_s=10)
        assert (caught.value.asked, caught.value.offered) == (asked, "2.5")
        assert await target.at("2.0").call("note", text="older is fine", deadline_s=10) == "h1"
        assert office.notes == ["older is fine"]

    @pytest.mark.parametrize(
        "args",
        [
            {"text": "a", "colour": "red"},  # an argument of a newer version
            {},
            {"text": 5},
            {"text": None},
        ],
    )
    async def test_arguments_that_do_not_fit_are_refused(self, post: Post, args: dict[str, Any]) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        with pytest.raises(BadArguments):
            await target.call("note", deadline_s=10, **args)
        assert await target.call("note", text="alive", deadline_s=10) == "h1"
        assert office.notes == ["alive"]

    async def test_refused_cast_leaves_the_worker_alive(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        await target.cast("no_such_method")
        await target.cast("break_down")
        await target.at("9.0").cast("note", text="from the future")
        await target.cast("note", text="alive")
        await until(lambda: office.notes == ["alive"])

    async def test_bytes_that_are_no_message_are_dropped(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        transport = await post.transport()
        for body in (b"", b"\xff\xfe", b"[1, 2]", b'{"method": "note"}', b"{"):
            await transport.publish(work(post.topic), body)
            await transport.publish(replies(target.client.reply_queue), body)
        assert await target.call("note", text="alive", deadline_s=10) == "h1"
        assert office.notes == ["alive"]

    async def test_can_tells_what_the_other_side_takes(self, post: Post) -> None:
        await post.office("old", version="2.3")
        target = await post.target("old")
        assert [await target.can(version) for version in ("2.0", "2.3", "2.4", "1.0", "3.0")] == [
            True,
            True,
            False,
            False,
            False,
        ]

    # ---- size --------------------------------------------------------------------------------------

    async def test_nine_megabytes_go_through_both_ways(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        assert await target.call("measure", text="x" * (9 * MIB), deadline_s=30) == 9 * MIB
        assert len(await target.call("fill", size=9 * MIB, deadline_s=30)) == 9 * MIB

    async def test_message_over_ten_megabytes_is_refused_before_it_is_sent(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        for send in (
            target.call("note", text="x" * (10 * MIB), deadline_s=30),
            target.cast("note", text="x" * (10 * MIB)),
            target.fanout("note", text="x" * (10 * MIB)),
        ):
            with pytest.raises(MessageTooLarge) as caught:
                await send
            assert caught.value.size > caught.value.limit == 10 * MIB
        assert await target.call("note", text="small", deadline_s=10) == "h1"
        assert office.notes == ["small"]

    async def test_answer_over_ten_megabytes_is_refused_with_a_clear_error(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        with pytest.raises(MessageTooLarge):
            await target.call("fill", size=10 * MIB, deadline_s=30)
        assert await target.call("note", text="alive", deadline_s=10) == "h1"

    # ---- once --------------------------------------------------------------------------------------

    async def test_same_msg_id_twice_has_one_effect(self, post: Post) -> None:
        office, _ = await post.office("h1")
        transport = await post.transport()
        message = Message(msg_id=IDS.uuid(), method="note", version="2.5", args=pack({"text": "once"}))
        for _ in range(3):
            await transport.publish(work(post.topic), encode(message, MIB))
        target = await post.target()
        await target.call("note", text="after", deadline_s=10)
        await asyncio.sleep(0.1)
        assert sorted(office.notes) == ["after", "once"]

    async def test_duplicate_while_the_first_is_under_way_has_no_effect(self, post: Post) -> None:
        office, _ = await post.office("h1")
        transport = await post.transport()
        message = Message(msg_id=IDS.uuid(), method="hold", version="2.5", args=pack({"name": "once"}))
        await transport.publish(work(post.topic), encode(message, MIB))
        await until(lambda: bool(office.held))
        await transport.publish(work(post.topic), encode(message, MIB))
        target = await post.target()
        await target.call("note", text="meanwhile", deadline_s=10)
        office.gate.set()
        await asyncio.sleep(0.1)
        assert office.held == ["once"]

    async def test_replayed_call_is_answered_again_without_a_second_effect(self, post: Post) -> None:
        office, _ = await post.office("h1")
        transport = await post.transport()
        answers: list[bytes] = []
        queue = f"reply_{IDS.uuid()}"

        def on_reply(delivery: Delivery) -> None:
            answers.append(delivery.body)

        await transport.consume(replies(queue), on_reply, prefetch=10)
        message = Message(msg_id=IDS.uuid(), reply_to=queue, method="note", version="2.5", args=pack({"text": "once"}))
        await transport.publish(work(post.topic), encode(message, MIB))
        await until(lambda: len(answers) == 1)
        await transport.publish(work(post.topic), encode(message, MIB))
        await until(lambda: len(answers) == 2)
        assert answers[0] == answers[1]
        assert office.notes == ["once"]

    # ---- many at once ------------------------------------------------------------------------------

    async def test_long_handler_does_not_stop_other_messages(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target("h1")
        build = asyncio.create_task(target.call("hold", name="build", deadline_s=60))
        await until(lambda: office.held == ["build"])
        for n in range(100):
            assert await target.call("note", text=str(n), deadline_s=5) == "h1"
        assert not build.done()
        office.gate.set()
        assert await build == "h1: build"

    async def test_a_thousand_calls_outstanding(self, post: Post) -> None:
        office, server = await post.office("h1", prefetch=1000)
        target = await post.target()
        calls = [asyncio.create_task(target.call("hold", name=str(n), deadline_s=60)) for n in range(1000)]
        await until(lambda: len(office.held) == 1000, within_s=30)
        assert len(target.client.inspect()) == 1000
        assert len(server.inspect()) == 1000
        office.gate.set()
        assert await asyncio.gather(*calls) == [f"h1: {n}" for n in range(1000)]
        assert target.client.inspect() == []
        await until(lambda: server.inspect() == [])

    async def test_worker_holds_no_more_than_its_prefetch(self, post: Post) -> None:
        office, server = await post.office("h1", prefetch=3)
        target = await post.target()
        calls = [asyncio.create_task(target.call("hold", name=str(n), deadline_s=30)) for n in range(10)]
        await until(lambda: len(office.held) == 3)
        await asyncio.sleep(0.2)
        assert len(office.held) == len(server.inspect()) == 3
        office.gate.set()
        assert len(await asyncio.gather(*calls)) == 10

    async def test_busy_worker_leaves_messages_to_the_idle(self, post: Post) -> None:
        busy, _ = await post.office("busy", prefetch=1)
        idle, _ = await post.office("idle", prefetch=1)
        target = await post.target()
        held = asyncio.create_task(target.call("hold", name="long", deadline_s=30))
        await until(lambda: bool(busy.held or idle.held))
        holder, other = (busy, idle) if busy.held else (idle, busy)
        for n in range(10):
            await target.call("note", text=str(n), deadline_s=10)
        assert len(other.notes) == 10
        holder.gate.set()
        await held

    # ---- ending ------------------------------------------------------------------------------------

    async def test_cancelled_call_is_forgotten_and_harms_nobody(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        call = asyncio.create_task(target.call("hold", name="given up", deadline_s=60))
        await until(lambda: bool(office.held))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert target.client.inspect() == []
        office.gate.set()
        assert await target.call("note", text="next", deadline_s=10) == "h1"

    async def test_stop_finishes_what_is_in_hand_and_takes_nothing_new(self, post: Post) -> None:
        leaving, server = await post.office("leaving")
        target = await post.target()
        call = asyncio.create_task(target.call("hold", name="last", deadline_s=30))
        await until(lambda: leaving.held == ["last"])
        stopping = asyncio.create_task(server.stop(drain_s=20))
        await asyncio.sleep(0.1)
        await target.cast("note", text="for the next")
        await asyncio.sleep(0.1)
        assert not stopping.done()
        leaving.gate.set()
        assert await call == "leaving: last"
        await stopping
        assert leaving.notes == []
        staying, _ = await post.office("staying")
        await until(lambda: staying.notes == ["for the next"])
        assert staying.held == []

    async def test_what_does_not_finish_in_time_goes_to_another_worker(self, post: Post) -> None:
        leaving, server = await post.office("leaving")
        target = await post.target()
        call = asyncio.create_task(target.call("hold", name="work", deadline_s=30))
        await until(lambda: leaving.held == ["work"])
        staying, _ = await post.office("staying")
        staying.gate.set()
        started = CLOCK.monotonic()
        await server.stop(drain_s=0.1)
        assert CLOCK.monotonic() - started < 3
        assert await call == "staying: work"

    async def test_message_in_the_hands_of_a_dead_process_goes_to_another(self, post: Post) -> None:
        dying = PostOffice("dying")
        transport = await post.transport()
        await post.serve(dying, transport)
        target = await post.target()
        call = asyncio.create_task(target.call("hold", name="work", deadline_s=30))
        await until(lambda: dying.held == ["work"])
        await transport.close()
        heir, _ = await post.office("heir")
        heir.gate.set()
        assert await call == "heir: work"

    async def test_stopped_client_ends_its_calls(self, post: Post) -> None:
        office, _ = await post.office("h1")
        target = await post.target()
        call = asyncio.create_task(target.call("hold", name="x", deadline_s=60))
        await until(lambda: bool(office.held))
        await target.client.stop()
        with pytest.raises(Unavailable):
            await call
        with pytest.raises(Unavailable):
            await target.call("note", text="closed", deadline_s=10)

    async def test_closed_transport_says_so(self, post: Post) -> None:
        transport = await post.transport()
        await transport.close()
        await transport.close()
        with pytest.raises(CloudError):
            await transport.publish(work(post.topic), b"{}")

    # ---- what rides along --------------------------------------------------------------------------

    async def test_handler_speaks_as_its_service_for_the_callers_request(self, post: Post) -> None:
        await post.office("h1")
        target = await post.target()
        with bind(request_id="req-1", server="s-1", service="conductor", host="elsewhere"):
            seen = await target.call("context", deadline_s=10)
        assert seen == {"service": "post-office", "host": "h1", "request_id": "req-1"}
        assert await target.call("context", deadline_s=10) == {"service": "post-office", "host": "h1"}

    # ---- the transport alone -----------------------------------------------------------------------

    async def test_one_consumer_sees_messages_in_order(self, post: Post) -> None:
        transport = await post.transport()
        bodies = [b"%d" % n for n in range(200)]
        for body in bodies[:100]:
            await transport.publish(work(post.topic), body)
        seen: list[bytes] = []
        await transport.consume(work(post.topic), lambda delivery: seen.append(delivery.body), prefetch=1000)
        for body in bodies[100:]:
            await transport.publish(work(post.topic), body)
        await until(lambda: len(seen) == 200)
        assert seen == bodies

    async def test_unacknowledged_is_redelivered_and_says_so(self, post: Post) -> None:
        first, second = await post.transport(), await post.transport()
        held: list[Delivery] = []
        consumer = await first.consume(work(post.topic), held.append, prefetch=10)
        for n in range(3):
            await first.publish(work(post.topic), b"%d" % n)
        await until(lambda: len(held) == 3)
        assert not any(delivery.redelivered for delivery in held)
        await held[1].ack()
        await consumer.close()
        again: list[Delivery] = []
        await second.consume(work(post.topic), again.append, prefetch=10)
        # Twice is allowed, lost is not; what was acknowledged does not come back.
        await until(lambda: {delivery.body for delivery in again} == {b"0", b"2"})
        assert any(delivery.redelivered for delivery in again)
        await held[0].ack()  # too late: without effect

    async def test_cancelled_consumer_keeps_what_it_has(self, post: Post) -> None:
        first, second = await post.transport(), await post.transport()
        held: list[Delivery] = []
        consumer = await first.consume(work(post.topic), held.append, prefetch=10)
        await first.publish(work(post.topic), b"mine")
        await until(lambda: len(held) == 1)
        await consumer.cancel()
        await first.publish(work(post.topic), b"yours")
        other: list[Delivery] = []
        await second.consume(work(post.topic), other.append, prefetch=10)
        await until(lambda: len(other) == 1)
        await held[0].ack()
        await consumer.close()
        await asyncio.sleep(0.1)
        assert [delivery.body for delivery in other] == [b"yours"]

    async def test_message_past_its_time_is_not_delivered(self, post: Post) -> None:
        transport = await post.transport()
        await transport.publish(work(post.topic), b"perishable", ttl_s=0.05)
        await transport.publish(work(post.topic), b"lasting")
        await asyncio.sleep(0.3)
        seen: list[bytes] = []
        await transport.consume(work(post.topic), lambda delivery: seen.append(delivery.body), prefetch=10)
        await until(lambda: bool(seen))
        await asyncio.sleep(0.1)
        assert seen == [b"lasting"]

    async def test_reply_to_nobody_is_dropped(self, post: Post) -> None:
        transport = await post.transport()
        await transport.publish(replies(f"reply_{IDS.uuid()}"), b"anybody?")

    async def test_depths_show_what_waits_and_what_is_in_hand(self, post: Post) -> None:
        transport = await post.transport()
        held: list[Delivery] = []
        await transport.consume(work(post.topic), held.append, prefetch=2)
        for n in range(5):
            await transport.publish(work(post.topic), b"%d" % n)
        await until(lambda: len(held) == 2)
        await asyncio.sleep(0.1)
        depth = (await transport.depths())[post.topic]
        assert (depth.waiting, depth.unacked, depth.consumers) == (3, 2, 1)
