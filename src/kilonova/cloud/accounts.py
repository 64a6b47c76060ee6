"""What can be done with users, projects, domains, roles and credentials, and how one logs in."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.identity.service import REFUSED, Identity, Login, effective_roles
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Forbidden, NotFound, Unauthorized
from kilonova.store.queries import identity as rows
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Something by its id, or by its name in a domain (by id or name)."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoginRequest:
    """One way to say who one is, and where one wants to work. Exactly one of the proofs is given."""

    user: Wanted | None = None
    password: str | None = None
    token: str | None = None
    credential: Wanted | None = None
    secret: str | None = None
    scope: str = ""
    """``project``, ``domain``, ``system``, ``unscoped``; empty: the user's default project, if there is one."""
    target: Wanted = field(default_factory=Wanted)


class Accounts:
    """Use cases of identity."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._store = parts.store
        self._identity = identity

    # ---- logging in ---------------------------------------------------------------------------------

    async def login(self, request: LoginRequest, source: str) -> tuple[str, Login]:
        """A token for whoever proves to be somebody.

        Raises:
            Unauthorized: with the same words whatever was wrong.
            TooManyRequests
        """
        if request.credential is not None:
            return await self._login_by_credential(request, source)
        methods: tuple[str, ...] = ("password",)
        if request.token is not None:
            before = await self._identity.login_of(request.token)
            user, methods = before.user, (*before.body.methods, "token")
            if before.body.roles:
                raise Forbidden("A token of an application credential cannot be exchanged for another.")
        else:
            found = await self._store.read(_find, "user", request.user or Wanted())
            name = (request.user.id or request.user.name or "") if request.user else ""
            user = await self._identity.check_password(found, name, request.password or "", source)
        scope, scope_id = await self._store.read(_scope, request, user)
        return await self._identity.issue(user["id"], tuple(dict.fromkeys(methods)), scope, scope_id)

    async def _login_by_credential(self, request: LoginRequest, source: str) -> tuple[str, Login]:
        found = await self._store.read(_credential, request)
        credential = await self._identity.check_credential(found, request.secret or "", source)
        return await self._identity.issue(
            credential["user_id"],
            ("application_credential",),
            "project",
            credential["project_id"],
            tuple(credential["roles"]),
        )

    # ---- things -------------------------------------------------------------------------------------

    def _allow(self, ctx: RequestContext, rule: str, **target: Any) -> None:
        self._parts.policy.authorize(ctx, f"identity:{rule}", target)

    async def find(self, ctx: RequestContext, kind: str, **where: Any) -> list[dict[str, Any]]:
        """Domains, projects, users or roles whose columns equal `where`."""
        self._allow(ctx, f"list_{kind}s")
        return await self._store.read(_list, kind, {k: v for k, v in where.items() if v is not None})

    async def get(self, ctx: RequestContext, kind: str, id: str) -> dict[str, Any]:
        """One of them."""
        if not (kind == "project" and id == ctx.project_id):
            self._allow(ctx, f"get_{kind}", user_id=id)
        return await self._store.read(rows.get, kind, id)

    async def create(self, ctx: RequestContext, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """A new one. A user's ``password`` is hashed."""
        self._allow(ctx, f"create_{kind}")
        made = await self._hashed(values)
        made["id"] = self._parts.ids.uuid().replace("-", "")
        return await self._store.run(_create, kind, made)

    async def update(self, ctx: RequestContext, kind: str, id: str, values: dict[str, Any]) -> dict[str, Any]:
        """Change one. Tokens of a user who is disabled, or gets another password, are good no more."""
        self._allow(ctx, f"update_{kind}")
        changes = await self._hashed(values)
        if kind == "user" and ("password_hash" in changes or changes.get("enabled") is False):
            changes["tokens_since"] = self._parts.clock.now()
        changed = await self._store.run(rows.update, kind, id, changes)
        self._identity.forget()
        return changed

    async def delete(self, ctx: RequestContext, kind: str, id: str) -> None:
        """Remove one, and all that names it."""
        self._allow(ctx, f"delete_{kind}")
        await self._store.run(_delete, kind, id)
        self._identity.forget()

    async def _hashed(self, values: dict[str, Any]) -> dict[str, Any]:
        password = values.get("password")
        rest = {key: value for key, value in values.items() if key != "password"}
        return {**rest, "password_hash": await self._identity.hash(password)} if password else rest

    async def change_password(self, ctx: RequestContext, user_id: str, old: str, new: str) -> None:
        """A user's own."""
        self._allow(ctx, "change_password", user_id=user_id)
        user = await self._store.read(rows.get, "user", user_id)
        await self._identity.check_password(user, user["name"], old, ctx.source_address)
        hashed = await self._identity.hash(new)
        changes = {"password_hash": hashed, "tokens_since": self._parts.clock.now()}
        await self._store.run(rows.update, "user", user_id, changes)
        self._identity.forget()

    async def projects_of(self, ctx: RequestContext, user_id: str) -> list[dict[str, Any]]:
        """Projects where a user has a role."""
        self._allow(ctx, "list_user_projects", user_id=user_id)
        return await self._store.read(_projects_of, user_id)

    # ---- roles on things ----------------------------------------------------------------------------

    async def grant(self, ctx: RequestContext, scope: str, scope_id: str, user_id: str, role_id: str) -> None:
        """Give a user a role somewhere."""
        self._allow(ctx, "create_grant")
        await self._store.run(_grant, scope, scope_id, user_id, role_id)
        self._identity.forget()

    async def ungrant(self, ctx: RequestContext, scope: str, scope_id: str, user_id: str, role_id: str) -> None:
        """Take it away."""
        self._allow(ctx, "revoke_grant")
        await self._store.run(rows.unassign, user_id, scope, scope_id, role_id)
        self._identity.forget()

    async def grants(self, ctx: RequestContext, scope: str, scope_id: str, user_id: str) -> list[dict[str, Any]]:
        """A user's own roles somewhere."""
        self._allow(ctx, "list_grants")
        return await self._store.read(_grants, scope, scope_id, user_id)

    async def assignments(self, ctx: RequestContext, *, effective: bool, **where: Any) -> list[dict[str, Any]]:
        """Role assignments, with the names of all that they name."""
        self._allow(ctx, "list_role_assignments")
        return await self._store.read(_assignments, {k: v for k, v in where.items() if v is not None}, effective)

    # ---- application credentials --------------------------------------------------------------------

    async def credentials(self, ctx: RequestContext, user_id: str, **where: Any) -> list[dict[str, Any]]:
        """A user's application credentials."""
        self._allow(ctx, "list_application_credentials", user_id=user_id)
        return await self._store.read(rows.credentials, user_id=user_id, **where)

    async def credential(self, ctx: RequestContext, user_id: str, id: str) -> dict[str, Any]:
        """One of them."""
        self._allow(ctx, "get_application_credential", user_id=user_id)
        found = await self._store.read(rows.credentials, user_id=user_id, id=id)
        if not found:
            raise NotFound(kind="application_credential", id=id)
        return found[0]

    async def create_credential(
        self,
        ctx: RequestContext,
        user_id: str,
        *,
        name: str,
        secret: str | None,
        description: str | None,
        roles: list[str],
        unrestricted: bool,
        expires_at: datetime | None,
    ) -> tuple[dict[str, Any], str]:
        """A new one on the caller's project; its secret is given out only now."""
        self._allow(ctx, "create_application_credential", user_id=user_id)
        if not ctx.project_id:
            raise BadRequest("An application credential needs a token on a project.")
        given = secret or self._parts.ids.secret(48)
        names = roles or list(ctx.roles)
        if not set(names) <= set(ctx.roles):
            raise BadRequest("An application credential can have only roles that its maker has.")
        values = {
            "id": self._parts.ids.uuid().replace("-", ""),
            "user_id": user_id,
            "project_id": ctx.project_id,
            "name": name,
            "secret_hash": await self._identity.hash(given),
            "description": description,
            "roles": names,
            "unrestricted": unrestricted,
            "expires_at": expires_at,
        }
        await self._store.run(rows.insert_credential, values)
        return values, given

    async def delete_credential(self, ctx: RequestContext, user_id: str, id: str) -> None:
        """Remove one; tokens made with it are good no more."""
        self._allow(ctx, "delete_application_credential", user_id=user_id)
        await self.credential(ctx, user_id, id)
        await self._store.run(_delete_credential, id, user_id, self._parts.clock.now())
        self._identity.forget()


# ---- transactions -------------------------------------------------------------------------------------------


def _find(tx: Tx, kind: str, wanted: Wanted) -> dict[str, Any] | None:
    try:
        if wanted.id is not None:
            return rows.get(tx, kind, wanted.id)
        domain_id = wanted.domain_id
        if domain_id is None and wanted.domain_name is not None:
            domains = rows.find(tx, "domain", name=wanted.domain_name)
            domain_id = domains[0]["id"] if domains else ""
        where = {"name": wanted.name} | ({"domain_id": domain_id or "default"} if kind != "domain" else {})
        found = rows.find(tx, kind, **where)
    except NotFound:
        return None
    return found[0] if found else None


def _scope(tx: Tx, request: LoginRequest, user: dict[str, Any]) -> tuple[str, str]:
    if request.scope in ("project", "domain"):
        found = _find(tx, request.scope, request.target)
        if found is None:
            raise Unauthorized(REFUSED)
        return request.scope, found["id"]
    if request.scope == "system":
        return "system", "all"
    default = user.get("default_project_id")
    if request.scope == "" and default and effective_roles(tx, user["id"], "project", default):
        return "project", default
    return "", ""


def _credential(tx: Tx, request: LoginRequest) -> dict[str, Any] | None:
    wanted = request.credential
    assert wanted is not None
    if wanted.id is not None:
        found = rows.credentials(tx, id=wanted.id)
    else:
        user = _find(tx, "user", request.user or Wanted())
        found = rows.credentials(tx, user_id=user["id"], name=wanted.name) if user else []
    return found[0] if found else None


def _list(tx: Tx, kind: str, where: dict[str, Any]) -> list[dict[str, Any]]:
    return rows.find(tx, kind, **where)


def _create(tx: Tx, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    if "domain_id" in values:
        try:
            rows.get(tx, "domain", values["domain_id"])
        except NotFound:
            raise BadRequest(f"There is no domain {values['domain_id']}.") from None
    return rows.insert(tx, kind, values)


def _delete(tx: Tx, kind: str, id: str) -> None:
    if kind == "domain":
        if rows.get(tx, kind, id)["enabled"]:
            raise Forbidden("Disable a domain before you delete it.")
        if rows.find(tx, "user", domain_id=id) or rows.find(tx, "project", domain_id=id):
            raise Forbidden("The domain has users or projects; delete them first.")
    rows.delete(tx, kind, id)


def _projects_of(tx: Tx, user_id: str) -> list[dict[str, Any]]:
    ids = {a["scope_id"] for a in rows.assignments(tx, user_id=user_id, scope="project")}
    return [project for project in rows.find(tx, "project") if project["id"] in ids]


def _grant(tx: Tx, scope: str, scope_id: str, user_id: str, role_id: str) -> None:
    if scope != "system":
        rows.get(tx, scope, scope_id)
    rows.get(tx, "user", user_id)
    rows.get(tx, "role", role_id)
    rows.assign(tx, user_id, scope, scope_id, role_id)


def _grants(tx: Tx, scope: str, scope_id: str, user_id: str) -> list[dict[str, Any]]:
    held = {a["role_id"] for a in rows.assignments(tx, user_id=user_id, scope=scope, scope_id=scope_id)}
    return [role for role in rows.find(tx, "role") if role["id"] in held]


def _assignments(tx: Tx, where: dict[str, Any], effective: bool) -> list[dict[str, Any]]:
    by_id = {kind: {row["id"]: row for row in rows.find(tx, kind)} for kind in ("user", "project", "domain", "role")}
    found = rows.assignments(tx, **({k: v for k, v in where.items() if not (effective and k == "role_id")}))
    if effective:
        places = {(a["user_id"], a["scope"], a["scope_id"]) for a in found}
        found = [
            {"user_id": u, "scope": s, "scope_id": i, "role_id": role["id"]}
            for u, s, i in sorted(places)
            for role in effective_roles(tx, u, s, i)
            if where.get("role_id") in (None, role["id"])
        ]
    return [
        {**a, "user": by_id["user"].get(a["user_id"]), "role": by_id["role"].get(a["role_id"]),
         "target": by_id.get(a["scope"], {}).get(a["scope_id"]), "domains": by_id["domain"]}
        for a in found
    ]  # fmt: skip


def _delete_credential(tx: Tx, id: str, user_id: str, now: datetime) -> None:
    rows.delete_credential(tx, id)
    rows.update(tx, "user", user_id, {"tokens_since": now})
