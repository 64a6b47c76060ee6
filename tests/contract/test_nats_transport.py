"""NATS under the contract of all transports; and what happens when it is killed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar, Protocol

import pytest
from tests.support.brokers import Nats
from transport_contract import CLOCK, IDS, TransportContract, TransportFactory, post, until

from kilonova.model.errors import Unavailable
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
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


class TestNatsTransport(TransportContract):
    """All of the contract, on NATS with JetStream."""


class NoteAPI(Protocol):
    """A conversation of one method."""

    topic: ClassVar[str] = "ledger"
    version: ClassVar[str] = "1.0"
    quiet: ClassVar[frozenset[str]] = frozenset({"note"})

    async def note(self, number: int) -> None: ...


class Ledger(NoteAPI):
    """Remembers what it was told, and how often."""

    def __init__(self) -> None:
        self.told: Counter[int] = Counter()

    async def note(self, number: int) -> None:
        self.told[number] += 1


async def test_every_cast_has_one_effect_though_the_broker_is_killed_in_the_middle(
    server: Nats, transport_factory: TransportFactory
) -> None:
    ledger = Ledger()
    there, here = await transport_factory(), await transport_factory()
    worker = RpcServer(there, protocol=NoteAPI, endpoint=ledger, host="h1", clock=CLOCK)
    await worker.start()
    client = RpcClient(here, clock=CLOCK, ids=IDS)
    await client.start()
    target = client.target_of(NoteAPI)
    gate = asyncio.Semaphore(200)

    async def cast(number: int) -> None:
        async with gate:
            await target.cast("note", number=number)

    casts = [asyncio.create_task(cast(number)) for number in range(10_000)]
    await until(lambda: len(ledger.told) > 2_000, within_s=60)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.start)
    await asyncio.gather(*casts)
    await until(lambda: len(ledger.told) == 10_000, within_s=60)
    await asyncio.sleep(0.5)
    assert set(ledger.told.values()) == {1}
    await target.call("note", number=-1, deadline_s=20)
    await client.stop()
    await worker.stop(0)


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
