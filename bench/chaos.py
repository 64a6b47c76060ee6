"""A thousand servers are created and deleted while a service dies every second.

    python bench/chaos.py [--servers 1000] [--seed 1] [--every 1] [--quiet-within 30] [--json FILE]

Two apis, two conductors, two schedulers and four hosts as processes on RabbitMQ and PostgreSQL. One of them at random
is killed -9 every second until all boots (then: all deletes) are over, and started again; one that was killed before it
was up has no further turn until it is, for starting takes a second of a processor's time. The broker and the database
are killed once while servers are created, the broker once more while they are deleted. Users repeat what was not
answered, under an Idempotency-Key. "Quiet" is how long after the last kill no task was live and all was in order, by
the database and by what every agent shows of its guests.

Fails, and says why, unless each request made one server, all of them are ACTIVE (once deleted: gone), none is in ERROR,
nothing is stuck, leaked, doubled, lost or odd, and quiet came within 30 s of the last kill.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
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

from kilonova.conductor.invariants import HARMS

OVER_S = 1200.0
"""Seconds after which boots or deletes that are not over under fire count as never over."""

TOLD = 15
"""Wrongs of a phase that are told one by one."""


@dataclass
class Phase:
    """What one phase showed."""

    name: str
    servers: int
    took_s: float
    kills: int
    look: Look
    wrongs: list[str]

    def line(self) -> dict[str, Any]:
        """One line of the table."""
        return {
            "phase": self.name,
            "servers": self.servers,
            "took_s": round(self.took_s, 1),
            "kills": self.kills,
            "active": len(self.look.active),
            "error": len(self.look.error),
            **{harm: len(getattr(self.look, harm)) for harm in HARMS},
            "quiet_after_s": self.look.quiet_after_s,
        }


def run(root: Path, servers: int, seed: int, *, every_s: float, quiet_within_s: float) -> list[Phase]:
    """Both phases: create, delete."""
    broker = RabbitMQ(root / "rabbit")
    with running(PostgreSQL) as database:
        broker.start()
        cloud = Deployment(root / "cloud", database=database.create("chaos"), transport=broker.url(), config=CONFIG)
        chaos = Chaos(cloud, free_port())
        phases: list[Phase] = []

        def again(server: RabbitMQ | DatabaseServer) -> None:
            server.kill()
            server.start()

        def close(name: str, fire: Fire, began: float, ids: list[str], wanted: list[str]) -> None:
            look = chaos.settle(fire.last_kill)
            wrongs = look.wrongs(wanted, quiet_within_s=quiet_within_s)
            if len(set(ids)) != servers:
                wrongs.append(f"{servers} requests made {len(set(ids))} servers")
            phases.append(Phase(name, len(set(ids)), time.monotonic() - began, fire.kills, look, wrongs))
            _tell(look, cloud)

        try:
            chaos.start()
            began = time.monotonic()
            with Fire(cloud, seed, every_s, [(5, lambda: again(broker)), (12, lambda: again(database))]) as fire:
                ids = chaos.create(servers)
                chaos.until_done(fire, within_s=OVER_S)
            close("create", fire, began, ids, wanted=ids)
            began = time.monotonic()
            with Fire(cloud, seed + 1, every_s, [(5, lambda: again(broker))]) as fire:
                chaos.delete(ids)
                chaos.until_done(fire, within_s=OVER_S)
            close("delete", fire, began, ids, wanted=[])
            return phases
        finally:
            cloud.stop()
            broker.stop()


def _tell(look: Look, cloud: Deployment) -> None:
    if look.error:
        faults = cloud.client().compute("GET", "/servers/detail?status=ERROR&limit=5").json()["servers"]
        for server in faults:
            print(server["id"], server.get("fault"))


def main() -> int:
    """Do it, print the table, write the JSON; 1 if anything was not as it was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two kills")
    parser.add_argument("--quiet-within", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        phases = run(
            Path(directory),
            arguments.servers,
            arguments.seed,
            every_s=arguments.every,
            quiet_within_s=arguments.quiet_within,
        )
    lines = [phase.line() for phase in phases]
    table = Table(title="chaos", title_justify="left")
    for column in lines[0]:
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=2) + "\n")
    for phase in phases:
        for what in phase.wrongs[:TOLD]:
            print(f"{phase.name}: {what}")
        if len(phase.wrongs) > TOLD:
            print(f"{phase.name}: and {len(phase.wrongs) - TOLD} more")
    return int(any(phase.wrongs for phase in phases))


if __name__ == "__main__":
    sys.exit(main())
