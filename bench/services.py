"""What many processes carry: boots a second on each broker and database, and what the heartbeats of many hosts cost.

    python bench/services.py [--servers 200] [--agents 500,2000] [--json FILE]

Boots are end to end: HTTP, durable commits, the broker, simulated hosts. CPU is that of all processes of the cloud
together; the broker's and the database's own are not in it. With more conductors and schedulers the second figure
shows what they add.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from cloud import cpu_s, storm
from rich.console import Console
from rich.table import Table
from tests.support.brokers import RabbitMQ
from tests.support.databases import DatabaseServer, MariaDB, PostgreSQL, running
from tests.support.deployment import Deployment
from tests.support.running import RunningCloud

CONFIG = """
[compute]
virt = fake
[quota]
instances = 100000
cores = 100000
ram = 100000000
port = 100000
[network]
flat_cidr = 10.77.0.0/16
[fake]
vcpus = 1000
memory_mib = 4000000
disk_gib = 100000
[filter_scheduler]
max_instances_per_host = 100000
"""


JOIN_S = 900.0
"""How long a fleet may take to join: each host is two services with a few queues each, made one after the other."""


@contextlib.contextmanager
def deployment(kind: type[DatabaseServer], root: Path, *, config: str = "") -> Iterator[Deployment]:
    """A cloud on RabbitMQ and a database, without processes yet."""
    broker = RabbitMQ(root / "rabbit")
    with running(kind) as server:
        cloud = Deployment(
            root / "cloud", database=server.create("bench"), transport=broker.url(), config=CONFIG + config
        )
        try:
            broker.start()
            cloud.migrate()
            yield cloud
        finally:
            cloud.stop()
            broker.stop()


def total_cpu_s(cloud: Deployment) -> float:
    """CPU seconds of all processes of the cloud."""
    return sum(cpu_s(service.process.pid) for service in cloud.services.values())


def boots(kind: type[DatabaseServer], servers: int, control: int, spawn_s: float = 0.0) -> dict[str, Any]:
    """A storm on one API, with `control` conductors and schedulers.

    Args:
        spawn_s: seconds that a guest takes to start. With more than none, each conductor has ten tasks in hand at most:
            then it is conductors that are short, as on a large cloud, and not this machine's processors.
    """
    config = f"[fake]\nspawn_delay_s = {spawn_s}\n[tasks]\nmax_running = 10\n" if spawn_s else ""
    with tempfile.TemporaryDirectory() as directory, deployment(kind, Path(directory), config=config) as cloud:
        cloud.start("ctl1", "api")
        for number in range(1, control + 1):
            cloud.start(f"ctl{number}", "conductor", wait=False)
            cloud.start(f"ctl{number}", "scheduler", wait=False)
        cloud.start("sim", "compute", "network", wait=False, config="[compute]\nsimulated_hosts = 20")
        for service in cloud.services.values():
            service.until_up()
        cloud.wait_for_hosts(20)
        client = cloud.client()
        image, flavor = client.upload_image("x", b"\0" * 65536), client.flavor()
        before = total_cpu_s(cloud)
        found = asyncio.run(storm(client, cloud.services["ctl1-api"].process.pid, image, flavor, servers))
        return {
            "broker": "RabbitMQ",
            "database": kind.__name__,
            "conductors": control,
            "guest_starts_in_s": spawn_s,
            "boots_per_s": round(found["boots_per_s"], 1),
            "deletes_per_s": round(found["deletes_per_s"], 1),
            "cpu_ms_boot_and_delete": round((total_cpu_s(cloud) - before) / servers * 1000, 1),
        }


def boots_in_one_process(servers: int) -> dict[str, Any]:
    """The same storm on ``kilonova up``."""
    with tempfile.TemporaryDirectory() as directory:
        cloud = RunningCloud(Path(directory), hosts=20, config=CONFIG)
        cloud.start()
        assert cloud.process is not None
        client = cloud.client()
        image, flavor = client.upload_image("x", b"\0" * 65536), client.flavor()
        before = cpu_s(cloud.process.pid)
        found = asyncio.run(storm(client, cloud.process.pid, image, flavor, servers))
        used = cpu_s(cloud.process.pid) - before
        cloud.stop()
        return {
            "broker": "memory",
            "database": "SQLite",
            "conductors": 1,
            "guest_starts_in_s": 0.0,
            "boots_per_s": round(found["boots_per_s"], 1),
            "deletes_per_s": round(found["deletes_per_s"], 1),
            "cpu_ms_boot_and_delete": round(used / servers * 1000, 1),
        }


def heartbeats(agents: int, seconds: float) -> dict[str, Any]:
    """`agents` simulated hosts with default intervals over RabbitMQ: what one control process uses."""
    with tempfile.TemporaryDirectory() as directory, deployment(PostgreSQL, Path(directory)) as cloud:
        cloud.start("ctl", "api", "conductor", "scheduler")
        began = time.perf_counter()
        per_process = 500
        for number in range(-(-agents // per_process)):
            count = min(per_process, agents - number * per_process)
            more = f"[compute]\nsimulated_hosts = {count}"
            cloud.start(f"sim{number}", "compute", "network", wait=False, config=more)
        for service in cloud.services.values():
            service.until_up(JOIN_S)
        cloud.wait_for_hosts(agents, timeout_s=JOIN_S)
        joined_s = time.perf_counter() - began
        control = cloud.services["ctl-api-conductor-scheduler"].process.pid
        before, began = cpu_s(control), time.perf_counter()
        time.sleep(seconds)
        used, took = cpu_s(control) - before, time.perf_counter() - began
        return {
            "agents": agents,
            "joined_in_s": round(joined_s),
            "control_cpu_percent": round(used / took * 100, 1),
            "messages_per_s": round(agents / 10 * 2, 1),
            "heartbeats_per_s": round(agents / 10, 1),
            "cpu_us_per_heartbeat": round(used / took / (agents / 10) * 1e6),
        }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=140).print(table)


def main() -> int:
    """Measure all, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--agents", default="500,2000")
    parser.add_argument("--seconds", type=float, default=30.0, help="of watching heartbeats")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    storms = [boots_in_one_process(arguments.servers)]
    for kind, control in ((PostgreSQL, 1), (PostgreSQL, 2), (MariaDB, 1), (MariaDB, 2)):
        storms.append(boots(kind, arguments.servers, control))
    storms += [boots(PostgreSQL, 100, control, spawn_s=1.0) for control in (1, 2, 3)]
    show("boots", storms)
    beats = [heartbeats(int(agents), arguments.seconds) for agents in arguments.agents.split(",")]
    show("heartbeats", beats)
    if arguments.json:
        arguments.json.write_text(json.dumps({"boots": storms, "heartbeats": beats}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
