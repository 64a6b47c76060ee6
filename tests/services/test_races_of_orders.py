"""Two orders for one server at the same moment, and reports and ends of tasks that meet them, on real servers.

There everybody writes at once and sees what others have committed; SQLite, which has one writer at a time, cannot
show any of this. In most tests here the first has written and not committed when the second begins.
"""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.databases import DatabaseServer

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.cloud.server_actions import Order, begin
from kilonova.cloud.server_rebuild import RebuildRequest, rebuild
from kilonova.cloud.servers import Servers
from kilonova.conductor.endpoint import ConductorEndpoint, _sync_power
from kilonova.conductor.hands import Hands
from kilonova.conductor.invariants import always
from kilonova.conductor.tasks import KINDS
from kilonova.conductor.tasks.delete import _erase
from kilonova.model.context import RequestContext
from kilonova.model.errors import GuestRejected, InvalidState, NotFound
from kilonova.model.flavor import Flavor
from kilonova.model.guest import ImageRef, PowerObservation
from kilonova.model.host import HostReport
from kilonova.model.image import Image, ImageStatus, Visibility
from kilonova.model.placing import spec_of_server
from kilonova.model.request_spec import ServerGroup
from kilonova.model.server import Fault, Server, ServerOrder
from kilonova.model.server_group import ANTI_AFFINITY, SOFT_ANTI_AFFINITY
from kilonova.model.states import RULES, PowerState, TaskState, VMState
from kilonova.store.engine import Store
from kilonova.store.queries import allocations, hosts, images, quotas, servers, tasks
from kilonova.store.queries.invariants import Books, books
from kilonova.store.tables.all import CELL, GLOBAL
from kilonova.store.tables.groups import group_slots
from kilonova.store.tables.tasks import task_subjects
from kilonova.store.transactions import Tx, insert_row
from kilonova.tasks.engine import Engine, TaskOptions

CLOCK, IDS = SystemClock(), SystemIds()
USER = RequestContext(request_id="r", user_id="u", project_id="p", roles=("member",))
FLAVOR = Flavor(id="1", name="m1", vcpus=1, memory_mib=128, root_gib=1)
IMAGE = IDS.uuid()

Write = Callable[[Tx], Any]

_URLS: dict[str, str] = {}


@dataclass
class Rig:
    """A database with one host and one image, and servers at rest that hold what they need."""

    store: Store
    url: str
    host_id: int = 0

    async def server(self, **more: Any) -> str:
        """A new one, ACTIVE."""
        server_id = IDS.uuid()
        now = CLOCK.now()
        row = {
            "id": server_id, "project_id": "p", "user_id": "u", "name": "n", "hostname": "n", "host": "h1",
            "vm_state": VMState.ACTIVE, "task_state": None, "power_state": PowerState.RUNNING, "flavor": FLAVOR,
            "metadata": {}, "tags": [], "order": ServerOrder(), "image_id": IMAGE, "created_at": now,
            "updated_at": now,
        }  # fmt: skip

        def put(tx: Tx) -> None:
            quotas.take(tx, "p", FLAVOR.quota())
            servers.insert(tx, [row | more])
            amounts = spec_of_server(servers.get(tx, server_id)).amounts()
            allocations.claim_first(tx, server_id=server_id, candidates=[(self.host_id, "h1")], amounts=amounts)
            insert_row(tx, task_subjects, {"subject": server_id, "epoch": 1, "live_task": None})

        await self.store.run(put)
        return server_id

    async def overlap(self, first: Write, second: Write) -> list[BaseException | None]:
        """`second` begins when `first` has written, and `first` commits when `second` has ended or waits for it."""
        return await asyncio.to_thread(self._overlap, first, second)

    def _overlap(self, first: Write, second: Write) -> list[BaseException | None]:
        has_written, has_ended = threading.Event(), threading.Event()

        def held(tx: Tx) -> None:
            try:
                first(tx)
            finally:
                has_written.set()
            has_ended.wait(HOLD_S)

        with ThreadPoolExecutor(2) as hands:
            one = hands.submit(self.store.run_now, held)
            assert has_written.wait(30)
            two = hands.submit(self.store.run_now, second)
            two.add_done_callback(lambda _: has_ended.set())
            return [one.exception(), two.exception()]

    async def agree(self) -> Books:
        """The books, in which nothing is wrong."""
        found = await self.store.read(books)
        assert always(found) == []
        return found


HOLD_S = 0.5
"""Seconds in which the second comes to where it waits for the first."""


@pytest.fixture(params=["postgresql", "mariadb"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    kind = request.param
    if kind not in _URLS:
        server: DatabaseServer = request.getfixturevalue(kind)
        _URLS[kind] = server.create("races_of_orders")
    store = Store.open(_URLS[kind])
    store.create_all()
    rig = Rig(store, _URLS[kind])
    report = HostReport(
        host="h1", hypervisor_hostname="h1", hypervisor_type="fake", hypervisor_version=1, vcpus=64, memory_mib=65536,
        disk_gib=1000,
    )  # fmt: skip
    now = CLOCK.now()
    image = Image(
        id=IMAGE, status=ImageStatus.ACTIVE, visibility=Visibility.PUBLIC, owner="p", disk_format="raw",
        container_format="bare", size=1, created_at=now, updated_at=now,
    )  # fmt: skip

    def begin_anew(tx: Tx) -> int:
        for metadata in (CELL, GLOBAL):
            for table in metadata.tables.values():
                tx.execute(sa.delete(table))
        hosts.record_report(tx, report, uuid=IDS.uuid(), at=now)
        images.insert(tx, image)
        found = hosts.id_of(tx, "h1")
        assert found is not None
        return found

    rig.host_id = await store.run(begin_anew)
    yield rig
    await store.close()


def order(rule: str, server_id: str, *, at: datetime | None = None) -> Write:
    """What a user asks for, as its transaction."""
    wanted = Order(
        task_id=IDS.uuid(), kind="server." + rule.partition("_")[0], action=rule, rule=RULES[rule], payload={},
        at=at or CLOCK.now(),
    )  # fmt: skip
    if rule == "rebuild":
        return lambda tx: rebuild(tx, USER, server_id, "p", wanted, RebuildRequest(image_id=IMAGE))
    return lambda tx: begin(tx, USER, server_id, "p", wanted)


def erase(server_id: str) -> Write:
    """The last write of a delete."""
    return partial(_erase, server_id=server_id, task_id=IDS.uuid(), at=CLOCK.now())


def report(server: Server, power_state: PowerState) -> Write:
    """What the host says of a server that it knows as it is now."""
    seen = PowerObservation(server_id=server.id, as_of=server.updated_at, power_state=power_state)
    return lambda tx: _sync_power(tx, "h1", [seen], at=CLOCK.now())


# ---- two orders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("delete", "delete", False),
        ("stop", "delete", False),
        ("reboot_hard", "delete", False),
        ("rebuild", "delete", False),
        ("delete", "stop", True),
        ("delete", "rebuild", True),
        ("stop", "rebuild", True),
    ],
)
async def test_of_two_orders_for_one_server_one_is_the_second(rig: Rig, first: str, second: str, refused: bool) -> None:
    server_id = await rig.server()
    faults = await rig.overlap(order(first, server_id), order(second, server_id))
    assert faults[0] is None
    assert isinstance(faults[1], InvalidState) if refused else faults[1] is None
    found = await rig.agree()
    [(_, kind)] = found.live_tasks[server_id]
    assert kind == ("server.delete" if "delete" in (first, second) else f"server.{first}")
    assert (found.servers[server_id].task_state is TaskState.DELETING) is (kind == "server.delete")


async def test_an_order_that_meets_the_end_of_a_delete_finds_no_server(rig: Rig) -> None:
    server_id = await rig.server()
    faults = await rig.overlap(erase(server_id), order("stop", server_id))
    assert isinstance(faults[1], NotFound)
    await rig.agree()


async def test_of_two_changes_of_metadata_none_is_lost(rig: Rig) -> None:
    server_id = await rig.server()
    parts = Parts(rig.store, CloudPolicy.load(PolicyOptions(), clock=CLOCK), CLOCK, IDS, NO_BELL)
    cloud = Servers(parts, lambda host: IDLE)
    names = [f"k{number}" for number in range(12)]
    await asyncio.gather(*(cloud.set_metadata(USER, server_id, {name: "v"}, replace=False) for name in names))
    assert await cloud.metadata(USER, server_id) == dict.fromkeys(names, "v")


# ---- subjects of tasks, whoever takes them ------------------------------------------------------------------------


@pytest.mark.parametrize("is_free", [True, False])
async def test_of_two_tasks_that_take_a_subject_over_one_lives(rig: Rig, is_free: bool) -> None:
    def task() -> Write:
        new = {"task_id": IDS.uuid(), "kind": "toy", "subject": "s", "payload": {}, "request_id": "r"}
        return lambda tx: tasks.insert(tx, at=CLOCK.now(), supersede=True, **new)  # type: ignore[arg-type]

    await rig.store.run(task())
    if is_free:
        await rig.store.run(_end_all)
    assert await rig.overlap(task(), task()) == [None, None]
    found = await rig.agree()
    assert len(found.live_tasks["s"]) == 1


async def test_a_task_that_ends_by_itself_while_it_is_taken_over_from_ends_once(rig: Rig) -> None:
    new = {"kind": "toy", "subject": "s", "payload": {}, "request_id": "r"}
    now = CLOCK.now()
    await rig.store.run(lambda tx: tasks.insert(tx, task_id=IDS.uuid(), at=now, **new))  # type: ignore[arg-type]
    lease = partial(tasks.lease_due, owner=IDS.uuid(), now=now, until=now, limit=1, kinds=["toy"])
    [task] = await rig.store.run(lease)
    next_id = IDS.uuid()
    faults = await rig.overlap(
        lambda tx: tasks.finish(tx, task, outcome="done", at=now),
        lambda tx: tasks.insert(tx, task_id=next_id, at=now, supersede=True, **new),  # type: ignore[arg-type]
    )
    assert faults == [None, None]
    assert (await rig.agree()).live_tasks["s"] == ((next_id, "toy"),)


def _end_all(tx: Tx) -> None:
    now = CLOCK.now()
    for task in tasks.lease_due(tx, owner=IDS.uuid(), now=now, until=now, limit=9, kinds=["toy"]):
        tasks.finish(tx, task, outcome="done", at=now)


# ---- what is given back ------------------------------------------------------------------------------------------


async def test_a_server_that_is_erased_twice_at_once_gives_back_once(rig: Rig) -> None:
    server_id, *_ = [await rig.server() for _ in range(3)]
    assert await rig.overlap(erase(server_id), erase(server_id)) == [None, None]
    found = await rig.agree()
    assert found.deleted == {server_id}
    assert found.quota["p", "instances"] == 2


@pytest.mark.parametrize("policy", [ANTI_AFFINITY, SOFT_ANTI_AFFINITY])
async def test_room_that_two_give_back_at_once_is_given_back_once(rig: Rig, policy: str) -> None:
    group = ServerGroup(id=IDS.uuid(), policy=policy, max_server_per_host=3, members={})
    ids = [IDS.uuid() for _ in range(3)]
    for server_id in ids:
        claim: dict[str, Any] = {"candidates": [(rig.host_id, "h1")], "amounts": {"VCPU": 1, "MEMORY_MB": 128}}
        fine = allocations.FineNeeds(group=group)
        await rig.store.run(allocations.claim_first, server_id=server_id, fine=fine, **claim)
    release = partial(allocations.release, server_id=ids[0])
    assert await rig.overlap(release, release) == [None, None]
    assert await rig.store.read(allocations.drift) == []
    members = await rig.store.read(lambda tx: tx.execute(sa.select(group_slots.c.members)).scalar())
    assert members == (2 if policy == ANTI_AFFINITY else None)


# ---- reports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power_state", [PowerState.SHUTDOWN, PowerState.NOSTATE])
@pytest.mark.parametrize("rule", ["delete", "reboot_soft"])
async def test_a_report_that_meets_an_order_is_not_believed(rig: Rig, rule: str, power_state: PowerState) -> None:
    server_id = await rig.server()
    server = await rig.store.read(servers.get, server_id)
    # A clock may show the same time twice: what tells then is that something is being done to the server.
    at = server.updated_at if rule == "delete" else None
    assert await rig.overlap(order(rule, server_id, at=at), report(server, power_state)) == [None, None]
    found = await rig.agree()
    after = found.servers[server_id]
    assert (after.vm_state, after.task_state) == (VMState.ACTIVE, RULES[rule].during)
    assert server_id not in found.faults


async def test_a_report_of_before_the_end_of_a_task_is_not_believed_after_it(rig: Rig) -> None:
    server_id = await rig.server()
    server = await rig.store.read(servers.get, server_id)
    stopped: dict[str, Any] = {"vm_state": VMState.STOPPED, "power_state": PowerState.SHUTDOWN}
    end = partial(servers.become, server_id=server_id, at=CLOCK.now(), **stopped)
    assert await rig.overlap(end, report(server, PowerState.RUNNING)) == [None, None]
    after = (await rig.agree()).servers[server_id]
    assert (after.vm_state, after.power_state) == (VMState.STOPPED, PowerState.SHUTDOWN)


async def test_a_report_that_meets_the_end_of_a_delete_changes_nothing(rig: Rig) -> None:
    server_id = await rig.server()
    server = await rig.store.read(servers.get, server_id)
    assert await rig.overlap(erase(server_id), report(server, PowerState.SHUTDOWN)) == [None, None]
    await rig.agree()
    after = await rig.store.read(servers.get, server_id, deleted=True)
    assert (after.vm_state, after.power_state) == (VMState.DELETED, PowerState.NOSTATE)


async def test_of_a_server_in_error_a_report_that_meets_an_order_says_nothing_either(rig: Rig) -> None:
    server_id = await rig.server(vm_state=VMState.ERROR)
    fault = Fault(code=500, message="It broke.", details="step spawn on host h1: it broke", created_at=CLOCK.now())
    await rig.store.run(servers.add_fault, server_id, fault)
    server = await rig.store.read(servers.get, server_id)
    await rig.overlap(order("delete", server_id), report(server, PowerState.SHUTDOWN))
    assert (await rig.agree()).servers[server_id].power_state is PowerState.RUNNING


async def test_an_order_that_meets_a_report_is_for_the_server_of_after_it(rig: Rig) -> None:
    server_id = await rig.server()
    server = await rig.store.read(servers.get, server_id)
    faults = await rig.overlap(report(server, PowerState.SHUTDOWN), order("reboot_soft", server_id))
    assert isinstance(faults[1], InvalidState)
    assert (await rig.agree()).servers[server_id].vm_state is VMState.STOPPED


# ---- all at once ------------------------------------------------------------------------------------------------


class Idle:
    """A host that does what it is told, in no time, and now and then cannot."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def do(*_: object, **__: object) -> None:
            await asyncio.sleep(random.uniform(0, 0.02))
            if random.random() < 0.2:
                raise GuestRejected("Not today.")

        return do


IDLE: Any = Idle()
NO_BELL: Any = SimpleNamespace(ring=lambda topic: None)
ORDERS = ("start", "stop", "reboot", "rebuild")
QUICK = TaskOptions(sweep_interval_s=0.02, retry_base_s=0.01)
ROUNDS, SERVERS, API_PROCESSES, CONDUCTORS = 8, 4, 3, 2


async def test_in_a_storm_of_orders_the_books_agree(rig: Rig) -> None:
    """Several processes' worth of users, workers and reports; in the end of each round every server is deleted."""
    stores = [Store.open(rig.url) for _ in range(API_PROCESSES + CONDUCTORS)]
    policy = CloudPolicy.load(PolicyOptions(), clock=CLOCK)
    clouds = [Servers(Parts(store, policy, CLOCK, IDS, NO_BELL), lambda host: IDLE) for store in stores[:API_PROCESSES]]
    engines = [_conductor(store) for store in stores[API_PROCESSES:]]
    for engine in engines:
        await engine.start()
    try:
        for _ in range(ROUNDS):
            ids = [await rig.server() for _ in range(SERVERS)]
            async with asyncio.timeout(60), asyncio.TaskGroup() as storm:
                users = [storm.create_task(_user(cloud, ids)) for cloud in clouds for _ in range(2)]
                watcher = storm.create_task(_watch(rig, ids))
                await asyncio.wait(users)
                watcher.cancel()
            async with asyncio.timeout(60):
                while await rig.store.read(tasks.live_count):
                    await asyncio.sleep(0.05)
            found = await rig.agree()
            assert not found.servers
            assert set(found.quota.values()) == {0}
    finally:
        for engine in engines:
            await engine.stop()
        for store in stores:
            await store.close()


def _conductor(store: Store) -> Engine[Hands]:
    async def image_ref(image_id: str) -> ImageRef:
        return ImageRef(id=image_id, disk_format="raw", size=1, hash_value="", url="")

    hands = Hands(store, IDLE, lambda host: IDLE, lambda host: IDLE, image_ref)
    return Engine(store, CLOCK, IDS, QUICK, KINDS, hands)


async def _user(cloud: Servers, ids: list[str]) -> None:
    """Orders one thing after the other, and deletes all in the end, as the others do."""
    wanted = [(random.choice(ORDERS), random.choice(ids)) for _ in range(12)]
    for name, server_id in [*wanted, *(("delete", server_id) for server_id in ids)]:
        more: dict[str, Any] = {"hard": True} if name == "reboot" else {}
        if name == "rebuild":
            more = {"request": RebuildRequest(image_id=IMAGE)}
        try:
            await getattr(cloud, name)(USER, server_id, **more)
        except (InvalidState, NotFound):
            continue


async def _watch(rig: Rig, ids: list[str]) -> None:
    """Reports whatever of the guests, and looks at the books all the time."""
    unused: Any = None
    conductor = ConductorEndpoint(rig.store, CLOCK, IDS, unused, unused)
    while True:
        seen = [
            PowerObservation(server_id=server.id, as_of=server.updated_at, power_state=random.choice(list(PowerState)))
            for server in await rig.store.read(servers.of_host, "h1")
        ]
        await conductor.report_power_states("h1", seen)
        await rig.agree()
