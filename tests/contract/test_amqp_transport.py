"""RabbitMQ under the contract of all transports; and what happens when it is killed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.brokers import RabbitMQ
from transport_contract import IDS, BrokerContract, Post, TransportFactory, post, until

from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.amqp import AmqpOptions, AmqpTransport
from kilonova.rpc.transports.base import Delivery, fanout, work

__all__ = ["post"]

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbit"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(rabbit: RabbitMQ) -> RabbitMQ:
    return rabbit


@pytest.fixture
async def transport_factory(rabbit: RabbitMQ) -> AsyncIterator[TransportFactory]:
    made: list[AmqpTransport] = []

    async def another() -> AmqpTransport:
        transport = AmqpTransport(rabbit.url(), IDS, AmqpOptions(topic_queues="classic"))
        await transport.open()
        made.append(transport)
        return transport

    yield another
    for transport in made:
        await transport.close()


class TestAmqpTransport(BrokerContract):
    """All of the contract, on RabbitMQ."""


async def test_a_call_waits_for_the_broker_to_come_back(rabbit: RabbitMQ, post: Post) -> None:
    await post.office("h1")
    target = await post.target()
    assert await target.call("note", text="before", deadline_s=10) == "h1"
    await asyncio.to_thread(rabbit.kill)
    call = asyncio.create_task(target.call("note", text="meanwhile", deadline_s=60))
    await asyncio.sleep(0.2)
    assert not call.done()
    await asyncio.to_thread(rabbit.start)
    assert await call == "h1"


async def test_a_broker_that_stays_away_is_said_within_the_time_given(rabbit: RabbitMQ) -> None:
    transport = AmqpTransport(rabbit.url(), IDS, AmqpOptions(publish_timeout_s=0.5))
    await transport.open()
    await asyncio.to_thread(rabbit.kill)
    try:
        with pytest.raises(Unavailable) as caught:
            await transport.publish(work("nobody"), b"x")
        assert rabbit.password not in caught.value.message
        assert str(rabbit.port) in caught.value.message
    finally:
        await asyncio.to_thread(rabbit.start)
        await transport.close()


@pytest.mark.parametrize("user", ["kilonova:wrong", "nobody:nothing"])
async def test_wrong_credentials_are_refused_and_not_repeated_in_words(rabbit: RabbitMQ, user: str) -> None:
    transport = AmqpTransport(f"amqp://{user}@127.0.0.1:{rabbit.port}/", IDS)
    with pytest.raises(Unavailable) as caught:
        await transport.open()
    assert user.partition(":")[2] not in caught.value.message


async def test_a_shared_queue_is_a_quorum_queue_unless_told_otherwise(rabbit: RabbitMQ) -> None:
    transport = AmqpTransport(rabbit.url(), IDS)
    await transport.open()
    topic = f"quorum-{IDS.uuid()[:8]}"
    seen: list[Delivery] = []
    await transport.consume(work(topic), seen.append, prefetch=10)
    await transport.publish(work(topic), b"x")
    await until(lambda: bool(seen))
    await seen[0].ack()
    kinds = rabbit.control("list_queues", "name", "type")
    assert f"{topic}\tquorum" in kinds
    await transport.close()


async def test_two_connections_and_no_queue_of_a_process_that_is_gone(
    rabbit: RabbitMQ, transport_factory: TransportFactory
) -> None:
    transport = await transport_factory()
    topic = f"gone-{IDS.uuid()[:8]}"
    for number in range(20):
        await transport.consume(work(topic, f"h{number}"), lambda _: None, prefetch=10)
        await transport.consume(fanout(topic), lambda _: None, prefetch=10)
    await asyncio.gather(*(transport.publish(work(topic, f"h{n % 20}"), b"x") for n in range(500)))
    names = rabbit.control("list_connections", "client_properties")
    assert names.count("kilonova sends") == names.count("kilonova takes") == 1
    await transport.close()
    left = rabbit.control("list_queues", "name")
    assert f"fanout.{topic}" not in left
    assert f"{topic}.h1" in left, "work waits for its host"
