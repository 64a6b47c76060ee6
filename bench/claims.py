"""Decisions with their claims: schedulers choose, and what they chose is claimed in the database.

    python bench/claims.py [--hosts 1000] [--seconds 5] [--json FILE]

A worker is a process with a scheduler of its own and sixteen builds under way: it asks for hosts (all default
filters), claims the best that still has room, and begins anew. "Lost" are choices whose every candidate was taken by
somebody else in between. At the end all that hosts say is used must be what was claimed.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from rich.console import Console
from rich.table import Table
from tests.support.databases import DatabaseServer, MariaDB, PostgreSQL, running

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import SystemIds
from kilonova.launch.plugins import build_scheduler
from kilonova.model.errors import ClaimLost, Unavailable
from kilonova.model.host import HostReport
from kilonova.model.request_spec import RequestSpec
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import allocations, hosts, services
from kilonova.store.transactions import Tx

UNDER_WAY = 16
"""Builds of one worker at the same time."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fill(store: Store, count: int) -> None:
    """`count` empty hosts of 64 CPUs."""

    def add(tx: Tx, first: int, last: int) -> None:
        for number in range(first, last):
            name = f"host-{number:06d}"
            report = HostReport(
                host=name,
                hypervisor_hostname=name,
                hypervisor_type="QEMU",
                hypervisor_version=8_000_000,
                supported_instances=(("x86_64", "qemu", "hvm"),),
                vcpus=64,
                memory_mib=262144,
                disk_gib=4000,
            )
            uuid = f"00000000-0000-4000-8000-{number:012d}"
            hosts.record_report(tx, report, uuid=uuid, at=NOW)
            services.register(tx, service="compute", host=name, agent_id=uuid, uuid=uuid, at=NOW)

    for first in range(0, count, 500):
        store.run_now(add, first, min(count, first + 500))


async def work(url: str, seconds: float) -> dict[str, Any]:
    """One worker's part."""
    store, ids = Store.open(url), SystemIds()
    scheduler = build_scheduler(Config(), store, SystemClock(), ids)
    await scheduler.start()
    claimed = lost = 0
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def build() -> None:
        nonlocal claimed, lost
        while time.perf_counter() < until:
            server_id = ids.uuid()
            spec = RequestSpec(server_ids=(server_id,), project_id="p", vcpus=1, memory_mib=512, root_gib=4)
            began = time.perf_counter()
            [choice] = await scheduler.select(spec)
            candidates = [(one.host_id, one.host) for one in choice.candidates]
            try:
                await store.run(
                    allocations.claim_first, server_id=server_id, candidates=candidates, amounts=spec.amounts()
                )
            except (ClaimLost, Unavailable):
                lost += 1
            else:
                claimed += 1
                times.append(time.perf_counter() - began)

    await asyncio.gather(*(build() for _ in range(UNDER_WAY)))
    await scheduler.stop()
    await store.close()
    use = resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    return {
        "claimed": claimed,
        "lost": lost,
        "cpu_s": use.ru_utime + use.ru_stime,
        "p99_s": times[len(times) * 99 // 100],
    }


def race(url: str, database: str, workers: int, count: int, seconds: float) -> dict[str, Any]:
    """`workers` processes on one database that is empty but for its schema."""
    store = Store.open(url, inline=True)
    migrations.upgrade(store.engine)
    fill(store, count)
    command = [sys.executable, __file__, "--work", "--seconds", str(seconds)]
    # The URL has a password in it: not for the list of processes.
    environment = {**os.environ, "KILONOVA_BENCH_DATABASE": url}
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(workers)]
    parts = [json.loads(racer.communicate()[0].splitlines()[-1]) for racer in racers]
    claimed = sum(part["claimed"] for part in parts)
    drift = store.run_now(allocations.drift)
    assert not drift, f"used is not what is claimed: {drift[:3]}"
    return {
        "database": database,
        "processes": workers,
        "hosts": count,
        "claims_per_s": round(claimed / seconds),
        "p99_ms": round(max(part["p99_s"] for part in parts) * 1e3, 1),
        "cpu_us_per_claim": round(sum(part["cpu_s"] for part in parts) / claimed * 1e6),
        "lost": sum(part["lost"] for part in parts),
        "double_booked": 0,
    }


def main() -> int:
    """Measure all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(asyncio.run(work(os.environ["KILONOVA_BENCH_DATABASE"], arguments.seconds))))
        return 0
    rows = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kinds: list[type[DatabaseServer]] = [PostgreSQL, MariaDB]
        servers = {kind.__name__: stack.enter_context(running(kind)) for kind in kinds}
        for workers in (1, 4):
            url = f"sqlite:///{directory / f'{workers}.sqlite'}"
            rows.append(race(url, "SQLite", workers, arguments.hosts, arguments.seconds))
            for name, server in servers.items():
                rows.append(race(server.create(f"claims{workers}"), name, workers, arguments.hosts, arguments.seconds))
    table = Table(title="decisions with claims", title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
