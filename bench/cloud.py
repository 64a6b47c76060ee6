"""What one process carries: start-up, memory, API latency and CPU, boots and deletes per second.

Run by ``make bench``. Prints a table and writes JSON. Everything is end to end: HTTP to the process,
durable commits, the fake driver at the other end. CPU is that of the server process, from /proc.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.running import Client, RunningCloud

TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def start_up(state: Path) -> dict[str, float]:
    """Seconds from start to the first 200, cold (new database) and warm, and memory when idle."""
    found: dict[str, float] = {}
    for name in ("cold", "warm"):
        cloud = RunningCloud(state)
        began = time.perf_counter()
        _start_until_first_answer(cloud)
        found[f"start_{name}_s"] = time.perf_counter() - began
        _until_ready(cloud)
        found[f"ready_{name}_s"] = time.perf_counter() - began
        time.sleep(2)
        assert cloud.process is not None
        found["idle_rss_mb"] = rss_mb(cloud.process.pid)
        before = cpu_s(cloud.process.pid)
        time.sleep(5)
        found["idle_cpu_percent"] = (cpu_s(cloud.process.pid) - before) / 5 * 100
        cloud.stop()
    return found


def _start_until_first_answer(cloud: RunningCloud) -> None:
    cloud.start(wait=False)
    while True:
        try:
            if httpx.get(f"{cloud.url}/", timeout=1).status_code in (200, 300):
                return
        except httpx.TransportError:
            time.sleep(0.005)


def _until_ready(cloud: RunningCloud) -> None:
    while httpx.get(f"{cloud.url}/readyz", timeout=2).status_code != 200:
        time.sleep(0.005)


def latency(client: Client, pid: int, name: str, path: str, n: int, **arguments: Any) -> dict[str, Any]:
    """One kind of request, one after the other: milliseconds and the server's CPU µs for each."""
    method = arguments.pop("method", "GET")
    for _ in range(5):
        client.http.request(method, path, **arguments).raise_for_status()
    times = []
    before = cpu_s(pid)
    for _ in range(n):
        began = time.perf_counter()
        client.http.request(method, path, **arguments)
        times.append((time.perf_counter() - began) * 1000)
    used = cpu_s(pid) - before
    return {
        "name": name,
        "n": n,
        "p50_ms": statistics.median(times),
        "p99_ms": sorted(times)[int(len(times) * 0.99) - 1],
        "cpu_us": used / n * 1e6,
    }


async def storm(client: Client, pid: int, image_id: str, flavor_id: str, n: int) -> dict[str, float]:
    """Boot `n` servers and delete them, 16 requests at a time; per second, until the last is at rest."""
    headers = {"X-Auth-Token": client.token, "OpenStack-API-Version": "compute 2.96"}
    limit = httpx.Limits(max_connections=16)
    found: dict[str, float] = {}
    async with httpx.AsyncClient(
        base_url=str(client.http.base_url), headers=headers, timeout=120, limits=limit
    ) as http:
        gate = asyncio.Semaphore(16)

        async def create(number: int) -> str:
            async with gate:
                body = {
                    "server": {
                        "name": f"b{number}", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"
                    }
                }  # fmt: skip
                answer = await http.post("/compute/v2.1/servers", json=body)
                answer.raise_for_status()
                return str(answer.json()["server"]["id"])

        async def delete(server_id: str) -> None:
            async with gate:
                (await http.delete(f"/compute/v2.1/servers/{server_id}")).raise_for_status()

        async def count(query: str) -> int:
            answer = await http.get(f"/compute/v2.1/servers?{query}&limit=1000")
            return len(answer.json()["servers"])

        began, cpu = time.perf_counter(), cpu_s(pid)
        ids = await asyncio.gather(*(create(number) for number in range(n)))
        found["accepted_per_s"] = n / (time.perf_counter() - began)
        while await count("status=ACTIVE") < n:
            await asyncio.sleep(0.05)
        found["boots_per_s"] = n / (time.perf_counter() - began)
        found["boot_cpu_ms"] = (cpu_s(pid) - cpu) / n * 1000
        for entry in _lists(client, pid):
            found[f"{entry['name']}: p50 ms"] = entry["p50_ms"]
            found[f"{entry['name']}: CPU us"] = entry["cpu_us"]
        began, cpu = time.perf_counter(), cpu_s(pid)
        await asyncio.gather(*(delete(server_id) for server_id in ids))
        while await count("") > 0:
            await asyncio.sleep(0.05)
        found["deletes_per_s"] = n / (time.perf_counter() - began)
        found["delete_cpu_ms"] = (cpu_s(pid) - cpu) / n * 1000
    return found


def _lists(client: Client, pid: int) -> list[dict[str, Any]]:
    return [
        latency(client, pid, "list of 1000, in detail", "/compute/v2.1/servers/detail?limit=1000", 20),
        latency(client, pid, "list of 1000, ids and names", "/compute/v2.1/servers?limit=1000", 20),
    ]


def main() -> int:
    """Run all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=1000, help="size of the boot storm (default 1000)")
    parser.add_argument("--hosts", type=int, default=10, help="simulated hosts (default 10)")
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind (default 300)")
    parser.add_argument("--json", type=Path, default=Path("build/bench/cloud.json"), help="where the figures go")
    args = parser.parse_args()
    console = Console()
    figures: dict[str, Any] = {"cores": os.cpu_count(), "python": sys.version.split()[0]}
    with tempfile.TemporaryDirectory() as scratch:
        console.print("start-up …")
        figures |= start_up(Path(scratch) / "start")
        cloud = RunningCloud(Path(scratch) / "state", hosts=args.hosts, config=BIG_HOSTS)
        cloud.start()
        assert cloud.process is not None
        pid = cloud.process.pid
        try:
            client = cloud.client()
            image_id = client.upload_image("tiny", b"\0" * 65536)
            flavor_id = client.flavor()
            server_id = client.boot("one", image_id, flavor_id)
            client.wait(server_id, "ACTIVE")
            console.print("latency …")
            token_body = _token_body(cloud)
            figures["latency"] = [
                latency(client, pid, "version document", "/compute/v2.1/", args.requests),
                latency(
                    client, pid, "token (password)", "/identity/v3/auth/tokens", 30, method="POST", json=token_body
                ),
                latency(client, pid, "token check (no other work)", "/identity/v3/regions", args.requests),
                latency(client, pid, "server show", f"/compute/v2.1/servers/{server_id}", args.requests),
            ]
            client.compute("DELETE", f"/servers/{server_id}")
            client.wait_gone(server_id)
            console.print(f"boot storm of {args.servers} …")
            figures["storm"] = asyncio.run(storm(client, pid, image_id, flavor_id, args.servers))
            figures["loaded_rss_mb"] = rss_mb(pid)
        finally:
            cloud.stop()
    _print(console, figures)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(f"written to {args.json}")
    return 0


BIG_HOSTS = """\
[fake]
vcpus = 1000
memory_mib = 1000000
disk_gib = 100000

[quota]
instances = -1
cores = -1
ram = -1
port = -1

[network]
flat_cidr = 10.240.0.0/16
"""


def _token_body(cloud: RunningCloud) -> dict[str, Any]:
    auth = cloud.credentials
    return {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {
                        "name": auth["username"],
                        "password": auth["password"],
                        "domain": {"name": auth.get("user_domain_name", "Default")},
                    }
                },
            },
            "scope": {"project": {"name": auth["project_name"], "domain": {"name": "Default"}}},
        }
    }


def _print(console: Console, figures: dict[str, Any]) -> None:
    table = Table("what", "value", title="One process, fake driver, SQLite with full durability")
    for name in ("start_cold_s", "start_warm_s", "ready_warm_s", "idle_rss_mb", "idle_cpu_percent", "loaded_rss_mb"):
        table.add_row(name, f"{figures[name]:.2f}")
    for line in figures["latency"]:
        table.add_row(
            line["name"], f"p50 {line['p50_ms']:.2f} ms, p99 {line['p99_ms']:.2f} ms, {line['cpu_us']:.0f} µs CPU"
        )
    for name, value in figures["storm"].items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
