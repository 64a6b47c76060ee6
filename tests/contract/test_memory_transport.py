"""The in-process transport under the contract of all transports, and what only it can show."""

import asyncio
import json

import pytest
from post_office import CLOCK, Parcel, Post, TransportFactory, post, until
from transport_contract import TransportContract

from kilonova.rpc.transports.base import Address, Kind
from kilonova.rpc.transports.memory import MemoryBroker, MemoryTransport

__all__ = ["post"]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(CLOCK)


@pytest.fixture
def transport_factory(broker: MemoryBroker) -> TransportFactory:
    async def another() -> MemoryTransport:
        transport = MemoryTransport(CLOCK, broker=broker)
        await transport.open()
        return transport

    return another


class TestMemoryTransport(TransportContract):
    """All of the contract, and the tap."""

    async def test_messages_are_plain_json_with_object_versions(self, post: Post, broker: MemoryBroker) -> None:
        seen: list[tuple[Address, bytes]] = []
        untap = MemoryTransport(CLOCK, broker=broker).tap(lambda address, body: seen.append((address, body)))
        await post.office("h1")
        target = await post.target()
        await target.call("weigh", parcel=Parcel(weight=7), deadline_s=10, returns=Parcel)
        untap()
        await target.call("weigh", parcel=Parcel(weight=8), deadline_s=10, returns=Parcel)

        (asked_at, asked), (answered_at, answered) = [(address, json.loads(body)) for address, body in seen]
        assert (asked_at.kind, asked_at.name) == (Kind.WORK, post.topic)
        assert (answered_at.kind, answered_at.name) == (Kind.REPLY, target.client.reply_queue)
        assert answered_at.name.startswith("reply_")
        assert asked["method"] == "weigh"
        assert asked["version"] == "2.5"
        assert asked["args"] == {"parcel": {"version": "1.3", "weight": 7, "labels": []}}
        assert asked["reply_to"] == answered_at.name
        assert asked["msg_id"] == answered["msg_id"]
        assert asked["remaining_s"] == 10
        assert asked["deadline"].endswith("Z")
        assert answered["result"] == {"version": "1.3", "weight": 7, "labels": ["h1"]}
        assert answered["error"] is None

    async def test_captured_messages_replayed_have_no_second_effect(self, post: Post, broker: MemoryBroker) -> None:
        seen: list[tuple[Address, bytes]] = []
        untap = MemoryTransport(CLOCK, broker=broker).tap(lambda address, body: seen.append((address, body)))
        office, _ = await post.office("h1")
        target = await post.target()
        await target.call("note", text="called", deadline_s=10)
        await target.cast("note", text="cast")
        await target.fanout("note", text="to all")
        await target.call("note", text="last", deadline_s=10)
        untap()
        before = list(office.notes)
        assert sorted(before) == ["called", "cast", "last", "to all"]
        for address, body in seen:
            broker.publish(address, body, None)
        await target.call("note", text="after the replay", deadline_s=10)
        assert office.notes == [*before, "after the replay"]

    async def test_a_thousand_calls_share_one_reply_queue(self, post: Post, broker: MemoryBroker) -> None:
        target = await post.target("nobody")
        calls = [asyncio.create_task(target.call("note", text=str(n), deadline_s=60)) for n in range(1000)]
        await until(lambda: len(target.client.inspect()) == 1000)
        assert list(broker.replies) == [target.client.reply_queue]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert target.client.inspect() == []
