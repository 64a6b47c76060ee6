"""Hosts: what their agents report, and the feed of changes that schedulers read."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.devices import HostDevices
from kilonova.model.errors import NotFound
from kilonova.model.host import Amount, HostReport, HostState
from kilonova.model.service import Hypervisor, Inventory, Service
from kilonova.model.states import TaskState, VMState
from kilonova.store.queries import devices
from kilonova.store.queries import services as service_queries
from kilonova.store.tables.hosts import hosts, inventories, sequences, services
from kilonova.store.tables.servers import servers
from kilonova.store.transactions import Tx, insert_if_absent, update_rows

_h = hosts.c
_inv = inventories.c
_FEED = "hosts"

_MAIN_CLASSES = frozenset({"VCPU", "MEMORY_MB", "DISK_GB"})

BUSY = (TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING)
"""Task states that mean disk-heavy work on the host, besides vm_state ``building``."""


_BUMP = sa.update(sequences).where(sequences.c.name == _FEED).values(value=sequences.c.value + 1)
_SEQ = sa.select(sequences.c.value).where(sequences.c.name == _FEED)


def _next_seq(tx: Tx) -> int:
    if tx.execute(_BUMP).rowcount == 0 and not insert_if_absent(tx, sequences, {"name": _FEED, "value": 1}):
        return _next_seq(tx)
    return int(tx.execute(_SEQ).scalar_one())


def touch(tx: Tx, host_ids: Sequence[int]) -> None:
    """Put hosts at the end of the feed: something that schedulers see has changed."""
    seq = _next_seq(tx) if host_ids else 0
    for host_id in host_ids:
        update_rows(tx, hosts, {"id": host_id}, {"seq": seq})


def touch_by_name(tx: Tx, names: Sequence[str]) -> None:
    """As `touch`, by host name."""
    seq = _next_seq(tx) if names else 0
    for name in names:
        update_rows(tx, hosts, {"name": name}, {"seq": seq})


def record_report(
    tx: Tx,
    report: HostReport,
    *,
    uuid: str,
    at: datetime,
) -> bool:
    """Write what an agent says of its host, and its totals; whether schedulers need to know.

    `used` is never touched.
    """
    row = tx.execute(sa.select(_h.id, _h.report, _h.deleted).where(_h.name == report.host)).first()
    if row is not None and report.version == "1.0":
        report = _with_pieces_of(report, row.report)
    body = msgspec.json.decode(msgspec.json.encode(report))  # as the database gives it back
    if row is None:
        tx.execute(
            sa.insert(hosts).values(
                uuid=uuid,
                name=report.host,
                seq=_next_seq(tx),
                report=body,
                failed_builds=0,
                deleted=False,
                created_at=at,
                updated_at=at,
            )
        )
        host_id = tx.execute(sa.select(_h.id).where(_h.name == report.host)).scalar_one()
        changed = True
    else:
        host_id = row.id
        changed = row.deleted or _for_scheduling(row.report) != _for_scheduling(body)
        tx.execute(sa.update(hosts).where(_h.id == host_id).values(report=body, deleted=False, updated_at=at))
    totals = {name: (amount.total, amount.reserved, amount.ratio) for name, amount in report.more.items()}
    totals |= {
        "VCPU": (report.vcpus, report.reserved_vcpus, report.vcpus_ratio),
        "MEMORY_MB": (report.memory_mib, report.reserved_memory_mib, report.memory_ratio),
        "DISK_GB": (report.disk_gib, report.reserved_disk_gib, report.disk_ratio),
    }
    columns = (_inv.resource_class, _inv.total, _inv.reserved, _inv.allocation_ratio)
    known = {
        r.resource_class: (r.total, r.reserved, round(r.allocation_ratio, _RATIO_DIGITS))
        for r in tx.execute(sa.select(*columns).where(_inv.host_id == host_id))
    }
    for resource_class, (total, reserved, ratio) in totals.items():
        if resource_class not in known:
            tx.execute(
                sa.insert(inventories).values(
                    host_id=host_id,
                    resource_class=resource_class,
                    total=total,
                    reserved=reserved,
                    allocation_ratio=ratio,
                    used=0,
                )
            )
            changed = True
        elif known[resource_class] != (total, reserved, round(ratio, _RATIO_DIGITS)):
            tx.execute(
                sa.update(inventories)
                .where(_inv.host_id == host_id, _inv.resource_class == resource_class)
                .values(total=total, reserved=reserved, allocation_ratio=ratio)
            )
            changed = True
    for resource_class in known.keys() - totals.keys():
        # What is still held there keeps its row, of which nothing more can be taken.
        where = (_inv.host_id == host_id, _inv.resource_class == resource_class)
        is_gone = tx.execute(sa.delete(inventories).where(*where, _inv.used == 0)).rowcount > 0
        if is_gone or known[resource_class][:2] != (0, 0):
            tx.execute(sa.update(inventories).where(*where).values(total=0, reserved=0))
            changed = True
    if devices.report(tx, host_id, report.numa, report.pci):
        changed = True
    if changed:
        touch(tx, [host_id])
    return changed


def _with_pieces_of(report: HostReport, before: Mapping[str, Any]) -> HostReport:
    """A report of version 1.0 says nothing of cells, devices and further resources: they are as they were."""
    told = msgspec.convert(before, HostReport)
    return msgspec.structs.replace(report, numa=told.numa, pci=told.pci, more=told.more, metrics=told.metrics)


_RATIO_DIGITS = 4
"""To which ratios are compared: databases keep some of them in four bytes."""

_VOLATILE = {"vcpus_used", "memory_used_mib", "disk_used_gib", "running_vms", "uptime"}


def _for_scheduling(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in _VOLATILE}


_BUILD_WENT_WELL = sa.update(hosts).where(_h.name == sa.bindparam("host"), _h.failed_builds > 0).values(failed_builds=0)


def count_build(tx: Tx, host: str, *, failed: bool) -> None:
    """Count a build that failed on a host; one that went well sets the count back to zero."""
    if failed:
        tx.execute(
            sa.update(hosts).where(_h.name == host).values(failed_builds=_h.failed_builds + 1, seq=_next_seq(tx))
        )
    else:
        tx.execute(_BUILD_WENT_WELL, {"host": host})


def last_seq(tx: Tx) -> int:
    """Where the feed ends now. Cheap: schedulers ask before each decision."""
    value = tx.execute(_SEQ).scalar()
    return int(value or 0)


def changes_since(tx: Tx, seq: int, *, with_servers: bool = False) -> list[HostState]:
    """Hosts that changed after `seq`, oldest change first: five statements for any number of hosts.

    Args:
        with_servers: also the flavors and image properties of the servers there: one more statement, which reads them
            all.
    """
    changed = tx.execute(
        sa.select(
            hosts,
            services.c.disabled,
            services.c.is_up,
            services.c.forced_down,
        )
        .select_from(hosts.outerjoin(services, sa.and_(services.c.host == _h.name, services.c.service == "compute")))
        .where(_h.seq > seq)
        .order_by(_h.seq)
    ).all()
    if not changed:
        return []
    everything = seq == 0 or len(changed) > 500  # a long IN list is slower than the whole table
    of_hosts = sa.select(inventories)
    counts = (
        sa.select(
            servers.c.host,
            sa.func.count().label("servers"),
            sa.func.sum(
                sa.case((sa.or_(servers.c.vm_state == VMState.BUILDING, servers.c.task_state.in_(BUSY)), 1), else_=0)
            ).label("busy"),
        )
        .where(servers.c.deleted_at.is_(None), servers.c.host.is_not(None))
        .group_by(servers.c.host)
    )
    if not everything:
        of_hosts = of_hosts.where(_inv.host_id.in_([row.id for row in changed]))
        counts = counts.where(servers.c.host.in_([row.name for row in changed]))
    inventory: dict[int, dict[str, Any]] = {}
    for row in tx.execute(of_hosts):
        inventory.setdefault(row.host_id, {})[row.resource_class] = row
    counted = {row.host: (row.servers, int(row.busy or 0)) for row in tx.execute(counts)}
    pieces = devices.of_hosts(tx, None if everything else [row.id for row in changed])
    kinds = _kinds_of_servers(tx, None if everything else [row.name for row in changed]) if with_servers else {}
    return [
        _state(
            row,
            inventory.get(row.id, {}),
            counted.get(row.name, (0, 0)),
            pieces.get(row.id, NO_DEVICES),
            kinds.get(row.name, _NO_KINDS),
        )
        for row in changed
    ]


NO_DEVICES = HostDevices()
Kinds = tuple[set[str], Counter[str]]
_NO_KINDS: Kinds = (set(), Counter())


def _kinds_of_servers(tx: Tx, names: Sequence[str] | None) -> dict[str, Kinds]:
    """Host name to the names of its servers' flavors, and how many of them have which image property."""
    s = servers.c
    query = sa.select(s.host, s.flavor, s.request).where(s.deleted_at.is_(None), s.host.is_not(None))
    if names is not None:
        query = query.where(s.host.in_(names))
    found: dict[str, Kinds] = {}
    for row in tx.execute(query):
        flavors, properties = found.setdefault(row.host, (set(), Counter()))
        flavors.add(row.flavor["name"])
        properties.update(f"{key}={value}" for key, value in row.request.get("image_properties", {}).items())
    return found


def _state(
    row: Any, inventory: Mapping[str, Any], counts: tuple[int, int], pieces: HostDevices, kinds: Kinds
) -> HostState:
    report = row.report
    columns: dict[str, Any] = {}
    more = {
        name: Amount(total=line.total, reserved=line.reserved, ratio=line.allocation_ratio, used=line.used)
        for name, line in inventory.items()
        if name not in _MAIN_CLASSES
    }
    for resource_class, total, prefix in (
        ("VCPU", "vcpus", "vcpus"),
        ("MEMORY_MB", "memory_mib", "memory"),
        ("DISK_GB", "disk_gib", "disk"),
    ):
        unit = total.removeprefix(prefix)
        line = inventory.get(resource_class)
        columns[total] = line.total if line else 0
        columns[f"{prefix}_reserved{unit}"] = line.reserved if line else 0
        columns[f"{prefix}_ratio"] = line.allocation_ratio if line else 1.0
        columns[f"{prefix}_used{unit}"] = line.used if line else 0
    return HostState(
        seq=row.seq,
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        is_enabled=not row.disabled,
        is_up=bool(row.is_up) and not row.forced_down,
        deleted=row.deleted,
        num_instances=counts[0],
        io_ops=counts[1],
        failed_builds=row.failed_builds,
        arch=report.get("arch", ""),
        hypervisor_type=report.get("hypervisor_type", ""),
        hypervisor_version=report.get("hypervisor_version", 0),
        vm_mode=report.get("vm_mode", ""),
        supported_instances=tuple(tuple(t) for t in report.get("supported_instances", ())),
        capabilities=report.get("capabilities", {}),
        cpu_info=report.get("cpu_info", {}),
        traits=tuple(report.get("traits", ())),
        host_ip=report.get("host_ip", ""),
        metrics=report.get("metrics", {}),
        numa=pieces.cells,
        pci=pieces.pools,
        more=more,
        server_flavors=tuple(sorted(kinds[0])),
        server_image_properties=dict(kinds[1]),
        **columns,
    )


def hypervisors(tx: Tx, *, name_like: str | None = None, uuid: str | None = None) -> list[Hypervisor]:
    """Hosts for operators, by id: with report, service, inventories and the number of servers."""
    query = sa.select(hosts).where(_h.deleted.is_(False)).order_by(_h.id)
    if uuid is not None:
        query = query.where(_h.uuid == uuid)
    if name_like is not None:
        query = query.where(_h.name.contains(name_like, autoescape=True))
    rows = tx.execute(query).all()
    service_of: dict[str, Service] = {s.host: s for s in service_queries.list_all(tx, service="compute")}
    inventory: dict[int, dict[str, Inventory]] = {}
    for line in tx.execute(sa.select(inventories)):
        inventory.setdefault(line.host_id, {})[line.resource_class] = Inventory(
            resource_class=line.resource_class,
            total=line.total,
            reserved=line.reserved,
            allocation_ratio=line.allocation_ratio,
            used=line.used,
        )
    counts = {
        row.host: row.n
        for row in tx.execute(
            sa.select(servers.c.host, sa.func.count().label("n"))
            .where(servers.c.deleted_at.is_(None), servers.c.host.is_not(None))
            .group_by(servers.c.host)
        )
    }
    return [
        Hypervisor(
            id=row.id,
            uuid=row.uuid,
            name=row.name,
            report=msgspec.convert(row.report, HostReport),
            service=service_of[row.name],
            inventories=inventory.get(row.id, {}),
            servers=counts.get(row.name, 0),
        )
        for row in rows
        if row.name in service_of
    ]


def id_of(tx: Tx, name: str) -> int:
    """A host's id.

    Raises:
        NotFound
    """
    host_id = tx.execute(sa.select(_h.id).where(_h.name == name, _h.deleted.is_(False))).scalar()
    if host_id is None:
        raise NotFound(kind="Host", id=name)
    return int(host_id)


def retire(tx: Tx, name: str) -> None:
    """A host is gone for good: schedulers forget it. Its agent may bring it back by reporting again."""
    tx.execute(sa.update(hosts).where(_h.name == name).values(deleted=True, seq=_next_seq(tx)))


def statuses(tx: Tx, names: Collection[str]) -> dict[str, str]:
    """`host_status` of the Compute API for some hosts: UP, DOWN or MAINTENANCE."""
    if not names:
        return {}
    rows = tx.execute(
        sa.select(services.c.host, services.c.is_up, services.c.disabled, services.c.forced_down).where(
            services.c.service == "compute", services.c.host.in_(names)
        )
    )
    return {
        row.host: "MAINTENANCE" if row.disabled else "UP" if row.is_up and not row.forced_down else "DOWN"
        for row in rows
    }
