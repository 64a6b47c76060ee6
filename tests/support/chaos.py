"""Many processes under fire: services are killed at random and started again while users create and delete servers.

What users do is safe to repeat: each creation carries a key of its own, and is asked for until somebody answers it.
Afterwards the database and the hypervisors are looked at from outside: nothing may be stuck, leaked or doubled.
"""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import sqlalchemy as sa

from kilonova.store.engine import Store
from kilonova.store.queries import allocations
from kilonova.store.tables.hosts import allocations as allocation_table
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.quotas import quota_usages
from kilonova.store.tables.servers import servers as server_table
from kilonova.store.tables.tasks import tasks
from kilonova.store.transactions import Tx
from kilonova.virt.fake.journal import Journal
from tests.support.deployment import Deployment
from tests.support.running import Client

CONFIG = """
[DEFAULT]
report_interval = 2
[compute]
virt = fake
report_interval = 2
sync_power_state_interval = 5
[fake]
vcpus = 1000
memory_mib = 4000000
disk_gib = 100000
spawn_delay_s = 0.05
[quota]
instances = 10000
cores = 10000
ram = 100000000
port = 10000
[network]
flat_cidr = 10.77.0.0/16
"""


@dataclass
class Look:
    """What was found when all was quiet."""

    active: int = 0
    error: int = 0
    stuck: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    quiet_after_s: float = 0.0

    @property
    def is_well(self) -> bool:
        """Whether nothing is out of order."""
        return not (self.stuck or self.leaked or self.doubled)


class Fire:
    """Kills a random service every `every_s` seconds and starts it again, and now and then the broker or the database.

    Args:
        disasters: what else happens, in this order, each after so many kills of services.
        victims: beginnings of the names of the services that are killed; empty: any.
    """

    def __init__(
        self,
        cloud: Deployment,
        seed: int,
        every_s: float,
        disasters: list[tuple[int, Callable[[], None]]],
        victims: tuple[str, ...] = ("",),
    ) -> None:
        self._victims = sorted(name for name in cloud.services if name.startswith(victims))
        self._cloud = cloud
        self._chance = random.Random(seed)
        self._every_s = every_s
        self._disasters = list(disasters)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0
        self.last_kill = 0.0
        self.failure: BaseException | None = None

    def __enter__(self) -> "Fire":
        self._thread.start()
        return self

    def wait_for_kills(self, count: int) -> None:
        """Return once so many services were killed."""
        while self.kills < count and self.failure is None:
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every_s):
                if self._disasters and self.kills >= self._disasters[0][0]:
                    self._disasters.pop(0)[1]()
                name = self._chance.choice(self._victims)
                service = self._cloud.services[name]
                service.kill()
                self.kills += 1
                self.last_kill = time.monotonic()
                service.restart()
            while self._disasters:  # the users were faster
                self._disasters.pop(0)[1]()
                self.last_kill = time.monotonic()
        except BaseException as error:
            self.failure = error


class Chaos:
    """One cloud: two of each control service, four hosts each in a process of its own."""

    def __init__(self, cloud: Deployment, second_port: int, agents: int = 4) -> None:
        self.cloud = cloud
        self.agents = agents
        self._ports = (cloud.port, second_port)

    def start(self) -> None:
        """All processes, up."""
        cloud = self.cloud
        cloud.migrate()
        for number, port in enumerate(self._ports, start=1):
            host = f"ctl{number}"
            cloud.start(host, "api", wait=number == 1, port=port)
            for service in ("conductor", "scheduler"):
                cloud.start(host, service, wait=False)
        for number in range(1, self.agents + 1):
            cloud.start(f"host{number}", "compute", "network", wait=False)
        for service in cloud.services.values():
            service.until_up()
        cloud.wait_for_hosts(self.agents)
        admin = cloud.client()
        self.token = admin.token
        self.image, self.flavor = self.upload(admin), admin.flavor()

    def upload(self, admin: Client) -> str:
        """The image that servers boot from."""
        return admin.upload_image("tiny", b"\0" * 65536)

    # ---- what users do ---------------------------------------------------------------------------------------

    def create(self, count: int) -> list[str]:
        """Ask for `count` servers until each request is answered; their ids."""

        def one(number: int) -> str:
            server = {
                "name": f"s{number}", "imageRef": self.image, "flavorRef": self.flavor, "networks": "auto",
            }  # fmt: skip
            headers = {"Idempotency-Key": str(uuid.uuid4())}
            answer = self._insist(number, "POST", "/servers", {202}, json={"server": server}, headers=headers)
            return str(answer.json()["server"]["id"])

        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(one, range(count)))

    def delete(self, server_ids: list[str]) -> None:
        """Ask for their end until each request is answered."""

        def one(item: tuple[int, str]) -> None:
            self._insist(item[0], "DELETE", f"/servers/{item[1]}", {204, 404})

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, enumerate(server_ids)))

    def _insist(self, number: int, method: str, path: str, wanted: set[int], **more: Any) -> httpx.Response:
        """Repeat a request at one API and the other, as a patient client does, until it is answered."""
        headers = {"X-Auth-Token": self.token, "OpenStack-API-Version": "compute 2.96", **more.pop("headers", {})}
        deadline = time.monotonic() + 180
        for turn in range(10_000):
            url = f"http://127.0.0.1:{self._ports[(number + turn) % 2]}/compute/v2.1{path}"
            try:
                answer = httpx.request(method, url, headers=headers, timeout=30, **more)
            except httpx.TransportError as error:
                told = repr(error)
            else:
                if answer.status_code in wanted:
                    return answer
                told = f"{answer.status_code}: {answer.text[:300]}"
                assert answer.status_code in (503, 409), told
            assert time.monotonic() < deadline, f"{method} {path} is not answered: {told}"
            time.sleep(0.2)
        raise AssertionError("unreachable")

    # ---- what is left ----------------------------------------------------------------------------------------

    def settle(self, since: float, *, within_s: float = 120.0) -> Look:
        """Wait until no task is live, then look. `since`: when the last service was killed."""
        store = Store.open(self.cloud.database, inline=True)
        deadline = time.monotonic() + within_s
        while True:
            live = store.run_now(_live_tasks)
            look = self._look(store)
            if (not live and look.is_well) or time.monotonic() > deadline:
                look.quiet_after_s = round(time.monotonic() - since, 1)
                look.stuck += live
                return look
            time.sleep(0.25)

    def guests(self) -> Iterator[tuple[str, str]]:
        """What hypervisors have: server and host."""
        for path in self.cloud.root.glob("host*/hosts/*/guests.jsonl"):
            for server_id in Journal(path).read():
                yield server_id, path.parent.name

    def _look(self, store: Store) -> Look:
        look, rows = Look(), store.run_now(_rows)
        where: dict[str, list[str]] = {}
        for server_id, guest_host in self.guests():
            where.setdefault(server_id, []).append(guest_host)
        guests = {server_id: len(hosts) for server_id, hosts in where.items()}
        for server_id, (vm_state, task_state, host) in rows.servers.items():
            if task_state is not None or vm_state == "building":
                look.stuck.append(f"server {server_id} is {vm_state}/{task_state}")
            if vm_state == "active":
                look.active += 1
                if where.get(server_id) != [host]:
                    look.leaked.append(f"server {server_id} on {host} has guests on {where.get(server_id)}")
                if server_id not in rows.held:
                    look.leaked.append(f"server {server_id} holds nothing")
            elif vm_state == "error":
                look.error += 1
        look.doubled += [f"{count} guests of {server_id}" for server_id, count in guests.items() if count > 1]
        look.doubled += [f"{count} servers named {name}" for name, count in rows.names.items() if count > 1]
        look.leaked += [f"guest {server_id} without a server" for server_id in guests if server_id not in rows.servers]
        look.leaked += [f"claim of {server_id}" for server_id in rows.held if server_id not in rows.servers]
        look.leaked += [f"port of {device}" for device in rows.ports if device not in rows.servers]
        if rows.addresses != len(rows.ports):
            look.leaked.append(f"{rows.addresses} addresses for {len(rows.ports)} ports")
        if rows.quota != len(rows.servers):
            look.leaked.append(f"quota counts {rows.quota} servers of {len(rows.servers)}")
        look.leaked += [f"drift {line}" for line in store.run_now(allocations.drift)]
        return look


@dataclass
class _Rows:
    servers: dict[str, tuple[str, str | None, str | None]]
    names: Counter[str]
    held: set[str]
    ports: list[str]
    addresses: int
    quota: int


def _rows(tx: Tx) -> _Rows:
    s = server_table.c
    alive = list(tx.execute(sa.select(s.id, s.name, s.vm_state, s.task_state, s.host).where(s.deleted_at.is_(None))))
    instances = sa.select(sa.func.coalesce(sa.func.sum(quota_usages.c.used), 0)).where(
        quota_usages.c.resource == "instances"
    )
    return _Rows(
        servers={row.id: (row.vm_state, row.task_state, row.host) for row in alive},
        names=Counter(row.name for row in alive),
        held=set(tx.execute(sa.select(allocation_table.c.server_id).distinct()).scalars()),
        ports=list(tx.execute(sa.select(ports.c.device_id).where(ports.c.device_id != "")).scalars()),
        addresses=tx.execute(sa.select(sa.func.count()).select_from(addresses)).scalar_one(),
        quota=int(tx.execute(instances).scalar_one()),
    )


def _live_tasks(tx: Tx) -> list[str]:
    t = tasks.c
    rows = tx.execute(sa.select(t.kind, t.subject, t.step, t.tries).where(t.outcome.is_(None)))
    return [f"task {row.kind} of {row.subject} at step {row.step}, try {row.tries}" for row in rows]
