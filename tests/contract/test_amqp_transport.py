"""RabbitMQ under the contract of all transports; and what happens when it is killed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from broker_contract import BrokerContract
from post_office import IDS, Post, PostOffice, TransportFactory, post, until
from tests.support.brokers import RabbitMQ

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


def close_connection(rabbit: RabbitMQ, purpose: str) -> None:
    """The broker closes the connections that have this purpose."""
    for line in rabbit.control("list_connections", "pid", "client_properties").splitlines():
        if purpose in line:
            rabbit.control("close_connection", line.split("\t")[0], "by a test")


async def test_a_worker_hears_again_when_its_queue_was_removed(
    rabbit: RabbitMQ, transport_factory: TransportFactory
) -> None:
    transport = await transport_factory()
    topic = f"removed-{IDS.uuid()[:8]}"
    seen: list[bytes] = []
    await transport.consume(work(topic), lambda delivery: seen.append(delivery.body), prefetch=10)
    await transport.publish(work(topic), b"before")
    await until(lambda: seen == [b"before"])
    await asyncio.to_thread(rabbit.control, "delete_queue", topic)
    await until(lambda: transport.reconnects == 1)
    await transport.publish(work(topic), b"after")
    await until(lambda: seen == [b"before", b"after"])


async def test_a_queue_that_was_removed_does_not_hide_the_depths_of_others(
    rabbit: RabbitMQ, transport_factory: TransportFactory
) -> None:
    transport = await transport_factory()
    topic = f"depths-{IDS.uuid()[:8]}"
    for host in ("a", "b", "c"):
        await transport.publish(work(topic, host), b"x")
    await asyncio.to_thread(rabbit.control, "delete_queue", f"{topic}.b")
    for _ in range(2):
        assert {name: depth.waiting for name, depth in (await transport.depths()).items()} == {
            f"{topic}.a": 1,
            f"{topic}.c": 1,
        }
    await transport.publish(work(topic, "b"), b"made anew")
    assert (await transport.depths())[f"{topic}.b"].waiting == 1


async def test_a_publication_that_is_given_up_disturbs_no_other(transport_factory: TransportFactory) -> None:
    transport = await transport_factory()
    topic = f"given-up-{IDS.uuid()[:8]}"
    for number in range(40):  # each makes its queue first, and is given up at another moment of it
        publication = asyncio.create_task(transport.publish(work(topic, str(number)), b"x"))
        await asyncio.sleep(0.0002 * (number % 10))
        publication.cancel()
        await asyncio.gather(publication, return_exceptions=True)
    await transport.publish(work(topic), b"x")
    await asyncio.sleep(0.3)
    assert transport.reconnects == 0


async def test_a_consumer_closed_while_the_connection_is_made_anew_stays_closed(
    rabbit: RabbitMQ, transport_factory: TransportFactory
) -> None:
    transport = await transport_factory()
    topic = f"closed-{IDS.uuid()[:8]}"
    assert isinstance(transport, AmqpTransport)
    consumers = [await transport.consume(work(topic, str(n)), lambda _: None, prefetch=10) for n in range(100)]
    link = transport._link
    assert link is not None
    await link.sending.close()
    while transport._link is link:
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)  # enough to connect, and to attach some of them
    for consumer in consumers[50:]:
        await consumer.close()
    await until(lambda: transport.reconnects == 1)
    await asyncio.sleep(0.2)
    left = await asyncio.to_thread(rabbit.control, "list_consumers", "queue_name")
    assert sum(line.startswith(f"{topic}.") for line in left.splitlines()) == 50


@pytest.mark.parametrize("purpose", ["kilonova sends", "kilonova takes"])
async def test_no_message_stays_in_hand_when_one_of_the_two_connections_is_lost(
    rabbit: RabbitMQ, post: Post, purpose: str
) -> None:
    worker = await post.transport()
    server = await post.serve(PostOffice("h1"), worker)
    target = await post.target()
    outcomes: list[object] = []
    ends = False

    async def caller() -> None:
        while not ends:
            outcomes.append((await asyncio.gather(target.cast("note", text="x"), return_exceptions=True))[0])

    callers = [asyncio.create_task(caller()) for _ in range(60)]
    for number in range(2):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(close_connection, rabbit, purpose)
        await until(lambda number=number: worker.reconnects > number)
    ends = True
    await asyncio.gather(*callers)
    assert set(outcomes) == {None}
    await until(lambda: server.inspect() == [])
