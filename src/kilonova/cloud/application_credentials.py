"""Application credentials: a secret with which a program acts as a user on one project, with some of its roles."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.identity.service import Identity
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Forbidden, NotFound
from kilonova.store.queries import identity as rows
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class NewCredential:
    """What somebody wants."""

    name: str
    secret: str | None = None
    """None: one is made."""
    description: str | None = None
    roles: tuple[tuple[str | None, str | None], ...] = ()
    """Each by id or name. None at all: those of its maker."""
    unrestricted: bool = False
    expires_at: datetime | None = None


class ApplicationCredentials:
    """Of every user."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._store = parts.store
        self._identity = identity

    def _allow(self, ctx: RequestContext, verb: str, user_id: str) -> None:
        self._parts.policy.authorize(ctx, f"identity:{verb}", {"user_id": user_id})

    async def find(self, ctx: RequestContext, user_id: str, name: str | None = None) -> list[dict[str, Any]]:
        """A user's."""
        self._allow(ctx, "list_application_credentials", user_id)
        where = {} if name is None else {"name": name}
        return await self._store.read(rows.credentials, user_id=user_id, **where)

    async def get(self, ctx: RequestContext, user_id: str, id: str) -> dict[str, Any]:
        """One of them.

        Raises:
            NotFound
        """
        self._allow(ctx, "get_application_credential", user_id)
        found = await self._store.read(rows.credentials, user_id=user_id, id=id)
        if not found:
            raise NotFound(kind="application_credential", id=id)
        return found[0]

    async def create(self, ctx: RequestContext, user_id: str, new: NewCredential) -> tuple[dict[str, Any], str]:
        """A new one on the caller's project; its secret is given out only now.

        Raises:
            Forbidden: the caller itself came with one, and that may not make others.
            AlreadyExists
        """
        self._allow(ctx, "create_application_credential", user_id)
        _must_not_be_restricted(ctx)
        if not ctx.project_id:
            raise BadRequest("An application credential needs a token on a project.")
        if new.expires_at is not None and new.expires_at <= self._parts.clock.now():
            raise BadRequest("Invalid input for field/attribute expires_at: it is in the past.")
        secret = new.secret or self._parts.ids.secret(48)
        values = {
            "id": self._parts.ids.uuid().replace("-", ""),
            "user_id": user_id,
            "project_id": ctx.project_id,
            "name": new.name,
            "secret_hash": await self._identity.passwords.hash(secret),
            "description": new.description,
            "unrestricted": new.unrestricted,
            "expires_at": new.expires_at,
        }
        return await self._store.run(_create, values, new.roles, ctx.roles), secret

    async def delete(self, ctx: RequestContext, user_id: str, id: str) -> None:
        """Remove one; tokens made with it are good no more."""
        self._allow(ctx, "delete_application_credential", user_id)
        _must_not_be_restricted(ctx)
        await self._store.run(rows.delete_credential, user_id, id)


def _must_not_be_restricted(ctx: RequestContext) -> None:
    if ctx.is_restricted:
        raise Forbidden("An application credential cannot manage others unless it was made 'unrestricted'.")


def _create(
    tx: Tx, values: dict[str, Any], wanted: tuple[tuple[str | None, str | None], ...], held: tuple[str, ...]
) -> dict[str, Any]:
    named = {role["id"]: role["name"] for role in rows.find(tx, "role")} if wanted else {}
    roles = [named.get(id) if id is not None else name for id, name in wanted] or list(held)
    # A role that is not there is a role that one does not have.
    names = [name for name in roles if name in held]
    if len(names) < len(roles):
        raise BadRequest("Invalid input for field/attribute roles: a credential has only roles that its maker has.")
    row = {**values, "roles": list(dict.fromkeys(names))}
    rows.insert_credential(tx, row)
    return row
