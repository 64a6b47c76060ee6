"""The Auth Manager: users, projects, roles and tokens as a library, used by the API and the command line.

A token is signed and encrypted (Fernet) and says who, where and until when; it can be revoked at once, one by its
audit id or all of a user by time. Passwords are hashed with argon2id, in a thread, few at a time.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import argon2
import msgspec
from cryptography.fernet import Fernet, InvalidToken

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.model.context import RequestContext
from kilonova.model.errors import AlreadyExists, NotFound, TooManyRequests, Unauthorized
from kilonova.store.engine import Store
from kilonova.store.queries import identity as rows
from kilonova.store.transactions import Tx

log = get_logger(__name__)

REFUSED = "The request you have made requires authentication."
IMPLIED = {"admin": ("member", "reader"), "member": ("reader",)}


@dataclass(frozen=True, kw_only=True)
class IdentityOptions:
    """``[identity]`` of kilonova.conf."""

    section: ClassVar[str] = "identity"

    token_life_s: int = 43200
    """Seconds for which a token is good."""

    cache_s: float = 5.0
    """Seconds for which another process's revocation may go unnoticed."""

    failed_logins_per_minute: int = 10
    """Failed logins of one user from one address after which more are refused for a while."""


class TokenBody(msgspec.Struct, frozen=True, array_like=True):
    """What a token carries. `scope` is project, domain, system or nothing."""

    user_id: str
    scope: str
    scope_id: str
    methods: tuple[str, ...]
    audit_id: str
    issued_at: float
    expires_at: float
    roles: tuple[str, ...] = ()
    """Only those, for an application credential."""


@dataclass(frozen=True)
class Login:
    """A checked token with all that its view shows."""

    body: TokenBody
    user: dict[str, Any]
    user_domain: dict[str, Any]
    project: dict[str, Any] | None
    domain: dict[str, Any] | None
    roles: list[dict[str, Any]]


class Identity:
    """Who somebody is, and what roles they have where."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, options: IdentityOptions, key: bytes) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._options = options
        self._fernet = Fernet(key)
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._hashing = asyncio.Semaphore(2)
        self._nobody = self._hasher.hash("nobody")
        self._cache: OrderedDict[str, tuple[Login, float]] = OrderedDict()
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    # ---- tokens -------------------------------------------------------------------------------------

    async def authenticate(self, token: str, request_id: str, source_address: str) -> RequestContext:
        """The caller behind a token.

        Raises:
            Unauthorized
        """
        login = await self.login_of(token)
        body = login.body
        return RequestContext(
            request_id=request_id,
            user_id=login.user["id"],
            user_name=login.user["name"],
            user_domain_id=login.user["domain_id"],
            project_id=body.scope_id if body.scope == "project" else "",
            project_name=login.project["name"] if login.project else "",
            project_domain_id=login.project["domain_id"] if login.project else "default",
            domain_id=body.scope_id if body.scope == "domain" else "",
            system=body.scope == "system",
            roles=tuple(role["name"] for role in login.roles),
            token_id=body.audit_id,
            source_address=source_address,
        )

    async def login_of(self, token: str) -> Login:
        """A token, checked.

        Raises:
            Unauthorized
        """
        now = self._clock.monotonic()
        key = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        known = self._cache.get(key)
        if known is not None and known[1] > now and known[0].body.expires_at > self._clock.now().timestamp():
            return known[0]
        try:
            body = msgspec.msgpack.decode(self._fernet.decrypt(token.encode()), type=TokenBody)
        except (InvalidToken, msgspec.DecodeError, UnicodeEncodeError, ValueError):
            raise Unauthorized(REFUSED) from None
        if body.expires_at <= self._clock.now().timestamp():
            raise Unauthorized(REFUSED)
        login = await self._store.read(_login, body)
        self._cache[key] = (login, now + self._options.cache_s)
        while len(self._cache) > 4096:
            self._cache.popitem(last=False)
        return login

    async def issue(
        self, user_id: str, methods: tuple[str, ...], scope: str, scope_id: str, roles: tuple[str, ...] = ()
    ) -> tuple[str, Login]:
        """A new token.

        Raises:
            Unauthorized: no role there, or something is disabled.
        """
        now = self._clock.now().timestamp()
        audit_id = self._ids.secret(16)
        expires = now + self._options.token_life_s
        body = TokenBody(user_id, scope, scope_id, methods, audit_id, now, expires, roles)
        login = await self._store.read(_login, body)
        return self._fernet.encrypt(msgspec.msgpack.encode(body)).decode(), login

    async def revoke(self, token: str) -> None:
        """The token is good no more, from now on."""
        login = await self.login_of(token)
        expires = datetime.fromtimestamp(login.body.expires_at, UTC)
        await self._store.run(rows.revoke, login.body.audit_id, expires, self._clock.now())
        self.forget()

    def forget(self) -> None:
        """Check every token anew: something about users, projects or roles has changed."""
        self._cache.clear()

    # ---- passwords ----------------------------------------------------------------------------------

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _matches(self, hashed: str | None, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, hashed or self._nobody, password) and bool(hashed)
            except argon2.exceptions.VerificationError:
                return False

    async def check_password(
        self, user: dict[str, Any] | None, name: str, password: str, source: str
    ) -> dict[str, Any]:
        """The user, if the password is right. Takes as long for a user who is not there.

        Raises:
            Unauthorized, TooManyRequests
        """
        who = (name, source)
        count, since = self._failures.get(who, (0, 0.0))
        now = self._clock.monotonic()
        if count >= self._options.failed_logins_per_minute and now - since < 60:
            raise TooManyRequests(retry_after_s=int(60 - (now - since)) + 1, detail="Too many failed logins.")
        right = await self._matches(user["password_hash"] if user else None, password)
        if user is None or not right or not user["enabled"]:
            self._failures[who] = (count + 1 if now - since < 60 else 1, now)
            while len(self._failures) > 10000:
                self._failures.popitem(last=False)
            log.warning("login failed", user=name, source=source)
            raise Unauthorized(REFUSED)
        self._failures.pop(who, None)
        return user

    async def check_credential(self, credential: dict[str, Any] | None, secret: str, source: str) -> dict[str, Any]:
        """The application credential, if the secret is right.

        Raises:
            Unauthorized, TooManyRequests
        """
        stand_in = None
        if credential is not None:
            stand_in = {"password_hash": credential["secret_hash"], "enabled": True}
        await self.check_password(stand_in, str(credential["id"] if credential else ""), secret, source)
        assert credential is not None
        if credential["expires_at"] is not None and credential["expires_at"] <= self._clock.now():
            raise Unauthorized(REFUSED)
        return credential

    # ---- first start --------------------------------------------------------------------------------

    async def bootstrap(self) -> str | None:
        """Make the first domain, project, user and roles; the generated password, or None if they were there."""
        if await self._store.read(rows.find, "user", name="admin"):
            return None
        password = self._ids.secret(18)
        hashed = await self.hash(password)
        try:
            await self._store.run(_bootstrap, hashed, {n: self._ids.uuid().replace("-", "") for n in _NEW})
        except AlreadyExists:  # another process was first
            return None
        return password


_NEW = ("project", "user", "admin", "member", "reader", "manager", "service")


def _bootstrap(tx: Tx, hashed: str, new: dict[str, str]) -> None:
    rows.insert(
        tx, "domain", {"id": "default", "name": "Default", "description": "The default domain", "enabled": True}
    )
    rows.insert(
        tx,
        "project",
        {"id": new["project"], "domain_id": "default", "name": "admin", "description": "", "enabled": True},
    )
    rows.insert(
        tx,
        "user",
        {"id": new["user"], "domain_id": "default", "name": "admin", "password_hash": hashed, "enabled": True},
    )
    for name in ("admin", "member", "reader", "manager", "service"):
        rows.insert(tx, "role", {"id": new[name], "name": name})
    for scope, scope_id in (("project", new["project"]), ("system", "all"), ("domain", "default")):
        rows.assign(tx, new["user"], scope, scope_id, new["admin"])


def _login(tx: Tx, body: TokenBody) -> Login:
    """All that a token stands for, as it is now.

    Raises:
        Unauthorized: revoked; user, project or domain disabled or gone; no role there.
    """
    try:
        user = rows.get(tx, "user", body.user_id)
        user_domain = rows.get(tx, "domain", user["domain_id"])
        project = rows.get(tx, "project", body.scope_id) if body.scope == "project" else None
        domain_id = project["domain_id"] if project else body.scope_id
        domain = rows.get(tx, "domain", domain_id) if body.scope in ("project", "domain") else None
    except NotFound:
        raise Unauthorized(REFUSED) from None
    since = user["tokens_since"]
    if since is not None and body.issued_at < since.timestamp():
        raise Unauthorized(REFUSED)
    if rows.is_revoked(tx, body.audit_id):
        raise Unauthorized(REFUSED)
    if not all(thing["enabled"] for thing in (user, user_domain, project, domain) if thing):
        raise Unauthorized(REFUSED)
    found: list[dict[str, Any]] = []
    if body.scope:
        found = effective_roles(tx, body.user_id, body.scope, body.scope_id)
        if body.roles:
            found = [role for role in found if role["name"] in body.roles]
        if not found:
            raise Unauthorized(REFUSED)
    return Login(body, user, user_domain, project, domain, found)


def effective_roles(tx: Tx, user_id: str, scope: str, scope_id: str) -> list[dict[str, Any]]:
    """Roles of a user on a scope, those that others imply included."""
    held = rows.assignments(tx, user_id=user_id, scope=scope, scope_id=scope_id)
    by_id = {role["id"]: role for role in rows.find(tx, "role")}
    names = {by_id[a["role_id"]]["name"] for a in held if a["role_id"] in by_id}
    for name in list(names):
        names.update(IMPLIED.get(name, ()))
    return [role for role in by_id.values() if role["name"] in names]
