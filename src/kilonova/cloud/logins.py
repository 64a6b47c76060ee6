"""How one logs in: by password, by a token that one has, or by application credential."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.identity.passwords import REFUSED, Proof
from kilonova.identity.roles import effective_roles
from kilonova.identity.service import Identity, Login
from kilonova.model.errors import Forbidden, NotFound, Unauthorized
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

    user: Wanted = field(default_factory=Wanted)
    password: str | None = None
    token: str | None = None
    credential: Wanted | None = None
    secret: str | None = None
    scope: str = ""
    """``project``, ``domain``, ``system``, ``unscoped``; empty: the user's default project, if there is one."""
    target: Wanted = field(default_factory=Wanted)


class Logins:
    """Gives out tokens."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._store = parts.store
        self._identity = identity

    async def login(self, request: LoginRequest, source: str) -> tuple[str, Login]:
        """A token for whoever proves to be somebody.

        Raises:
            Unauthorized: with the same words whatever was wrong.
            TooManyRequests
        """
        now = self._parts.clock.now()
        if request.credential is not None:
            return await self._by_credential(request, source, now)
        if request.token is not None:
            return await self._by_token(request, request.token, now)
        who, found = await self._store.read(_user, request.user)
        user = await self._identity.passwords.check_user(Proof(who, source, request.password or ""), found)
        scope, scope_id = await self._store.read(_scope, request, user)
        return await self._identity.issue(user["id"], ("password",), scope, scope_id, proved_at=now)

    async def _by_token(self, request: LoginRequest, token: str, now: datetime) -> tuple[str, Login]:
        before = await self._identity.login_of(token)
        if before.credential is not None:
            raise Forbidden("A token of an application credential cannot be exchanged for another.")
        scope, scope_id = await self._store.read(_scope, request, before.user)
        methods = tuple(dict.fromkeys((*before.body.methods, "token")))
        return await self._identity.issue(
            before.user["id"], methods, scope, scope_id, proved_at=now, parent=before.body
        )

    async def _by_credential(self, request: LoginRequest, source: str, now: datetime) -> tuple[str, Login]:
        who, found = await self._store.read(_credential, request)
        proof = Proof(who, source, request.secret or "")
        await self._identity.passwords.check(proof, found["secret_hash"] if found else None)
        assert found is not None
        return await self._identity.issue(
            found["user_id"],
            ("application_credential",),
            "project",
            found["project_id"],
            proved_at=now,
            credential=found,
        )


# ---- transactions -------------------------------------------------------------------------------------------


def _find(tx: Tx, kind: str, wanted: Wanted) -> tuple[str, dict[str, Any] | None]:
    """What was asked for, if it is there; and what to call it, there or not, so that one thing has one name."""
    if wanted.id is not None:
        try:
            row = rows.get(tx, kind, wanted.id)
        except NotFound:
            return f"{kind} {wanted.id}", None
        return f"{row['name']} in {row.get('domain_id', '')}", row
    where: dict[str, Any] = {"name": wanted.name or ""}
    if kind != "domain":
        domain_id = wanted.domain_id
        if domain_id is None and wanted.domain_name is not None:
            _, domain = _find(tx, "domain", Wanted(name=wanted.domain_name))
            if domain is None:
                return f"{wanted.name} in the domain {wanted.domain_name}", None
            domain_id = domain["id"]
        where["domain_id"] = domain_id or "default"
    found = rows.find(tx, kind, limit=1, **where)
    return f"{wanted.name} in {where.get('domain_id', '')}", found[0] if found else None


def _user(tx: Tx, wanted: Wanted) -> tuple[str, dict[str, Any] | None]:
    return _find(tx, "user", wanted)


def _scope(tx: Tx, request: LoginRequest, user: dict[str, Any]) -> tuple[str, str]:
    if request.scope in ("project", "domain"):
        _, found = _find(tx, request.scope, request.target)
        if found is None:
            raise Unauthorized(REFUSED)
        return request.scope, found["id"]
    if request.scope == "system":
        return "system", "all"
    default = user.get("default_project_id")
    if request.scope == "" and default and effective_roles(tx, user["id"], "project", default):
        return "project", default
    return "", ""


def _credential(tx: Tx, request: LoginRequest) -> tuple[str, dict[str, Any] | None]:
    wanted = request.credential
    assert wanted is not None
    if wanted.id is not None:
        found = rows.credentials(tx, id=wanted.id)
        who = f"credential {wanted.id}"
    else:
        owner, user = _find(tx, "user", request.user)
        found = rows.credentials(tx, user_id=user["id"], name=wanted.name) if user else []
        who = f"credential {wanted.name} of {owner}"
    return who, found[0] if found else None
