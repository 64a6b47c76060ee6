"""Who has which role where: giving, taking away, and the lists of it."""

from dataclasses import dataclass
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.identity.roles import with_implied
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, NotFound
from kilonova.store.queries import identity as rows
from kilonova.store.queries import role_assignments
from kilonova.store.transactions import Tx


@dataclass(frozen=True)
class Holder:
    """Who may have roles, and where: a user or a group, on a project, a domain or the system."""

    actor: str
    actor_id: str
    scope: str
    scope_id: str


@dataclass(frozen=True, kw_only=True)
class AssignmentFilter:
    """Which assignments are wanted; None is any."""

    user_id: str | None = None
    group_id: str | None = None
    role_id: str | None = None
    scope: str | None = None
    scope_id: str | None = None
    effective: bool = False
    """What users have in the end, through groups and by roles that imply others; groups are not shown."""


class RoleAssignments:
    """Use cases of role assignments. Each counts in every process as soon as it is answered."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    def _allow(self, ctx: RequestContext, rule: str) -> None:
        self._parts.policy.authorize(ctx, f"identity:{rule}", {})

    async def grant(self, ctx: RequestContext, holder: Holder, role_id: str) -> None:
        """Give a role.

        Raises:
            NotFound
        """
        self._allow(ctx, "create_grant")
        await self._store.run(_grant, holder, role_id)

    async def ungrant(self, ctx: RequestContext, holder: Holder, role_id: str) -> None:
        """Take it away.

        Raises:
            NotFound
        """
        self._allow(ctx, "revoke_grant")
        await self._store.run(
            role_assignments.unassign, holder.actor, holder.actor_id, holder.scope, holder.scope_id, role_id
        )

    async def check(self, ctx: RequestContext, holder: Holder, role_id: str) -> None:
        """
        Raises:
            NotFound: it does not have this role there (of its own; groups and implied roles do not count).
        """
        self._allow(ctx, "check_grant")
        if role_id not in {role["id"] for role in await self._store.read(_grants, holder)}:
            raise NotFound(kind="role assignment", id=role_id)

    async def roles_of(self, ctx: RequestContext, holder: Holder) -> list[dict[str, Any]]:
        """The roles that a user or a group was given somewhere."""
        self._allow(ctx, "list_grants")
        return await self._store.read(_grants, holder)

    async def find(self, ctx: RequestContext, wanted: AssignmentFilter) -> list[dict[str, Any]]:
        """Role assignments, with the rows of all that they name.

        Raises:
            BadRequest: effective ones of a group: there are none.
        """
        self._allow(ctx, "list_role_assignments")
        if wanted.effective and wanted.group_id is not None:
            raise BadRequest("Invalid input for query parameters: 'effective' and 'group.id' exclude each other.")
        if wanted.user_id is not None and wanted.group_id is not None:
            raise BadRequest("Invalid input for query parameters: 'user.id' and 'group.id' exclude each other.")
        return await self._store.read(_list, wanted)

    async def projects_of(self, ctx: RequestContext, user_id: str) -> list[dict[str, Any]]:
        """Projects where a user has a role, its own or a group's."""
        self._parts.policy.authorize(ctx, "identity:list_user_projects", {"user_id": user_id})
        return await self._store.read(_places, user_id, "project")

    async def own_places(self, ctx: RequestContext, scope: str) -> list[dict[str, Any]]:
        """Projects (or domains) that the caller could log in to."""
        return [place for place in await self._store.read(_places, ctx.user_id, scope) if place["enabled"]]

    async def has_system_role(self, ctx: RequestContext) -> bool:
        """Whether the caller could log in to the system."""
        return bool(await self._store.read(role_assignments.role_ids, ctx.user_id, "system", "all"))


# ---- transactions -------------------------------------------------------------------------------------------


def _check(tx: Tx, holder: Holder) -> None:
    if holder.scope != "system":
        rows.get(tx, holder.scope, holder.scope_id)
    rows.get(tx, holder.actor, holder.actor_id)


def _grant(tx: Tx, holder: Holder, role_id: str) -> None:
    _check(tx, holder)
    rows.get(tx, "role", role_id)
    role_assignments.assign(tx, holder.actor, holder.actor_id, holder.scope, holder.scope_id, role_id)


def _grants(tx: Tx, holder: Holder) -> list[dict[str, Any]]:
    _check(tx, holder)
    who = {f"{holder.actor}_id": holder.actor_id}
    held = role_assignments.find(tx, holder.actor, scope=holder.scope, scope_id=holder.scope_id, **who)
    ids = {a["role_id"] for a in held}
    return [role for role in rows.find(tx, "role") if role["id"] in ids]


def _places(tx: Tx, user_id: str, scope: str) -> list[dict[str, Any]]:
    found = rows.by_id(tx, scope, role_assignments.places(tx, user_id, scope))
    return sorted(found.values(), key=lambda place: (place["name"], place["id"]))


def _list(tx: Tx, wanted: AssignmentFilter) -> list[dict[str, Any]]:
    place = {"scope": wanted.scope, "scope_id": wanted.scope_id}
    where = {name: value for name, value in place.items() if value is not None}
    who = {} if wanted.user_id is None else {"user_id": wanted.user_id}
    if wanted.effective:
        return _named(tx, _effective(tx, wanted.role_id, {**where, **who}))
    if wanted.role_id is not None:
        where["role_id"] = wanted.role_id
    found = [] if wanted.group_id is not None else role_assignments.find(tx, "user", **where, **who)
    if wanted.user_id is None:
        of = {} if wanted.group_id is None else {"group_id": wanted.group_id}
        found += role_assignments.find(tx, "group", **where, **of)
    return _named(tx, found)


def _effective(tx: Tx, role_id: str | None, where: dict[str, Any]) -> list[dict[str, Any]]:
    held: dict[tuple[str, str, str], dict[str, str | None]] = {}
    for given in (*role_assignments.find(tx, "user", **where), *role_assignments.through_groups(tx, **where)):
        at = held.setdefault((given["user_id"], given["scope"], given["scope_id"]), {})
        at.setdefault(given["role_id"], given.get("group_id"))  # its own first
    roles = rows.find(tx, "role")
    return [
        {"user_id": u, "scope": s, "scope_id": i, "role_id": role["id"], "through": given_by.get(role["id"])}
        for (u, s, i), given_by in sorted(held.items())
        for role in with_implied(roles, given_by)
        if role_id in (None, role["id"])
    ]


def _named(tx: Tx, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_id = {
        kind: rows.by_id(tx, kind, {a[f"{kind}_id"] for a in found if f"{kind}_id" in a})
        for kind in ("user", "group", "role")
    }
    for scope in ("project", "domain"):
        by_id[scope] = rows.by_id(tx, scope, {a["scope_id"] for a in found if a["scope"] == scope})
    domains = {row["id"]: row for row in rows.find(tx, "domain")}
    return [
        {
            **a,
            "user": by_id["user"].get(a.get("user_id", "")),
            "group": by_id["group"].get(a.get("group_id", "")),
            "role": by_id["role"].get(a["role_id"]),
            "target": by_id.get(a["scope"], {}).get(a["scope_id"]),
            "domains": domains,
        }
        for a in found
    ]
