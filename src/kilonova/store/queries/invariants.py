"""Everything that must agree, read at one moment: what the checker of invariants looks at. Reads all servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from kilonova.model.devices import Held, HostDevices
from kilonova.model.flavor import Flavor
from kilonova.model.placing import request_spec
from kilonova.model.server import ServerOrder
from kilonova.model.server_group import ANTI_AFFINITY
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.store.tables.devices import device_claims, host_devices
from kilonova.store.tables.groups import group_claims, group_slots, server_groups
from kilonova.store.tables.hosts import allocations, hosts, inventories
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.quotas import quota_usages
from kilonova.store.tables.servers import server_actions, server_faults, servers
from kilonova.store.tables.tasks import task_steps, task_subjects, tasks
from kilonova.store.transactions import Tx


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A server that is not deleted."""

    id: str
    project_id: str
    vm_state: VMState
    task_state: TaskState | None
    power_state: PowerState
    host: str | None
    image_id: str | None
    needs: Mapping[str, int]
    """Resource class to amount that its claim must hold."""
    quota: Mapping[str, int]
    cards: int
    """Ports that it asked for."""
    size: Mapping[str, int] = field(default_factory=dict)
    """What its guest must be like: attributes of `GuestState`."""


@dataclass(frozen=True, slots=True)
class PortRow:
    """A port of a server."""

    id: str
    server_id: str
    host: str
    addresses: int


@dataclass(frozen=True, slots=True)
class PlacesRow:
    """Places that a server group has taken on a host, as they are counted."""

    host: str
    members: int
    most: int | None
    """That its group allows there; None: any number."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """One snapshot."""

    servers: Mapping[str, ServerRow]
    deleted: frozenset[str]
    live_tasks: Mapping[str, tuple[tuple[str, str], ...]]
    """Subject to its live tasks: id and kind."""
    leases: Mapping[tuple[str, int], str]
    """Live task and its epoch to who holds it, where somebody does."""
    subjects: Mapping[str, str]
    """Subject to the task that it says it has."""
    held: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Server to host to what it holds there."""
    used: Mapping[tuple[str, str], tuple[int, float]]
    """Host and resource class to what is used and the most that may be."""
    devices: Mapping[str, HostDevices]
    """Host to what it says of its cells and devices, of those that have any."""
    devices_held: Mapping[str, tuple[str, Held]]
    """Server to the host where it holds cells or devices, and which."""
    places: Mapping[tuple[str, str], PlacesRow]
    """Server group and slot to what is taken of it."""
    places_held: Mapping[str, tuple[str, str]]
    """Server to the group and the slot where it holds a place."""
    quota: Mapping[tuple[str, str], int]
    """Project and resource to what counts as used."""
    ports: tuple[PortRow, ...]
    """Those of servers."""
    ports_of: Mapping[str, int]
    """Project to the number of all of its ports."""
    stray_addresses: tuple[str, ...]
    """Addresses that are taken for a port that is not there."""
    faults: Mapping[str, str]
    """Server to what was told last, for administrators, of why it went wrong; where something was."""


_SERVERS = sa.select(
    servers.c.id, servers.c.project_id, servers.c.vm_state, servers.c.task_state, servers.c.power_state,
    servers.c.host, servers.c.image_id, servers.c.flavor, servers.c.request,
).where(servers.c.deleted_at.is_(None))  # fmt: skip
_DELETED = sa.select(servers.c.id).where(servers.c.deleted_at.is_not(None))
_LIVE = sa.select(tasks.c.subject, tasks.c.id, tasks.c.kind, tasks.c.epoch, tasks.c.lease_owner).where(
    tasks.c.outcome.is_(None)
)
_KINDS = sa.select(tasks.c.kind).where(tasks.c.outcome.is_(None)).distinct()
_SUBJECTS = sa.select(task_subjects.c.subject, task_subjects.c.live_task).where(task_subjects.c.live_task.is_not(None))
_HELD = sa.select(allocations.c.server_id, hosts.c.name, allocations.c.resource_class, allocations.c.used).join(
    hosts, hosts.c.id == allocations.c.host_id, isouter=True
)
_USED = sa.select(
    hosts.c.name, inventories.c.resource_class, inventories.c.used, inventories.c.total, inventories.c.reserved,
    inventories.c.allocation_ratio,
).join(hosts, hosts.c.id == inventories.c.host_id)  # fmt: skip
_DEVICES = sa.select(host_devices.c.host_id, hosts.c.name, host_devices.c.document).join(
    hosts, hosts.c.id == host_devices.c.host_id, isouter=True
)
_DEVICES_HELD = sa.select(
    device_claims.c.server_id, device_claims.c.host_id, hosts.c.name, device_claims.c.held
).join(hosts, hosts.c.id == device_claims.c.host_id, isouter=True)  # fmt: skip
_PLACES = (
    sa.select(
        group_slots.c.group_id, group_slots.c.slot, group_slots.c.members, group_slots.c.host_id, hosts.c.name,
        server_groups.c.policy, server_groups.c.max_server_per_host,
    )
    .join(hosts, hosts.c.id == group_slots.c.host_id, isouter=True)
    .join(server_groups, server_groups.c.id == group_slots.c.group_id, isouter=True)
)  # fmt: skip
_PLACES_HELD = sa.select(group_claims.c.server_id, group_claims.c.group_id, group_claims.c.slot)
_QUOTA = sa.select(quota_usages.c.owner, quota_usages.c.resource, quota_usages.c.used)
_PORTS = (
    sa.select(ports.c.id, ports.c.device_id, ports.c.host, sa.func.count(addresses.c.address).label("taken"))
    .join(addresses, addresses.c.port_id == ports.c.id, isouter=True)
    .where(ports.c.device_owner.like("compute:%"))
    .group_by(ports.c.id, ports.c.device_id, ports.c.host)
)
_PORTS_OF = sa.select(ports.c.project_id, sa.func.count().label("count")).group_by(ports.c.project_id)
_STRAY = (
    sa.select(addresses.c.subnet_id, addresses.c.address)
    .join(ports, ports.c.id == addresses.c.port_id, isouter=True)
    .where(ports.c.id.is_(None))
)
_FAULTS = sa.select(server_faults.c.server_id, server_faults.c.details).order_by(server_faults.c.id)


def books(tx: Tx) -> Books:
    """All of it, of one snapshot."""
    live: dict[str, tuple[tuple[str, str], ...]] = {}
    leases: dict[tuple[str, int], str] = {}
    for row in tx.execute(_LIVE):
        live[row.subject] = (*live.get(row.subject, ()), (row.id, row.kind))
        if row.lease_owner is not None:
            leases[row.id, row.epoch] = row.lease_owner
    held: dict[str, dict[str, dict[str, int]]] = {}
    for row in tx.execute(_HELD):
        held.setdefault(row.server_id, {}).setdefault(row.name or "(no host)", {})[row.resource_class] = row.used
    return Books(
        servers={row.id: _server(row) for row in tx.execute(_SERVERS)},
        deleted=frozenset(tx.execute(_DELETED).scalars()),
        live_tasks=live,
        leases=leases,
        subjects={row.subject: row.live_task for row in tx.execute(_SUBJECTS)},
        held=held,
        used={
            (row.name, row.resource_class): (row.used, (row.total - row.reserved) * row.allocation_ratio)
            for row in tx.execute(_USED)
        },
        devices={_host(row): msgspec.convert(row.document, HostDevices) for row in tx.execute(_DEVICES)},
        devices_held={
            row.server_id: (_host(row), msgspec.convert(row.held, Held)) for row in tx.execute(_DEVICES_HELD)
        },
        places={
            (row.group_id, row.slot): PlacesRow(
                _host(row), row.members, row.max_server_per_host if row.policy == ANTI_AFFINITY else None
            )
            for row in tx.execute(_PLACES)
        },
        places_held={row.server_id: (row.group_id, row.slot) for row in tx.execute(_PLACES_HELD)},
        quota={(row.owner, row.resource): row.used for row in tx.execute(_QUOTA)},
        ports=tuple(PortRow(row.id, row.device_id, row.host, row.taken) for row in tx.execute(_PORTS)),
        ports_of={row.project_id: row._mapping["count"] for row in tx.execute(_PORTS_OF)},
        stray_addresses=tuple(f"{row.address} of subnet {row.subnet_id}" for row in tx.execute(_STRAY)),
        faults={row.server_id: row.details for row in tx.execute(_FAULTS)},
    )


def kinds_in_hand(tx: Tx, *, worker: str = "", host: str = "") -> frozenset[str]:
    """Kinds of tasks that have not ended, and are in this worker's hands, or of servers on this host."""
    query = _KINDS.where(tasks.c.lease_owner == worker) if worker else _KINDS
    if host:
        query = query.join(servers, servers.c.id == tasks.c.subject).where(servers.c.host == host)
    return frozenset(tx.execute(query).scalars())


class Reported(NamedTuple):
    """What a host said last that its guests take, and how many they are; None: that is not known."""

    vcpus: int
    memory_mib: int
    root_gib: int
    guests: int | None


def reports(tx: Tx) -> dict[str, Reported]:
    """Of all hosts, by name."""
    rows = tx.execute(sa.select(hosts.c.name, hosts.c.report).where(hosts.c.deleted.is_(False)))
    names = ("vcpus_used", "memory_used_mib", "disk_used_gib", "running_vms")
    return {row.name: Reported(*(row.report.get(name, 0) for name in names)) for row in rows}


def requests_with_tasks(tx: Tx) -> frozenset[str]:
    """Requests for which there is or was a task."""
    return frozenset(tx.execute(sa.select(tasks.c.request_id).distinct()).scalars())


def subjects_that_failed(tx: Tx) -> frozenset[str]:
    """Of tasks that ended without success."""
    return frozenset(tx.execute(sa.select(tasks.c.subject).where(tasks.c.outcome == "failed")).scalars())


@dataclass(frozen=True, slots=True)
class AfterTask:
    """What a task left behind."""

    vm_state: VMState
    task_state: TaskState | None
    power_state: PowerState
    host: str | None
    image_id: str | None
    is_deleted: bool
    why: str | None
    """What its action says of why it came to nothing."""


def after_task(tx: Tx, task_id: str, server_id: str) -> AfterTask | None:
    """How a server is, and what is said of the action of a task; None: there never was such a server."""
    found = tx.execute(_AFTER, {"task": task_id, "server": server_id}).first()
    if found is None:
        return None
    return AfterTask(
        vm_state=VMState(found.vm_state),
        task_state=TaskState(found.task_state) if found.task_state else None,
        power_state=PowerState(found.power_state),
        host=found.host,
        image_id=found.image_id,
        is_deleted=found.deleted_at is not None,
        why=found.message,
    )


_AFTER = (
    sa.select(
        servers.c.vm_state, servers.c.task_state, servers.c.power_state, servers.c.host, servers.c.image_id,
        servers.c.deleted_at, server_actions.c.message,
    )
    .join(server_actions, server_actions.c.task_id == sa.bindparam("task"), isouter=True)
    .where(servers.c.id == sa.bindparam("server"))
)  # fmt: skip


def overdue(tx: Tx, *, since: datetime) -> list[tuple[str, str]]:
    """Tasks (subject and kind) that were due then and have been in nobody's hands from then on."""
    t = tasks.c
    free = sa.or_(t.lease_until.is_(None), t.lease_until < since)
    query = sa.select(t.subject, t.kind).where(t.outcome.is_(None), t.due_at < since, free).order_by(t.due_at)
    return [(row.subject, row.kind) for row in tx.execute(query)]


def named_twice(tx: Tx, prefix: str) -> dict[str, int]:
    """Names that begin so and that several servers have or had, and how many."""
    name = servers.c.name
    count = sa.func.count()
    query = sa.select(name, count.label("many")).where(name.startswith(prefix)).group_by(name).having(count > 1)
    return {row.name: row.many for row in tx.execute(query)}


def done_twice(tx: Tx) -> list[tuple[str, str]]:
    """Tasks with a step that was done, or undone, more than once in one attempt, and that step."""
    _s = task_steps.c
    one = (_s.task_id, _s.attempt, _s.step, _s.undoing)
    query = sa.select(*one).where(_s.result == "done").group_by(*one).having(sa.func.count() > 1)
    return [(row.task_id, f"{'undo of ' if row.undoing else ''}{row.step}") for row in tx.execute(query)]


def _host(row: Any) -> str:
    return row.name or f"(no host {row.host_id})"


def _server(row: Any) -> ServerRow:
    needs, quota, size = _wanted(msgspec.json.encode((row.flavor, row.request.get("image_properties", {}))))
    return ServerRow(
        id=row.id,
        project_id=row.project_id,
        vm_state=VMState(row.vm_state),
        task_state=TaskState(row.task_state) if row.task_state else None,
        power_state=PowerState(row.power_state),
        host=row.host,
        image_id=row.image_id,
        needs=needs,
        quota=quota,
        cards=len(row.request.get("networks", ())),
        size=size,
    )


@lru_cache(maxsize=4096)
def _wanted(text: bytes) -> tuple[Mapping[str, int], Mapping[str, int], Mapping[str, int]]:
    """What a flavor with an image's properties needs, and takes of its project's quota, and the size of its guest."""
    flavor, properties = msgspec.json.decode(text, type=tuple[Flavor, dict[str, Any]])
    spec = request_spec(
        ["any"], project_id="", user_id="", flavor=flavor, image_id="", order=ServerOrder(image_properties=properties)
    )
    size = {"vcpus": flavor.vcpus, "memory_mib": flavor.memory_mib, "root_gib": flavor.root_gib}
    return dict(spec.amounts()), flavor.quota(), size
