"""What a remote call costs: calls a second, how long the slow ones take, and CPU time for each.

Caller and worker share this process, as in ``kilonova up``; so the CPU time is that of both ends.

    python bench/rpc.py [--seconds 3] [--json FILE]

``heartbeat`` is a quiet method; ``boot`` writes its three log lines a call.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import uvloop

from kilonova.base import log
from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.base.metrics import new_registry
from kilonova.rpc.client import RpcClient, Target
from kilonova.rpc.metrics import RpcMetrics
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.amqp import AmqpTransport
from kilonova.rpc.transports.base import Transport
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpc.transports.nats import NatsTransport

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.brokers import Nats, RabbitMQ

TRANSPORTS = ("memory", "amqp", "nats")
IN_FLIGHT = (1, 64)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """About as large as the answer to a heartbeat."""

    version: str = "1.0"
    known: bool


class BenchAPI(Protocol):
    """Two methods that differ in nothing but their log lines."""

    topic: ClassVar[str] = "bench"
    version: ClassVar[str] = "1.0"
    quiet: ClassVar[frozenset[str]] = frozenset({"heartbeat"})

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> Answer: ...

    async def boot(self, service: str, host: str, *, agent_id: str) -> Answer: ...


class Endpoint:
    """Answers at once."""

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> Answer:
        return Answer(known=True)

    async def boot(self, service: str, host: str, *, agent_id: str) -> Answer:
        return Answer(known=True)


async def measure(target: Target, method: str, in_flight: int, seconds: float) -> dict[str, Any]:
    """Keep `in_flight` calls outstanding for `seconds`."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < end:
            await target.call(
                method, service="compute", host="host-0001", agent_id="a" * 36, deadline_s=20, returns=Answer
            )
            times.append(time.perf_counter() - started)

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    times.sort()
    return {
        "calls_per_s": round(len(times) / took),
        "p50_us": round(times[len(times) // 2] * 1e6),
        "p99_us": round(times[int(len(times) * 0.99)] * 1e6),
        "cpu_us_per_call": round(cpu / len(times) * 1e6, 1),
    }


@contextlib.contextmanager
def broker_of(name: str, root: Path) -> Iterator[Callable[[], Transport]]:
    """How to make a transport of this name, with a broker of its own behind it."""
    ids = SystemIds()
    if name == "memory":
        yield lambda: MemoryTransport(SystemClock())
        return
    broker = RabbitMQ(root / "rabbit") if name == "amqp" else Nats(root / "nats")
    broker.start()
    try:
        if isinstance(broker, RabbitMQ):
            url = broker.url()
            yield lambda: AmqpTransport(url, ids)
        else:
            nats_url = broker.url
            yield lambda: NatsTransport(nats_url, ids)
    finally:
        broker.stop()


async def run(seconds: float, names: Sequence[str], root: Path) -> list[dict[str, Any]]:
    """These transports, both methods, each number of calls in flight. A broker's own CPU time is not in the figures."""
    rows = []
    for name in names:
        with broker_of(name, root) as make:
            rows += await run_one(name, make, seconds)
    return rows


async def run_one(name: str, make: Callable[[], Transport], seconds: float) -> list[dict[str, Any]]:
    """One transport."""
    clock, rows = SystemClock(), []
    for transport in (make(),):
        await transport.open()
        metrics = RpcMetrics(new_registry())
        server = RpcServer(transport, protocol=BenchAPI, endpoint=Endpoint(), host="h", clock=clock, metrics=metrics)
        client = RpcClient(transport, clock=clock, ids=SystemIds(), metrics=metrics)
        await server.start()
        await client.start()
        target = client.target_of(BenchAPI)
        for method in ("heartbeat", "boot"):
            for in_flight in IN_FLIGHT:
                await measure(target, method, in_flight, seconds / 10)
                figures = await measure(target, method, in_flight, seconds)
                rows.append({"transport": name, "method": method, "in_flight": in_flight, **figures})
        await server.stop()
        await client.stop()
        await transport.close()
    return rows


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs:
        log.set_up(Path(logs) / "logs")
        rows = uvloop.run(run(arguments.seconds, arguments.transports, Path(logs)))
    header = "{:10} {:10} {:>9} {:>9} {:>8} {:>8} {:>12}"
    print(header.format("transport", "method", "in flight", "calls/s", "p50 µs", "p99 µs", "CPU µs/call"))
    for row in rows:
        print(header.format(*row.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rpc": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
