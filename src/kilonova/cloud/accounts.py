"""What can be done with domains, projects, users, groups and roles."""

from collections.abc import Mapping
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.identity.passwords import Proof
from kilonova.identity.service import Identity
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Forbidden, NotFound
from kilonova.store.queries import identity as rows
from kilonova.store.queries import role_assignments
from kilonova.store.transactions import Tx


class Accounts:
    """Use cases of identity. What they change counts in every process as soon as it is answered."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._store = parts.store
        self._identity = identity

    def _allow(self, ctx: RequestContext, rule: str, **target: Any) -> None:
        self._parts.policy.authorize(ctx, f"identity:{rule}", target)

    async def find(
        self,
        ctx: RequestContext,
        kind: str,
        where: Mapping[str, Any],
        *,
        limit: int | None = None,
        marker: str | None = None,
    ) -> list[dict[str, Any]]:
        """Domains, projects, users, groups or roles whose columns equal `where`, by name.

        Args:
            marker: only those after the one with this id.
        """
        self._allow(ctx, f"list_{kind}s")
        return await self._store.read(_page, kind, where, limit, marker)

    async def get(self, ctx: RequestContext, kind: str, id: str) -> dict[str, Any]:
        """One of them.

        Raises:
            NotFound
        """
        if not (kind == "project" and id == ctx.project_id):
            self._allow(ctx, f"get_{kind}", user_id=id)
        return await self._store.read(rows.get, kind, id)

    async def create(self, ctx: RequestContext, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """A new one. A user's ``password`` is hashed.

        Raises:
            AlreadyExists, BadRequest
        """
        self._allow(ctx, f"create_{kind}")
        made = await self._hashed(values)
        made["id"] = self._parts.ids.uuid().replace("-", "")
        return await self._store.run(_create, kind, made)

    async def update(self, ctx: RequestContext, kind: str, id: str, values: dict[str, Any]) -> dict[str, Any]:
        """Change one. Tokens of what is disabled, or of a user with another password, are good no more.

        Nor are they when it is enabled again.

        Raises:
            NotFound, AlreadyExists
        """
        self._allow(ctx, f"update_{kind}")
        changes = await self._hashed(values)
        if "password_hash" in changes or changes.get("enabled") is False:
            changes["tokens_since"] = self._parts.clock.now()
        return await self._store.run(rows.update, kind, id, changes)

    async def delete(self, ctx: RequestContext, kind: str, id: str) -> None:
        """Remove one, and all that names it.

        Raises:
            NotFound
            Forbidden: a domain that is enabled, or has something in it.
        """
        self._allow(ctx, f"delete_{kind}")
        await self._store.run(_delete, kind, id)

    async def _hashed(self, values: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in values.items() if key != "password"}
        if "password" not in values:
            return rest
        password = values["password"]  # null: nobody can log in with one
        return {**rest, "password_hash": None if password is None else await self._identity.passwords.hash(password)}

    async def change_password(self, ctx: RequestContext, user_id: str, old: str, new: str) -> None:
        """A user's own. Its tokens are good no more.

        Raises:
            Unauthorized: the old one is wrong.
        """
        self._allow(ctx, "change_password", user_id=user_id)
        user = await self._store.read(rows.get, "user", user_id)
        proof = Proof(f"{user['name']} in {user['domain_id']}", ctx.source_address, old)
        await self._identity.passwords.check_user(proof, user)
        hashed = await self._identity.passwords.hash(new)
        changes = {"password_hash": hashed, "tokens_since": self._parts.clock.now()}
        await self._store.run(rows.update, "user", user_id, changes)

    # ---- members of groups --------------------------------------------------------------------------

    async def add_member(self, ctx: RequestContext, group_id: str, user_id: str) -> None:
        """A user becomes a member of a group.

        Raises:
            NotFound
        """
        self._allow(ctx, "add_user_to_group")
        await self._store.run(_add_member, group_id, user_id)

    async def remove_member(self, ctx: RequestContext, group_id: str, user_id: str) -> None:
        """And is one no more.

        Raises:
            NotFound
        """
        self._allow(ctx, "remove_user_from_group")
        await self._store.run(_remove_member, group_id, user_id)

    async def check_member(self, ctx: RequestContext, group_id: str, user_id: str) -> None:
        """
        Raises:
            NotFound: the user is no member.
        """
        self._allow(ctx, "check_user_in_group", user_id=user_id)
        if not await self._store.read(_is_member, group_id, user_id):
            raise NotFound(kind="group member", id=user_id)

    async def members(self, ctx: RequestContext, group_id: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The users of a group whose columns equal `where`."""
        self._allow(ctx, "list_users_in_group")
        return await self._store.read(_related, "group", group_id, where)

    async def groups_of(self, ctx: RequestContext, user_id: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The groups of a user whose columns equal `where`."""
        self._allow(ctx, "list_groups_for_user", user_id=user_id)
        return await self._store.read(_related, "user", user_id, where)


# ---- transactions -------------------------------------------------------------------------------------------


def _page(tx: Tx, kind: str, where: Mapping[str, Any], limit: int | None, marker: str | None) -> list[dict[str, Any]]:
    after = None
    if marker is not None:
        try:
            after = rows.get(tx, kind, marker)
        except NotFound:
            raise BadRequest(f"Invalid input for query parameters marker: there is no {kind} {marker}.") from None
    return rows.find(tx, kind, limit=limit, after=after, **where)


def _create(tx: Tx, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    if "domain_id" in values:
        try:
            rows.get(tx, "domain", values["domain_id"])
        except NotFound:
            raise BadRequest(
                f"Invalid input for field/attribute domain_id: there is no domain {values['domain_id']}."
            ) from None
    return rows.insert(tx, kind, values)


def _delete(tx: Tx, kind: str, id: str) -> None:
    if kind == "domain":
        if rows.get(tx, kind, id)["enabled"]:
            raise Forbidden("Disable a domain before you delete it.")
        if any(rows.find(tx, inner, limit=1, domain_id=id) for inner in ("user", "group", "project")):
            raise Forbidden("The domain has users, groups or projects; delete them first.")
    role_assignments.forget(tx, kind, id)
    rows.delete(tx, kind, id)


def _add_member(tx: Tx, group_id: str, user_id: str) -> None:
    rows.get(tx, "group", group_id)
    rows.get(tx, "user", user_id)
    rows.add_member(tx, group_id, user_id)


def _remove_member(tx: Tx, group_id: str, user_id: str) -> None:
    rows.get(tx, "group", group_id)
    rows.remove_member(tx, group_id, user_id)


def _is_member(tx: Tx, group_id: str, user_id: str) -> bool:
    rows.get(tx, "group", group_id)
    return rows.is_member(tx, group_id, user_id)


def _related(tx: Tx, kind: str, id: str, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows.get(tx, kind, id)
    return rows.members(tx, id, **where) if kind == "group" else rows.groups_of(tx, id, **where)
