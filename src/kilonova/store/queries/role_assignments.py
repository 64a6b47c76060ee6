"""Who has which role where. An actor is a user or a group; what a group has, each of its members has.

A place is a scope (``project``, ``domain`` or ``system``) and its id (``all`` for the system).
"""

from typing import Any, Final

import sqlalchemy as sa

from kilonova.model.errors import NotFound
from kilonova.store.queries.identity import changed, plain
from kilonova.store.tables.identity import group_assignments, group_members, role_assignments
from kilonova.store.transactions import Tx, insert_if_absent, select_rows

_OF: Final = {"user": (role_assignments, "user_id"), "group": (group_assignments, "group_id")}
_u, _g, _m = role_assignments.c, group_assignments.c, group_members.c


def _row(actor: str, actor_id: str, scope: str, scope_id: str, role_id: str) -> dict[str, str]:
    return {_OF[actor][1]: actor_id, "scope": scope, "scope_id": scope_id, "role_id": role_id}


def assign(tx: Tx, actor: str, actor_id: str, scope: str, scope_id: str, role_id: str) -> None:
    """Give a user or a group a role somewhere. Giving it twice is giving it once."""
    if insert_if_absent(tx, _OF[actor][0], _row(actor, actor_id, scope, scope_id, role_id)):
        changed(tx)


def unassign(tx: Tx, actor: str, actor_id: str, scope: str, scope_id: str, role_id: str) -> None:
    """Take a role away.

    Raises:
        NotFound
    """
    table, row = _OF[actor][0], _row(actor, actor_id, scope, scope_id, role_id)
    if tx.execute(sa.delete(table).where(*(table.c[name] == value for name, value in row.items()))).rowcount == 0:
        raise NotFound(kind="role assignment", id=role_id)
    changed(tx)


def find(tx: Tx, actor: str, /, **where: Any) -> list[dict[str, Any]]:
    """Those given to users, or to groups, whose columns equal `where`."""
    return [plain(row) for row in select_rows(tx, _OF[actor][0], where)]


def through_groups(tx: Tx, /, **where: Any) -> list[dict[str, Any]]:
    """Those that users have as members of groups: the group's, with the member's ``user_id``."""
    columns = {**dict(_g.items()), "user_id": _m.user_id}
    query = (
        sa.select(group_assignments, _m.user_id)
        .join(group_members, _m.group_id == _g.group_id)
        .where(*(columns[name] == value for name, value in where.items()))
    )
    return [plain(row) for row in tx.execute(query)]


_PLACE: Final[dict[str, Any]] = {"scope": sa.bindparam("scope"), "scope_id": sa.bindparam("scope_id")}
_ROLE_IDS = sa.union(
    sa.select(_u.role_id).where(
        _u.user_id == sa.bindparam("who"), _u.scope == _PLACE["scope"], _u.scope_id == _PLACE["scope_id"]
    ),
    sa.select(_g.role_id)
    .join(group_members, _m.group_id == _g.group_id)
    .where(_m.user_id == sa.bindparam("who"), _g.scope == _PLACE["scope"], _g.scope_id == _PLACE["scope_id"]),
)


def role_ids(tx: Tx, user_id: str, scope: str, scope_id: str) -> set[str]:
    """Ids of the roles that a user has somewhere, its own and its groups'; not those that others imply."""
    return set(tx.execute(_ROLE_IDS, {"who": user_id, "scope": scope, "scope_id": scope_id}).scalars())


def places(tx: Tx, user_id: str, scope: str) -> set[str]:
    """Ids of all projects (or domains) where a user has a role."""
    own = sa.select(_u.scope_id).where(_u.user_id == user_id, _u.scope == scope)
    groups = sa.select(_g.scope_id).join(group_members, _m.group_id == _g.group_id)
    return set(tx.execute(sa.union(own, groups.where(_m.user_id == user_id, _g.scope == scope))).scalars())


def forget(tx: Tx, kind: str, id: str) -> None:
    """Remove those that name a user, group, role, project or domain which is no more."""
    for actor, (table, column) in _OF.items():
        if kind == "role":
            named: Any = table.c.role_id == id
        elif kind in _OF:
            if kind != actor:
                continue
            named = table.c[column] == id
        else:
            named = sa.and_(table.c.scope == kind, table.c.scope_id == id)
        tx.execute(sa.delete(table).where(named))
