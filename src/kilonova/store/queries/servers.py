"""Servers: rows, lists, and the writes by which tasks change their state."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.flavor import Flavor
from kilonova.model.server import Fault, Page, Server, ServerAction, ServerFilter, ServerOrder
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.store.tables.servers import server_actions, server_faults, servers
from kilonova.store.transactions import Tx, insert_row, insert_rows, select_rows, update_rows

_c = servers.c

SORT_KEYS: Mapping[str, sa.Column[Any]] = {
    "created_at": _c.created_at,
    "updated_at": _c.updated_at,
    "launched_at": _c.launched_at,
    "terminated_at": _c.terminated_at,
    "display_name": _c.name,
    "name": _c.name,
    "hostname": _c.hostname,
    "host": _c.host,
    "node": _c.host,
    "uuid": _c.id,
    "id": _c.number,
    "vm_state": _c.vm_state,
    "task_state": _c.task_state,
    "power_state": _c.power_state,
    "image_ref": _c.image_id,
    "key_name": _c.key_name,
    "project_id": _c.project_id,
    "user_id": _c.user_id,
    "availability_zone": _c.availability_zone,
    "launch_index": _c.launch_index,
    "locked": _c.locked,
    "progress": _c.progress,
    "root_device_name": _c.disk_config,
    "display_description": _c.description,
    "access_ip_v4": _c.access_ipv4,
    "access_ip_v6": _c.access_ipv6,
}
"""Sort keys of the Compute API and the columns behind them."""


def _server(row: Any, fault: Fault | None = None) -> Server:
    return Server(
        number=row.number,
        id=row.id,
        project_id=row.project_id,
        user_id=row.user_id,
        name=row.name,
        hostname=row.hostname,
        description=row.description,
        vm_state=VMState(row.vm_state),
        task_state=TaskState(row.task_state) if row.task_state else None,
        power_state=PowerState(row.power_state),
        host=row.host,
        availability_zone=row.availability_zone,
        image_id=row.image_id,
        flavor=msgspec.convert(row.flavor, Flavor),
        key_name=row.key_name,
        key_data=row.key_data,
        user_data=row.user_data,
        config_drive=row.config_drive,
        metadata=row.metadata,
        tags=row.tags,
        order=msgspec.convert(row.request, ServerOrder),
        reservation_id=row.reservation_id,
        launch_index=row.launch_index,
        access_ipv4=row.access_ipv4,
        access_ipv6=row.access_ipv6,
        disk_config=row.disk_config,
        locked=row.locked,
        progress=row.progress,
        created_at=row.created_at,
        updated_at=row.updated_at,
        launched_at=row.launched_at,
        terminated_at=row.terminated_at,
        deleted_at=row.deleted_at,
        fault=fault,
    )


def insert(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert new servers; each mapping has the columns, with `flavor` and `order` as Structs."""
    insert_rows(
        tx,
        servers,
        [
            {
                **{k: v for k, v in row.items() if k != "order"},
                "flavor": msgspec.to_builtins(row["flavor"]),
                "request": msgspec.to_builtins(row["order"]),
            }
            for row in rows
        ],
    )


def find(tx: Tx, server_id: str, *, project_id: str | None = None, deleted: bool = False) -> Server | None:
    """A server with its fault, or None. With `project_id`, only of that project; `deleted` ones only if asked."""
    row = select_rows(tx, servers, {"id": server_id}).first()
    if row is None or (row.deleted_at is not None and not deleted):
        return None
    if project_id is not None and row.project_id != project_id:
        return None
    fault = faults(tx, [row.id]).get(row.id) if row.vm_state == VMState.ERROR else None
    return _server(row, fault)


def get(tx: Tx, server_id: str, *, project_id: str | None = None, deleted: bool = False) -> Server:
    """As `find`, but raises NotFound (of kind ``Instance``)."""
    server = find(tx, server_id, project_id=project_id, deleted=deleted)
    if server is None:
        raise NotFound(kind="Instance", id=server_id)
    return server


_LOCK = (
    sa.select(servers)
    .where(_c.id == sa.bindparam("server", type_=_c.id.type), _c.deleted_at.is_(None))
    .with_for_update()  # SQLite, which has one writer at a time, leaves it out
)


def lock(tx: Tx, server_id: str, *, project_id: str | None = None) -> Server:
    """A server as it is now, without its fault; no other transaction changes it until this one has ended.

    Whoever looks at a server's state and writes by what was seen begins with this. The order of locks is *server,
    task, subject of the task*, for users' orders as for workers, whose commits write what a step changed and then
    that it is done. Room and quota are locked between server and task.

    Raises:
        NotFound: it never was, it is deleted by now, or, with `project_id`, it is another project's.
    """
    row = tx.execute(_LOCK, {"server": server_id}).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise NotFound(kind="Instance", id=server_id)
    return _server(row)


def faults(tx: Tx, server_ids: Sequence[str]) -> dict[str, Fault]:
    """The newest fault of each server that has one."""
    newest = (
        sa.select(sa.func.max(server_faults.c.id))
        .where(server_faults.c.server_id.in_(server_ids))
        .group_by(server_faults.c.server_id)
    )
    rows = tx.execute(sa.select(server_faults).where(server_faults.c.id.in_(newest)))
    return {
        row.server_id: Fault(code=row.code, message=row.message, details=row.details, created_at=row.created_at)
        for row in rows
    }


def _conditions(wanted: ServerFilter) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = [_c.deleted_at.is_not(None) if wanted.deleted else _c.deleted_at.is_(None)]
    equal = {
        _c.project_id: wanted.project_id,
        _c.user_id: wanted.user_id,
        _c.vm_state: wanted.vm_state,
        _c.task_state: wanted.task_state,
        _c.power_state: wanted.power_state,
        _c.host: wanted.host,
        _c.image_id: wanted.image_id,
        _c.availability_zone: wanted.availability_zone,
        _c.key_name: wanted.key_name,
        _c.reservation_id: wanted.reservation_id,
        _c.locked: wanted.locked,
    }
    where += [column == value for column, value in equal.items() if value is not None]
    if wanted.flavor_id is not None:
        where.append(_c.flavor["id"].as_string() == wanted.flavor_id)
    if wanted.status is not None:
        where.append(_c.vm_state.in_(wanted.status))
    if wanted.ids is not None:
        where.append(_c.id.in_(wanted.ids))
    if wanted.changed_since is not None:
        where.append(_c.updated_at >= wanted.changed_since)
        if not wanted.deleted:  # the API shows what was deleted since, too
            where[0] = sa.true()
    if wanted.changed_before is not None:
        where.append(_c.updated_at <= wanted.changed_before)
    return where


def _keyset(order: list[tuple[sa.Column[Any], bool]], marker: Any) -> sa.ColumnElement[bool]:
    """Rows after `marker` in `order` (pairs of column and whether it descends). NULL sorts first, ascending."""
    alternatives: list[sa.ColumnElement[bool]] = []
    equal_so_far: list[sa.ColumnElement[bool]] = []
    for column, descends in order:
        value = getattr(marker, column.name)
        further: sa.ColumnElement[bool]
        if value is None:
            further = sa.false() if descends else column.is_not(None)
            same = column.is_(None)
        else:
            further = sa.or_(column < value, column.is_(None)) if descends else column > value
            same = column == value
        alternatives.append(sa.and_(*equal_so_far, further))
        equal_so_far.append(same)
    return sa.or_(*alternatives)


def list_page(tx: Tx, wanted: ServerFilter, page: Page) -> list[Server]:
    """One page of servers, in a stable order: one statement for the rows, one for their faults.

    Raises:
        BadRequest: unknown sort key, or a marker that is no server of this list.
    """
    order: list[tuple[sa.Column[Any], bool]] = []
    for key, direction in page.sort:
        if key not in SORT_KEYS:
            raise BadRequest(f"Servers cannot be sorted by '{key}'; possible are: {', '.join(sorted(SORT_KEYS))}.")
        order.append((SORT_KEYS[key], direction == "desc"))
    order.append((_c.number, order[-1][1] if order else True))
    query = sa.select(servers).where(*_conditions(wanted))
    if page.marker is not None:
        scope = [_c.id == page.marker]
        if wanted.project_id is not None:
            scope.append(_c.project_id == wanted.project_id)
        marker = tx.execute(sa.select(servers).where(*scope)).first()
        if marker is None:
            raise BadRequest(f"marker [{page.marker}] not found")
        query = query.where(_keyset(order, marker))
    for column, descends in order:
        if column.nullable:
            # The databases differ on where NULL goes: say it, so that pages agree.
            query = query.order_by(column.is_not(None).desc() if descends else column.is_not(None))
        query = query.order_by(column.desc() if descends else column)
    rows = _matching(tx, query, wanted, page.limit)
    broken = [row.id for row in rows if row.vm_state == VMState.ERROR]
    fault_of = faults(tx, broken) if broken else {}
    return [_server(row, fault_of.get(row.id)) for row in rows]


def _matching(tx: Tx, query: sa.Select[Any], wanted: ServerFilter, limit: int) -> list[Any]:
    """Apply what SQL cannot say on all databases: regular expressions and tag sets."""
    name = re.compile(wanted.name) if wanted.name else None
    some_tags = wanted.tags_all or wanted.tags_any or wanted.not_tags_all or wanted.not_tags_any
    if name is None and not some_tags:
        return list(tx.execute(query.limit(limit)).all())
    rows: list[Any] = []
    for row in tx.execute(query):
        tags = set(row.tags)
        if name is not None and not name.search(row.name):
            continue
        if not tags.issuperset(wanted.tags_all) or (wanted.tags_any and tags.isdisjoint(wanted.tags_any)):
            continue
        if wanted.not_tags_all and tags.issuperset(wanted.not_tags_all):
            continue
        if not tags.isdisjoint(wanted.not_tags_any):
            continue
        rows.append(row)
        if len(rows) == limit:
            break
    return rows


def update(tx: Tx, server_id: str, *, at: datetime, **values: Any) -> None:
    """Write some columns of one server."""
    update_rows(tx, servers, {"id": server_id}, {"updated_at": at, **values})


def become(
    tx: Tx,
    server_id: str,
    *,
    at: datetime,
    vm_state: VMState | None = None,
    task_state: TaskState | None = None,
    **values: Any,
) -> None:
    """Put a server into a state. `task_state` None: at rest."""
    if vm_state is not None:
        values["vm_state"] = vm_state
    update(tx, server_id, at=at, task_state=task_state, **values)


def add_fault(tx: Tx, server_id: str, fault: Fault) -> None:
    """Tell why a server went wrong."""
    tx.execute(
        sa.insert(server_faults).values(
            server_id=server_id,
            code=fault.code,
            message=fault.message[:512],
            details=fault.details,
            created_at=fault.created_at,
        )
    )


def of_host(tx: Tx, host: str) -> list[Server]:
    """All servers that live on a host, in one statement."""
    rows = tx.execute(sa.select(servers).where(_c.host == host, _c.deleted_at.is_(None)))
    return [_server(row) for row in rows]


_RESTS_AS_SEEN = sa.update(servers).where(
    _c.id == sa.bindparam("server", type_=_c.id.type),
    # An expression, which has no index: MariaDB would look for the row by that of `updated_at`, and so lock it the
    # other way round than all others do, who look by id.
    sa.func.coalesce(_c.updated_at, _c.created_at) == sa.bindparam("as_of", type_=_c.updated_at.type),
    _c.task_state.is_(None),
    _c.deleted_at.is_(None),
)
_POWER_SEEN = _RESTS_AS_SEEN.values(power_state=sa.bindparam("power"))
_STATE_SEEN = _POWER_SEEN.values(
    vm_state=sa.bindparam("state"), updated_at=sa.bindparam("at", type_=_c.updated_at.type)
)


def follow_guest(
    tx: Tx, server_id: str, *, as_of: datetime, power_state: PowerState, vm_state: VMState | None = None, at: datetime
) -> bool:
    """Record what a hypervisor says of a guest; False, and nothing is written, if the server is not what it was.

    Args:
        as_of: the `updated_at` of the server, at rest, of which the hypervisor speaks.
        vm_state: what the server is by that; None: as before, and then it does not count as a change of the server.
    """
    seen: dict[str, Any] = {"server": server_id, "as_of": as_of, "power": int(power_state)}
    if vm_state is None:
        return tx.execute(_POWER_SEEN, seen).rowcount == 1
    return tx.execute(_STATE_SEEN, {**seen, "state": vm_state, "at": at}).rowcount == 1


# ---- actions --------------------------------------------------------------------------------------------


def add_action(
    tx: Tx,
    *,
    server_id: str,
    action: str,
    request_id: str,
    user_id: str,
    project_id: str,
    task_id: str | None,
    at: datetime,
) -> None:
    """Record that something was asked of a server."""
    values = {
        "server_id": server_id,
        "action": action,
        "request_id": request_id,
        "user_id": user_id,
        "project_id": project_id,
        "task_id": task_id,
        "started_at": at,
        "updated_at": at,
    }
    insert_row(tx, server_actions, values)


def fail_action(tx: Tx, *, task_id: str, message: str, at: datetime) -> None:
    """Record that the action behind a task came to nothing."""
    update_rows(tx, server_actions, {"task_id": task_id}, {"message": message[:512], "updated_at": at})


def touch_action(tx: Tx, *, task_id: str, at: datetime) -> None:
    """Record that the action behind a task has moved on."""
    update_rows(tx, server_actions, {"task_id": task_id}, {"updated_at": at})


def _action(row: Any) -> ServerAction:
    return ServerAction(**row._mapping)


def actions_of(
    tx: Tx,
    server_id: str,
    *,
    limit: int = 1000,
    marker: str | None = None,
    since: datetime | None = None,
    before: datetime | None = None,
) -> list[ServerAction]:
    """Actions of a server, newest first. `marker` is a request id.

    Raises:
        BadRequest: no action with that request id.
    """
    a = server_actions.c
    query = sa.select(server_actions).where(a.server_id == server_id)
    if marker is not None:
        found = tx.execute(sa.select(a.id).where(a.server_id == server_id, a.request_id == marker)).scalar()
        if found is None:
            raise BadRequest(f"marker [{marker}] not found")
        query = query.where(a.id < found)
    if since is not None:
        query = query.where(a.updated_at >= since)
    if before is not None:
        query = query.where(a.updated_at <= before)
    return [_action(row) for row in tx.execute(query.order_by(a.id.desc()).limit(limit))]


def action(tx: Tx, server_id: str, request_id: str) -> ServerAction:
    """One action of a server by its request.

    Raises:
        NotFound
    """
    a = server_actions.c
    row = tx.execute(
        sa.select(server_actions).where(a.server_id == server_id, a.request_id == request_id).order_by(a.id.desc())
    ).first()
    if row is None:
        raise NotFound(kind="Action", id=request_id)
    return _action(row)
