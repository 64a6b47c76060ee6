"""NATS under the contract of all transports; and what happens when it is killed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from broker_contract import BrokerContract
from post_office import IDS, TransportFactory, post, until
from tests.support.brokers import Nats

from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.base import Delivery, work
from kilonova.rpc.transports.nats import NatsOptions, NatsTransport, _WorkConsumer

__all__ = ["post"]

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    broker = Nats(tmp_path_factory.mktemp("nats"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(server: Nats) -> Nats:
    return server


@pytest.fixture
async def transport_factory(server: Nats) -> AsyncIterator[TransportFactory]:
    made: list[NatsTransport] = []

    async def another() -> NatsTransport:
        transport = NatsTransport(server.url, IDS, NatsOptions(publish_timeout_s=30))
        await transport.open()
        made.append(transport)
        return transport

    yield another
    for transport in made:
        await transport.close()


class TestNatsTransport(BrokerContract):
    """All of the contract, on NATS with JetStream."""


async def test_work_of_a_process_that_fell_silent_goes_to_another(server: Nats) -> None:
    silent = NatsTransport(server.url, IDS, NatsOptions(silence_s=1))
    heir = NatsTransport(server.url, IDS, NatsOptions(silence_s=1))
    await silent.open()
    await heir.open()
    topic = f"silent-{IDS.uuid()[:8]}"
    held: list[Delivery] = []
    consumer = await silent.consume(work(topic), held.append, prefetch=5)
    await heir.publish(work(topic), b"x")
    await until(lambda: bool(held))
    await asyncio.sleep(2.5)  # as long as its process lives it says that it works on it
    got: list[Delivery] = []
    await heir.consume(work(topic), got.append, prefetch=5)
    await asyncio.sleep(0.3)
    assert not got
    assert isinstance(consumer, _WorkConsumer)
    for loop in consumer._loops:  # as a process that was killed
        loop.cancel()
    await until(lambda: bool(got), within_s=10)
    assert (got[0].body, got[0].redelivered) == (b"x", True)
    await got[0].ack()
    await silent.close()
    await heir.close()


async def test_a_server_that_cannot_be_used_is_said_without_secrets(server: Nats) -> None:
    wrong = NatsTransport(f"nats://kilonova:not-this@127.0.0.1:{server.port}", IDS, NatsOptions(connect_timeout_s=2))
    with pytest.raises(Unavailable) as caught:
        await wrong.open()
    assert "not-this" not in caught.value.message and str(server.port) in caught.value.message
