"""Many processes under fire: services are killed at random and started again while users create and delete servers.

What users do is safe to repeat: each creation carries a key of its own, and is asked for until somebody answers it.
Afterwards the database and the hypervisors are looked at from outside: nothing may be stuck, leaked or doubled. There
are two judges: the sums that are made here, with statements of their own and the hypervisors' own files or processes,
and the product's rules (`kilonova.conductor.invariants`), handed what is read straight from the database and what
agents show of their guests, their power states included.
"""

import asyncio
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import sqlalchemy as sa

from kilonova.base.config import Config
from kilonova.conductor.hypervisors import Seen
from kilonova.conductor.invariants import HARMS, always, at_rest
from kilonova.launch.audit import asking
from kilonova.model.errors import Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import allocations
from kilonova.store.queries.invariants import books
from kilonova.store.tables.hosts import allocations as allocation_table
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.quotas import quota_usages
from kilonova.store.tables.servers import servers as server_table
from kilonova.store.tables.tasks import tasks
from kilonova.store.transactions import Tx
from kilonova.virt.fake.journal import Journal
from tests.support.deployment import Deployment
from tests.support.running import ROOM_FOR_THOUSANDS, Client

CONFIG = f"""{ROOM_FOR_THOUSANDS}
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
"""


ANSWER_S = 5.0
"""Seconds in which all agents have to answer a look at the end; it is repeated until they do."""


PATIENCE_S = 600.0
"""Seconds for which a user repeats one request. Long: a kill each second takes a processor of its own for starting
again what died, and where others need it too, all APIs may be away for a while."""


@dataclass
class Look:
    """What was found when all was quiet."""

    active: set[str] = field(default_factory=set)
    error: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    """Servers that are there and neither ACTIVE nor in ERROR."""
    stuck: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    quiet_after_s: float = 0.0

    @property
    def out_of_order(self) -> list[str]:
        """All that is stuck, leaked, doubled, lost or odd."""
        return [f"{harm}: {what}" for harm in HARMS for what in getattr(self, harm)]

    def wrongs(self, wanted: Collection[str], *, quiet_within_s: float | None = None) -> list[str]:
        """Everything that is not as it was asked for; empty if all is well.

        Args:
            wanted: ids of the servers that shall be ACTIVE; no other may be there, in whatever state.
            quiet_within_s: seconds after the last kill within which all had to be quiet; None: it does not matter.
        """
        found = self.out_of_order
        if missing := {*wanted} - self.active:
            found.append(f"{len(missing)} of {len(wanted)} servers are not ACTIVE, {min(missing)} is one")
        if self.error:
            found.append(f"{len(self.error)} servers are in ERROR, {min(self.error)} is one")
        if more := (self.active | self.other) - {*wanted}:
            found.append(f"{len(more)} servers are there that should not be, {min(more)} is one")
        if quiet_within_s is not None and self.quiet_after_s > quiet_within_s:
            found.append(f"quiet {self.quiet_after_s} s after the last kill, not within {quiet_within_s:g} s")
        return found


class Fire:
    """Kills a random service every `every_s` seconds and starts it again, and now and then the broker or the database.

    The beat is steady: it goes on while a service comes up, and while the broker or the database is away. A service
    that was killed before it was up is spared until it is: else none would ever be where processors are scarce.

    Args:
        disasters: what else happens, in this order, each after so many kills of services; not before the one before it
            is over.
        victims: beginnings of the names of the services that are killed; empty: any.
    """

    def __init__(
        self,
        cloud: Deployment,
        seed: int,
        every_s: float,
        disasters: Sequence[tuple[int, Callable[[], None]]],
        victims: tuple[str, ...] = ("",),
    ) -> None:
        self._victims = sorted(name for name in cloud.services if name.startswith(victims))
        self._cloud = cloud
        self._chance = random.Random(seed)
        self._every_s = every_s
        self._disasters = list(disasters)
        self._stop = threading.Event()
        self._spared: set[str] = set()
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._kill, self._strike)]
        self.kills = 0
        self.last_kill = 0.0
        """When the last service was killed, or the broker or the database was back, whichever was later."""
        self.failure: BaseException | None = None

    def __enter__(self) -> "Fire":
        self.last_kill = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def wait_for_kills(self, count: int) -> None:
        """Return once so many services were killed."""
        while self.kills < count and self.failure is None:
            time.sleep(0.1)

    def wait_for_disasters(self) -> None:
        """Return once broker and database were restarted as often as they shall be."""
        self._threads[1].join()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failure = error

    def _kill(self) -> None:
        due = time.monotonic() + self._every_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._every_s, time.monotonic())
            self._spared = {name for name in self._spared if not self._is_up(name)}
            if not (victims := [name for name in self._victims if name not in self._spared]):
                continue
            service = self._cloud.services[name := self._chance.choice(victims)]
            if not self._is_up(name):
                self._spared.add(name)
            service.kill()
            self.kills += 1
            self.last_kill = time.monotonic()
            service.restart()

    def _is_up(self, name: str) -> bool:
        return ": up on " in self._cloud.services[name].said()

    def _strike(self) -> None:
        for after, disaster in self._disasters:
            while self.kills < after and not self._stop.is_set() and self.failure is None:
                time.sleep(0.05)
            disaster()
            self.last_kill = time.monotonic()


class Chaos:
    """One cloud: two of each control service, four hosts each in a process of its own."""

    def __init__(self, cloud: Deployment, second_port: int, agents: int = 4) -> None:
        self.cloud = cloud
        self.agents = agents
        self._ports = (cloud.port, second_port)
        self._http = httpx.Client(timeout=30, trust_env=False)  # one for all: each costs as much as a request

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
        deadline = time.monotonic() + PATIENCE_S
        for turn in range(10_000):
            url = f"http://127.0.0.1:{self._ports[(number + turn) % 2]}/compute/v2.1{path}"
            try:
                answer = self._http.request(method, url, headers=headers, **more)
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

    def until_done(self, fire: Fire, *, within_s: float) -> None:
        """Wait, under fire, until broker and database were restarted and all that was asked for is over.

        Raises:
            TimeoutError: things are not over by then, though all that is killed comes back.
        """
        store = Store.open(self.cloud.database, inline=True)
        deadline = time.monotonic() + within_s
        live = ["unknown"]
        while live:
            if time.monotonic() > deadline or fire.failure is not None:
                raise TimeoutError(f"{len(live)} tasks are not over in {within_s:g} s: {live[:5]}") from fire.failure
            time.sleep(0.25)
            try:
                live = store.run_now(_live_tasks)
            except (Unavailable, sa.exc.DBAPIError) as error:  # it is being restarted
                live = [str(error)]
            if not live:
                fire.wait_for_disasters()
                live = store.run_now(_live_tasks)
        store.engine.dispose()

    # ---- what is left ----------------------------------------------------------------------------------------

    def settle(self, since: float, *, within_s: float = 120.0) -> Look:
        """Wait until no task is live, then look. `since`: when the last service was killed."""
        store = Store.open(self.cloud.database, inline=True)
        deadline = time.monotonic() + within_s
        while True:
            is_late = time.monotonic() > deadline
            live = store.run_now(_live_tasks)
            if not live or is_late:
                look = self._look(store)
                if not (live or look.out_of_order) or is_late:
                    look.quiet_after_s = round(time.monotonic() - since, 1)
                    look.stuck += live
                    return look
            time.sleep(0.25)

    def guests(self) -> Iterator[tuple[str, str]]:
        """What hypervisors have: server and host."""
        for path in self.cloud.root.glob("host*/hosts/*/guests.jsonl"):
            for server_id in Journal(path).read():
                yield server_id, path.parent.name

    async def shown(self) -> Seen:
        """What agents say that hypervisors have."""
        hosts = [f"host{number}" for number in range(1, self.agents + 1)]
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                asking(Config(overrides={"DEFAULT": {"transport_url": self.cloud.transport}})) as ask,
            ):
                return await ask(hosts)
        except TimeoutError:
            return Seen({}, dict.fromkeys(hosts, f"no answer in {ANSWER_S:g} s"))

    def _look(self, store: Store) -> Look:
        look, rows = Look(), store.run_now(_rows)
        where: dict[str, list[str]] = {}
        for server_id, guest_host in self.guests():
            where.setdefault(server_id, []).append(guest_host)
        for server_id, server in rows.servers.items():
            {"active": look.active, "error": look.error}.get(server.vm_state, look.other).add(server_id)
            if server.task_state is not None or server.vm_state == "building":
                look.stuck.append(f"server {server_id} is {server.vm_state}/{server.task_state}")
            if server.vm_state == "active":
                if where.get(server_id) != [server.host]:
                    look.leaked.append(f"server {server_id} on {server.host} has guests on {where.get(server_id)}")
                if server_id not in rows.held:
                    look.lost.append(f"server {server_id} holds nothing")
        look.doubled += [f"{len(hosts)} guests of {server_id}" for server_id, hosts in where.items() if len(hosts) > 1]
        names = Counter(server.name for server in rows.servers.values())
        look.doubled += [f"{count} servers named {name}" for name, count in names.items() if count > 1]
        look.leaked += [f"guest {server_id} without a server" for server_id in where if server_id not in rows.servers]
        look.leaked += [f"claim of {server_id}" for server_id in rows.held if server_id not in rows.servers]
        look_at_ports(rows, look)
        look_at_quota(rows, look)
        look.leaked += [f"drift {line}" for line in store.run_now(allocations.drift)]
        now = asyncio.run(store.read(books))  # one snapshot
        seen = asyncio.run(self.shown())
        look.stuck += [f"agent of {agent_host}: {cause}" for agent_host, cause in seen.unseen.items()]
        for violation in (*always(now), *at_rest(now, seen.guests)):
            getattr(look, violation.harm).append(str(violation))
        return look


@dataclass(frozen=True)
class ServerThere:
    """A server that is not deleted."""

    name: str
    vm_state: str
    task_state: str | None
    host: str | None
    flavor: dict[str, Any]


@dataclass
class Rows:
    """What the sums are made of."""

    servers: dict[str, ServerThere]
    held: set[str]
    ports: dict[str, str]
    """Port to its server."""
    addresses: list[tuple[str, int, str]]
    """Subnet, number and port of each."""
    quota: dict[str, int]


def _rows(tx: Tx) -> Rows:
    s, a, q = server_table.c, addresses.c, quota_usages.c
    alive = sa.select(s.id, s.name, s.vm_state, s.task_state, s.host, s.flavor).where(s.deleted_at.is_(None))
    quota = sa.select(q.resource, sa.func.sum(q.used).label("used")).group_by(q.resource)
    return Rows(
        servers={
            row.id: ServerThere(row.name, row.vm_state, row.task_state, row.host, row.flavor)
            for row in tx.execute(alive)
        },
        held=set(tx.execute(sa.select(allocation_table.c.server_id).distinct()).scalars()),
        ports={row.id: row.device_id for row in tx.execute(sa.select(ports.c.id, ports.c.device_id))},
        addresses=[
            (row.subnet_id, row.address, row.port_id)
            for row in tx.execute(sa.select(a.subnet_id, a.address, a.port_id))
        ],
        quota={row.resource: int(row.used) for row in tx.execute(quota)},
    )


def look_at_ports(rows: Rows, look: Look) -> None:
    """Each server has one port, each port one address, and there are no others: nobody here asks for more."""
    look.leaked += [f"port {port} of '{owner}'" for port, owner in rows.ports.items() if owner not in rows.servers]
    count = Counter(rows.ports.values())
    look.lost += [f"port of {server_id}" for server_id in rows.servers if count[server_id] < 1]
    look.doubled += [f"{count[server_id]} ports of {server_id}" for server_id in rows.servers if count[server_id] > 1]
    taken = Counter(port for _, _, port in rows.addresses)
    look.leaked += [f"address of port {port}, which is not there" for port in taken if port not in rows.ports]
    look.lost += [f"address of port {port}" for port in rows.ports if taken[port] < 1]
    look.doubled += [f"{taken[port]} addresses of port {port}" for port in rows.ports if taken[port] > 1]


def look_at_quota(rows: Rows, look: Look) -> None:
    """What counts as used, of all projects together, is what the servers and ports are."""
    wanted = {
        "instances": len(rows.servers),
        "cores": sum(server.flavor["vcpus"] for server in rows.servers.values()),
        "ram": sum(server.flavor["memory_mib"] for server in rows.servers.values()),
        "port": len(rows.ports),
    }
    for resource, needed in wanted.items():
        used = rows.quota.get(resource, 0)
        if used != needed:
            (look.leaked if used > needed else look.lost).append(f"quota counts {used} {resource} of {needed}")


def _live_tasks(tx: Tx) -> list[str]:
    t = tasks.c
    rows = tx.execute(sa.select(t.kind, t.subject, t.step, t.tries).where(t.outcome.is_(None)))
    return [f"task {row.kind} of {row.subject} at step {row.step}, try {row.tries}" for row in rows]
