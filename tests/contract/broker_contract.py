"""What a transport over a server of its own must carry besides: that server may die."""

import asyncio
from collections import Counter
from typing import ClassVar, Protocol

from post_office import CLOCK, IDS, TransportFactory, until
from transport_contract import TransportContract

from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer


class Broker(Protocol):
    """A server that a test can kill."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


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
        await asyncio.sleep(0)


class BrokerContract(TransportContract):
    """What a transport over a server of its own carries besides. Its test module supplies the fixture `broker`, too."""

    async def test_every_cast_has_one_effect_though_the_broker_is_killed_in_the_middle(
        self, broker: Broker, transport_factory: TransportFactory
    ) -> None:
        ledger = Ledger()
        there, here = await transport_factory(), await transport_factory()
        server = RpcServer(there, protocol=NoteAPI, endpoint=ledger, host="h1", clock=CLOCK)
        await server.start()
        client = RpcClient(here, clock=CLOCK, ids=IDS)
        await client.start()
        target = client.target_of(NoteAPI)
        gate = asyncio.Semaphore(200)

        async def cast(number: int) -> None:
            async with gate:
                await target.cast("note", number=number)

        casts = [asyncio.create_task(cast(number)) for number in range(10_000)]
        await until(lambda: len(ledger.told) > 2_000, within_s=60)
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(broker.start)
        await asyncio.gather(*casts)
        await until(lambda: len(ledger.told) == 10_000, within_s=60)
        await asyncio.sleep(0.5)
        assert set(ledger.told.values()) == {1}, [n for n, times in ledger.told.items() if times > 1][:10]
        # Calls work again, with the same reply queue.
        await target.call("note", number=-1, deadline_s=20)
        await client.stop()
        await server.stop(0)
