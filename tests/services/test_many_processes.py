"""The same cloud as many processes on RabbitMQ, with PostgreSQL and with MariaDB: it works, and nothing gets stuck.

Every test ends with the same look: each server that was accepted is ACTIVE on one host, what hosts say is used is
what is allocated, and there is one guest for each server.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.support.brokers import RabbitMQ
from tests.support.databases import DatabaseServer
from tests.support.deployment import Deployment, Service
from tests.support.running import ROOM_FOR_THOUSANDS, Client, free_port

from kilonova.store.engine import Store
from kilonova.store.queries import allocations
from kilonova.virt.fake.journal import Journal

HOSTS = 10

CONFIG = f"""{ROOM_FOR_THOUSANDS}
[DEFAULT]
report_interval = 1
service_down_time = 6
[compute]
report_interval = 1
virt = fake
[fake]
vcpus = 200
memory_mib = 500000
disk_gib = 10000
[filter_scheduler]
max_instances_per_host = 10000
[tasks]
lease_s = 6
"""


class Cloud:
    """A deployment with two of every control service, and one process that stands for all hosts."""

    def __init__(self, root: Path, database: str, transport: str) -> None:
        self.deployment = Deployment(root, database=database, transport=transport, config=CONFIG)
        self.second_port = free_port()

    def start(self) -> None:
        cloud = self.deployment
        cloud.migrate()
        for host in ("ctl1", "ctl2"):
            port = None if host == "ctl1" else self.second_port
            cloud.start(host, "api", wait=False, port=port)
            for service in ("conductor", "scheduler"):
                cloud.start(host, service, wait=False)
        cloud.start("ctl3", "scheduler", wait=False)
        cloud.start("sim", "compute", "network", wait=False, config=f"[compute]\nsimulated_hosts = {HOSTS}")
        for service in cloud.services.values():
            service.until_up()
        cloud.wait_for_hosts(HOSTS)

    def service(self, name: str) -> Service:
        return self.deployment.services[name]

    def clients(self) -> list[Client]:
        """One of each API."""
        return [self.deployment.client(), self.deployment.client(self.second_port)]

    def check(self, server_ids: list[str]) -> None:
        """All of these are ACTIVE; nothing is counted twice or kept for nothing."""
        admin = self.deployment.client()
        states = Counter(admin.wait(server_id, "ACTIVE", "ERROR", timeout_s=120)["status"] for server_id in server_ids)
        assert states == {"ACTIVE": len(server_ids)}, self.deployment.logs()
        store = Store.open(self.deployment.database, inline=True)
        assert store.run_now(allocations.drift) == []
        held = store.run_now(allocations.hosts_of, server_ids)
        assert len(held) == len(server_ids)
        guests = Counter(
            server_id
            for path in self.deployment.root.glob("sim/hosts/*/guests.jsonl")
            for server_id in Journal(path).read()
        )
        assert guests == dict.fromkeys(server_ids, 1)

    def empty(self, server_ids: list[str]) -> None:
        admin = self.deployment.client()
        for server_id in server_ids:
            admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
        for server_id in server_ids:
            admin.wait_gone(server_id, timeout_s=120)
        store = Store.open(self.deployment.database, inline=True)
        assert store.run_now(allocations.drift) == []
        assert store.run_now(allocations.hosts_of, server_ids) == {}


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def cloud(
    request: pytest.FixtureRequest, rabbit: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    server: DatabaseServer = request.getfixturevalue(request.param)
    vhost = request.param
    rabbit.control("add_vhost", vhost)
    rabbit.control("set_permissions", "-p", vhost, rabbit.user, ".*", ".*", ".*")
    made = Cloud(tmp_path_factory.mktemp(vhost), server.create("services"), rabbit.url(vhost))
    try:
        made.start()
        yield made
    finally:
        made.deployment.stop()


@pytest.fixture
def image(cloud: Cloud) -> str:
    return cloud.deployment.client().upload_image("tiny", b"\0" * 65536)


def storm(
    clients: list[Client], image_id: str, flavor_id: str, count: int, hints: dict[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Ask for `count` servers, eight requests at a time, by turns at each API; ids, and why requests failed."""

    def one(number: int) -> tuple[str | None, str]:
        client = clients[number % len(clients)]
        server = {"name": f"s{number}", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"}
        body = {"server": server, "os:scheduler_hints": hints or {}}
        for _ in range(60):
            try:
                answer = client.compute("POST", "/servers", json=body)
            except httpx.TransportError as error:
                return None, f"{client.http.base_url}: {error!r}"
            if answer.status_code == 202:
                return str(answer.json()["server"]["id"]), ""
            if answer.status_code != 503:
                return None, answer.text
            assert int(answer.headers["Retry-After"]) >= 1, "503 says when to come again"
            time.sleep(0.5)
        return None, "503 for too long"

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(count)))
    return [server_id for server_id, _ in results if server_id], [why for server_id, why in results if not server_id]


def test_servers_boot_and_go_over_all_processes(cloud: Cloud, image: str) -> None:
    clients = cloud.clients()
    ids, failed = storm(clients, image, clients[0].flavor(), 60)
    assert not failed
    cloud.check(ids)
    # A token of one API is good at the other, and what it revokes is so at both.
    other = httpx.Client(base_url=clients[1].http.base_url, headers={"X-Auth-Token": clients[0].token})
    assert other.get("/compute/v2.1/servers").status_code == 200
    up = {
        (service["binary"], service["host"])
        for service in clients[1].compute("GET", "/os-services").json()["services"]
        if service["state"] == "up"
    }
    assert up >= {
        ("nova-conductor", "ctl1"),
        ("nova-conductor", "ctl2"),
        ("nova-scheduler", "ctl3"),
        ("nova-api", "ctl2"),
    }
    cloud.empty(ids)


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_storm_of_boots_outlives_the_end_of_any_control_service(cloud: Cloud, image: str, end: str) -> None:
    admin = cloud.deployment.client()
    flavor = admin.flavor()
    victims = ["ctl2-conductor", "ctl2-scheduler", "ctl3-scheduler"]
    random.Random(7).shuffle(victims)

    async def run() -> tuple[list[str], list[str]]:
        work = asyncio.to_thread(storm, [admin, cloud.deployment.client()], image, flavor, 500)
        task = asyncio.create_task(work)
        for name in victims:
            await asyncio.sleep(1.0)
            service = cloud.service(name)
            if end == "kill":
                await asyncio.to_thread(service.kill)
            else:
                assert await asyncio.to_thread(service.terminate) == 0  # within its time for draining
        return await task

    ids, failed = asyncio.run(run())
    assert not failed, failed[:3]
    cloud.check(ids)
    for name in victims:
        cloud.service(name).again()
    cloud.empty(ids)


def test_a_killed_api_loses_nothing_but_its_own_sockets(cloud: Cloud, image: str) -> None:
    first, second = cloud.clients()
    flavor = first.flavor()

    async def run() -> tuple[list[str], list[str]]:
        task = asyncio.create_task(asyncio.to_thread(storm, [first, second], image, flavor, 200))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(cloud.service("ctl2-api").kill)
        return await task

    ids, failed = asyncio.run(run())
    assert all(str(cloud.second_port) in why for why in failed), failed[:3]
    cloud.service("ctl2-api").again()
    # What the dead API had accepted without being able to say so is there, too.
    listed = first.compute("GET", "/servers?limit=1000").json()["servers"]
    everything = [server["id"] for server in listed]
    assert set(ids) <= set(everything)
    cloud.check(everything)
    cloud.empty(everything)


def test_the_broker_is_killed_in_the_middle(cloud: Cloud, image: str, rabbit: RabbitMQ) -> None:
    clients = cloud.clients()
    flavor = clients[0].flavor()

    async def run() -> tuple[list[str], list[str]]:
        task = asyncio.create_task(asyncio.to_thread(storm, clients, image, flavor, 150))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(rabbit.kill)
        await asyncio.to_thread(rabbit.start)
        return await task

    ids, failed = asyncio.run(run())
    assert not failed, failed[:3]
    cloud.check(ids)
    cloud.empty(ids)


def test_the_database_is_killed_in_the_middle(cloud: Cloud, image: str, request: pytest.FixtureRequest) -> None:
    database: DatabaseServer = request.getfixturevalue(
        "postgresql" if cloud.deployment.database.startswith("postgresql") else "mariadb"
    )
    clients = cloud.clients()
    flavor = clients[0].flavor()

    async def run() -> tuple[list[str], list[str]]:
        task = asyncio.create_task(asyncio.to_thread(storm, clients, image, flavor, 150))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(database.kill)
        await asyncio.sleep(2.0)
        await asyncio.to_thread(database.start)
        return await task

    ids, failed = asyncio.run(run())
    assert not failed, failed[:3]
    # A create whose answer was "not known" may have been kept: then it is whole.
    listed = clients[0].compute("GET", "/servers?limit=1000").json()["servers"]
    everything = [server["id"] for server in listed]
    assert set(ids) <= set(everything)
    cloud.check(everything)
    cloud.empty(everything)


def test_hosts_go_down_after_their_time_and_come_back(cloud: Cloud) -> None:
    admin = cloud.deployment.client()

    def states() -> Counter[str]:
        found = admin.compute("GET", "/os-services?binary=nova-compute").json()["services"]
        return Counter(service["state"] for service in found)

    assert states() == {"up": HOSTS}
    cloud.service("sim-compute-network").kill()
    began = time.monotonic()
    while states() != {"down": HOSTS}:
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    assert time.monotonic() - began > 4, "silence of less than service_down_time is no death"
    cloud.service("sim-compute-network").again()
    cloud.deployment.wait_for_hosts(HOSTS, timeout_s=20)


def test_a_pause_of_the_database_marks_nobody_down(cloud: Cloud, request: pytest.FixtureRequest) -> None:
    database: DatabaseServer = request.getfixturevalue(
        "postgresql" if cloud.deployment.database.startswith("postgresql") else "mariadb"
    )
    admin = cloud.deployment.client()
    before = {path: path.stat().st_size for path in cloud.deployment.root.glob("logs/*conductor*/*.log")}
    database.pause(5.5)  # of service_down_time = 6: as 55 s of 60
    time.sleep(1.5)
    services = admin.compute("GET", "/os-services").raise_for_status().json()["services"]
    down = [(service["binary"], service["host"]) for service in services if service["state"] != "up"]
    assert down == []
    told = [path.read_bytes()[size:] for path, size in before.items()]
    assert not any(b"service is down" in text for text in told)


def test_agents_were_given_no_database(cloud: Cloud) -> None:
    file = cloud.deployment.root / "sim-compute-network.conf"
    assert "connection" not in file.read_text()
    pid = cloud.service("sim-compute-network").process.pid
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "psycopg" not in mapped and "sqlite" not in mapped
