"""Server groups, and the places on hosts that their strict rules allow.

Two servers of an ``anti-affinity`` group that are placed at the same moment by two conductors must not meet on one
host. So a group's rule is kept as capacity is: a row that a conditional UPDATE takes from, in the transaction
of the claim. With ``anti-affinity`` there is a row for each host, which takes `max_server_per_host` members; with
``affinity`` one row for the group, which belongs to one host as long as it has members. Soft rules are the
weighers' business and take nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import NotFound
from kilonova.model.request_spec import ServerGroup
from kilonova.model.server_group import AFFINITY, ANTI_AFFINITY, ServerGroupRecord
from kilonova.store.tables.groups import group_claims, group_slots, server_group_members, server_groups
from kilonova.store.tables.servers import servers
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows

_g = server_groups.c
_m = server_group_members.c
_slot = group_slots.c

_ONE_FOR_ALL = "all"


# ---- groups ------------------------------------------------------------------------------------------------


def insert(tx: Tx, group: ServerGroupRecord) -> None:
    """Add a group without members."""
    names = ("id", "project_id", "user_id", "name", "policy", "max_server_per_host", "created_at")
    insert_row(tx, server_groups, {name: getattr(group, name) for name in names})


def get(tx: Tx, group_id: str, *, project_id: str | None = None) -> ServerGroupRecord:
    """One group; with `project_id`, only of that project.

    Raises:
        NotFound
    """
    row = select_rows(tx, server_groups, {"id": group_id}).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise NotFound(kind="Instance group", id=group_id)
    return _with_members(tx, [row])[0]


def list_page(tx: Tx, *, project_id: str | None, limit: int | None = None, offset: int = 0) -> list[ServerGroupRecord]:
    """Groups of a project (None: of all), oldest first. The API of groups pages by offset."""
    query = sa.select(server_groups).order_by(_g.created_at, _g.id)
    if project_id is not None:
        query = query.where(_g.project_id == project_id)
    if limit is not None:
        query = query.limit(limit)
    return _with_members(tx, tx.execute(query.offset(offset)).all())


def _with_members(tx: Tx, rows: Sequence[Any]) -> list[ServerGroupRecord]:
    if not rows:
        return []
    members: dict[str, list[str]] = {}
    query = sa.select(_m.group_id, _m.server_id).where(_m.group_id.in_([row.id for row in rows]))
    for row in tx.execute(query.order_by(_m.server_id)):
        members.setdefault(row.group_id, []).append(row.server_id)
    return [ServerGroupRecord(**row._mapping, members=tuple(members.get(row.id, ()))) for row in rows]


def delete(tx: Tx, group_id: str) -> None:
    """Remove a group; its servers stay where they are, and belong to none."""
    tx.execute(sa.delete(server_group_members).where(_m.group_id == group_id))
    tx.execute(sa.delete(group_claims).where(group_claims.c.group_id == group_id))
    tx.execute(sa.delete(group_slots).where(_slot.group_id == group_id))
    tx.execute(sa.delete(server_groups).where(_g.id == group_id))


def count_members(tx: Tx, group_id: str) -> int:
    """How many servers belong to a group."""
    return int(tx.execute(sa.select(sa.func.count()).where(_m.group_id == group_id)).scalar_one())


def add_members(tx: Tx, group_id: str, server_ids: Sequence[str]) -> None:
    """Servers belong to a group from now on."""
    tx.execute(
        sa.insert(server_group_members), [{"server_id": server_id, "group_id": group_id} for server_id in server_ids]
    )


def forget_server(tx: Tx, server_id: str) -> None:
    """A server is gone: it is no member any more."""
    tx.execute(_FORGET, {"server": server_id})


_FORGET = sa.delete(server_group_members).where(_m.server_id == sa.bindparam("server"))


# ---- for the scheduler ------------------------------------------------------------------------------------


_GROUP_OF = sa.select(_m.group_id).where(_m.server_id == sa.bindparam("server"))
_HOSTS_OF_MEMBERS = (
    sa.select(servers.c.id, servers.c.host)
    .select_from(server_group_members.join(servers, servers.c.id == _m.server_id))
    .where(_m.group_id == sa.bindparam("group"), servers.c.host.is_not(None), servers.c.deleted_at.is_(None))
)


def of_server(tx: Tx, server_id: str) -> ServerGroup | None:
    """The group that a server belongs to, with the hosts of the other members."""
    group_id = tx.execute(_GROUP_OF, {"server": server_id}).scalar()
    return None if group_id is None else for_scheduling(tx, group_id, besides=server_id)


def for_scheduling(tx: Tx, group_id: str, *, besides: str = "") -> ServerGroup:
    """A group, with the hosts of its members but one.

    Raises:
        NotFound
    """
    group = select_rows(tx, server_groups, {"id": group_id}).first()
    if group is None:
        raise NotFound(kind="Instance group", id=group_id)
    rows = tx.execute(_HOSTS_OF_MEMBERS, {"group": group_id})
    return ServerGroup(
        id=group.id,
        policy=group.policy,
        max_server_per_host=group.max_server_per_host,
        members={row.id: row.host for row in rows if row.id != besides},
    )


def hosts_of_servers(tx: Tx, server_ids: Sequence[str], *, project_id: str) -> Mapping[str, str]:
    """Where some servers of a project are, of those that are on a host."""
    s = servers.c
    query = sa.select(s.id, s.host).where(
        s.id.in_(server_ids), s.project_id == project_id, s.host.is_not(None), s.deleted_at.is_(None)
    )
    return {row.id: row.host for row in tx.execute(query)}


# ---- places ---------------------------------------------------------------------------------------------------

_OF_SLOT = sa.update(group_slots).where(_slot.group_id == sa.bindparam("group"), _slot.slot == sa.bindparam("name"))
_TAKE_APART = _OF_SLOT.where(_slot.members < sa.bindparam("most", type_=sa.Integer)).values(members=_slot.members + 1)
_TAKE_TOGETHER = _OF_SLOT.where(sa.or_(_slot.members == 0, _slot.host_id == sa.bindparam("host"))).values(
    members=_slot.members + 1, host_id=sa.bindparam("host")
)
_LEAVE = sa.delete(group_claims).where(group_claims.c.server_id == sa.bindparam("server"))
_RETURN = _OF_SLOT.where(_slot.members > 0).values(members=_slot.members - 1)


def claim(tx: Tx, group: ServerGroup, *, server_id: str, host_id: int) -> bool:
    """Take a place on a host under the group's rule; whether there was one. Soft rules always have one.

    The server holds no place of this group yet (`release` first).
    """
    if group.policy == ANTI_AFFINITY:
        slot, take, more = str(host_id), _TAKE_APART, {"most": group.max_server_per_host}
    elif group.policy == AFFINITY:
        slot, take, more = _ONE_FOR_ALL, _TAKE_TOGETHER, {"host": host_id}
    else:
        return True
    insert_if_absent(tx, group_slots, {"group_id": group.id, "slot": slot, "host_id": host_id, "members": 0})
    if tx.execute(take, {"group": group.id, "name": slot, **more}).rowcount == 0:
        return False
    insert_row(tx, group_claims, {"server_id": server_id, "group_id": group.id, "slot": slot})
    return True


def release(tx: Tx, server_id: str) -> None:
    """Give a server's place back. Holding none is not an error."""
    held = select_rows(tx, group_claims, {"server_id": server_id}).first()
    if held is None:
        return
    if tx.execute(_LEAVE, {"server": server_id}).rowcount:  # who gives it back at the same moment removes nothing
        tx.execute(_RETURN, {"group": held.group_id, "name": held.slot})
