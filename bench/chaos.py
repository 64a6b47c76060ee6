"""A thousand servers are created and deleted while a service dies every second.

    python bench/chaos.py [--servers 1000] [--seed 1] [--json FILE]

Two apis, two conductors, two schedulers and four hosts as processes on RabbitMQ and PostgreSQL. One of them at random
is killed -9 every second and started again; the broker and the database are killed once while servers are created, the
broker once more while they are deleted. Users repeat what was not answered, under an Idempotency-Key. "Quiet" is how
long after the last kill no task was live and all was in order.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from rich.console import Console
from rich.table import Table
from tests.support.brokers import RabbitMQ
from tests.support.chaos import CONFIG, Chaos, Fire, Look
from tests.support.databases import DatabaseServer, PostgreSQL, running
from tests.support.deployment import Deployment
from tests.support.running import free_port


def report(phase: str, fire: Fire, look: Look, took_s: float, servers: int) -> dict[str, Any]:
    """One line of the table."""
    return {
        "phase": phase,
        "servers": servers,
        "took_s": round(took_s, 1),
        "kills": fire.kills,
        "active": look.active,
        "error": look.error,
        "stuck": len(look.stuck),
        "leaked": len(look.leaked),
        "doubled": len(look.doubled),
        "quiet_after_s": look.quiet_after_s,
    }


def run(root: Path, servers: int, seed: int) -> list[dict[str, Any]]:
    """Both phases: create, delete."""
    broker = RabbitMQ(root / "rabbit")
    with running(PostgreSQL) as database:
        broker.start()
        cloud = Deployment(root / "cloud", database=database.create("chaos"), transport=broker.url(), config=CONFIG)
        chaos = Chaos(cloud, free_port())

        def again(server: RabbitMQ | DatabaseServer) -> None:
            server.kill()
            server.start()

        try:
            chaos.start()
            began = time.monotonic()
            with Fire(cloud, seed, 1.0, [(5, lambda: again(broker)), (12, lambda: again(database))]) as fire:
                ids = chaos.create(servers)
            look = chaos.settle(fire.last_kill)
            lines = [report("create", fire, look, time.monotonic() - began, len(set(ids)))]
            _tell(look, cloud)
            began = time.monotonic()
            with Fire(cloud, seed + 1, 1.0, [(5, lambda: again(broker))]) as fire:
                chaos.delete(ids)
            look = chaos.settle(fire.last_kill)
            lines.append(report("delete", fire, look, time.monotonic() - began, len(set(ids))))
            _tell(look, cloud)
            return lines
        finally:
            cloud.stop()
            broker.stop()


def _tell(look: Look, cloud: Deployment) -> None:
    for what in (*look.stuck[:5], *look.leaked[:5], *look.doubled[:5]):
        print(what)
    if look.error:
        faults = cloud.client().compute("GET", "/servers/detail?status=ERROR&limit=5").json()["servers"]
        for server in faults:
            print(server["id"], server.get("fault"))


def main() -> int:
    """Do it, print the table, write the JSON; 1 if anything was not in order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        lines = run(Path(directory), arguments.servers, arguments.seed)
    table = Table(title="chaos", title_justify="left")
    for column in lines[0]:
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=2) + "\n")
    return int(any(line[what] for line in lines for what in ("stuck", "leaked", "doubled")))


if __name__ == "__main__":
    sys.exit(main())
