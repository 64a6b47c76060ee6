"""Tokens: who somebody is, where, and until when.

A token is signed and encrypted (Fernet), and nothing of it is kept. Checking it reads what it stands for as that is
*now*: the user, its roles there, whether something is disabled, whether it was revoked (one by its audit id, or all
of a user by time). What was read is remembered for as long as nothing of the kind has changed anywhere; see
`kilonova.identity.epoch` for how one knows.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.identity.bootstrap import bootstrap
from kilonova.identity.epoch import Epoch
from kilonova.identity.passwords import REFUSED, Passwords
from kilonova.identity.roles import effective_roles
from kilonova.model.context import RequestContext
from kilonova.model.errors import NotFound, Unauthorized
from kilonova.store.engine import Store
from kilonova.store.queries import identity as rows
from kilonova.store.transactions import Tx

MAX_REMEMBERED: Final = 4096
"""Tokens that a process remembers."""


@dataclass(frozen=True, kw_only=True)
class IdentityOptions:
    """``[identity]`` of kilonova.conf."""

    section: ClassVar[str] = "identity"

    token_life_s: int = 43200
    """Seconds for which a token is good."""

    cache_s: float = 60.0
    """Seconds after which a token is looked up anew even though nothing has changed. Changes count at once, in every
    process; this is only for what somebody changes in the database by hand."""

    recheck_s: float = 0.0
    """Seconds for which a change of somebody's roles, password or state, or a revoked token, may go unnoticed. 0: none;
    then each request looks at one number in the database. 0.02 saves most of these looks where there are many."""

    failed_logins_per_minute: int = 10
    """Failed logins of one user from one address after which more are refused for the rest of a minute, whichever
    process they come to. 0: no limit."""


class TokenBody(msgspec.Struct, frozen=True, array_like=True):
    """What a token carries. `scope` is project, domain, system or nothing."""

    user_id: str
    scope: str
    scope_id: str
    methods: tuple[str, ...]
    audit_id: str
    issued_at: float
    expires_at: float
    credential_id: str = ""
    """Of the application credential that it was made with."""
    parent_id: str = ""
    """Audit id of the first of the tokens that it was exchanged for."""


@dataclass(frozen=True)
class Login:
    """A checked token with all that its view shows."""

    body: TokenBody
    user: dict[str, Any]
    user_domain: dict[str, Any]
    project: dict[str, Any] | None
    domain: dict[str, Any] | None
    roles: list[dict[str, Any]]
    credential: dict[str, Any] | None = None
    """The application credential that it was made with."""

    def context(self, request_id: str, source_address: str) -> RequestContext:
        """The caller of one request."""
        body, project = self.body, self.project
        return RequestContext(
            request_id=request_id,
            user_id=self.user["id"],
            user_name=self.user["name"],
            user_domain_id=self.user["domain_id"],
            project_id=project["id"] if project else "",
            project_name=project["name"] if project else "",
            project_domain_id=project["domain_id"] if project else "default",
            domain_id=body.scope_id if body.scope == "domain" else "",
            system=body.scope == "system",
            roles=tuple(role["name"] for role in self.roles),
            token_id=body.audit_id,
            is_restricted=self.credential is not None and not self.credential["unrestricted"],
            source_address=source_address,
        )


@dataclass(frozen=True)
class _Known:
    login: Login
    epoch: int
    until: float


class Identity:
    """Makes tokens, and says what they stand for."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        options: IdentityOptions,
        key: bytes,
        *,
        passwords: Passwords | None = None,
    ) -> None:
        """
        Args:
            key: of all processes that shall know each other's tokens.
        """
        self._store = store
        self._clock = clock
        self._ids = ids
        self._options = options
        self._fernet = Fernet(key)
        self._epoch = Epoch(store, clock, trust_s=options.recheck_s)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self.passwords = passwords or Passwords(store, clock, failures_per_minute=options.failed_logins_per_minute)

    async def authenticate(self, token: str, request_id: str, source_address: str) -> RequestContext:
        """The caller behind a token.

        Raises:
            Unauthorized
        """
        return (await self.login_of(token)).context(request_id, source_address)

    async def login_of(self, token: str) -> Login:
        """A token, checked.

        Raises:
            Unauthorized
        """
        key = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._known.get(key)
        if known is None:
            return await self._look_up(key, self._opened(token))
        self._must_live(known.login.body)
        if known.until <= self._clock.monotonic() or known.epoch != await self._epoch.current():
            return await self._look_up(key, known.login.body)
        return known.login

    def _opened(self, token: str) -> TokenBody:
        try:
            body = msgspec.msgpack.decode(self._fernet.decrypt(token.encode()), type=TokenBody)
        except (InvalidToken, msgspec.DecodeError, ValueError):
            raise Unauthorized(REFUSED) from None
        self._must_live(body)
        return body

    def _must_live(self, body: TokenBody) -> None:
        if body.expires_at <= self._clock.now().timestamp():
            raise Unauthorized(REFUSED)

    async def _look_up(self, key: bytes, body: TokenBody) -> Login:
        until = self._clock.monotonic() + self._options.cache_s
        self._known.pop(key, None)
        epoch, login = await self._store.read(_login, body)
        self._known[key] = _Known(login, epoch, until)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return login

    async def issue(
        self,
        user_id: str,
        methods: tuple[str, ...],
        scope: str,
        scope_id: str,
        *,
        proved_at: datetime,
        parent: TokenBody | None = None,
        credential: dict[str, Any] | None = None,
    ) -> tuple[str, Login]:
        """A new token.

        Args:
            proved_at: when what proves who asks was read: if it is changed after that, the token is not good.
            parent: the token that it is exchanged for; the new one lives no longer.
            credential: the application credential that it is made with; likewise.

        Raises:
            Unauthorized: no role there, or something is disabled.
        """
        ends = [proved_at.timestamp() + self._options.token_life_s]
        if parent is not None:
            ends.append(parent.expires_at)
        if credential is not None and credential["expires_at"] is not None:
            ends.append(credential["expires_at"].timestamp())
        body = TokenBody(
            user_id,
            scope,
            scope_id,
            methods,
            self._ids.secret(16),
            proved_at.timestamp(),
            min(ends),
            credential["id"] if credential else "",
            (parent.parent_id or parent.audit_id) if parent else "",
        )
        self._must_live(body)
        _, login = await self._store.read(_login, body)
        return self._fernet.encrypt(msgspec.msgpack.encode(body)).decode(), login

    async def revoke(self, login: Login) -> None:
        """A token is good no more, from now on, wherever it is shown."""
        expires = datetime.fromtimestamp(login.body.expires_at, UTC)
        await self._store.run(rows.revoke, login.body.audit_id, expires, self._clock.now())

    async def bootstrap(self) -> str | None:
        """Make the first user, and all that it needs; the generated password, or None if that was done before."""
        return await bootstrap(self._store, self._ids, self.passwords)


def _is_good_for(thing: dict[str, Any], body: TokenBody) -> bool:
    """Whether a user, project or domain is enabled, and has been since the token was made."""
    since = thing["tokens_since"]
    return thing["enabled"] and (since is None or body.issued_at >= since.timestamp())


def _login(tx: Tx, body: TokenBody) -> tuple[int, Login]:
    """All that a token stands for, and the epoch in which it does.

    Raises:
        Unauthorized: revoked; user, project or domain disabled or gone; no role there.
    """
    epoch = rows.epoch(tx)
    credential = None
    try:
        user = rows.get(tx, "user", body.user_id)
        user_domain = rows.get(tx, "domain", user["domain_id"])
        project = rows.get(tx, "project", body.scope_id) if body.scope == "project" else None
        domain_id = project["domain_id"] if project else body.scope_id
        domain = rows.get(tx, "domain", domain_id) if body.scope in ("project", "domain") else None
        if body.credential_id:
            credential = next(iter(rows.credentials(tx, id=body.credential_id)), None)
            if credential is None:
                raise Unauthorized(REFUSED)
    except NotFound:
        raise Unauthorized(REFUSED) from None
    if rows.is_revoked(tx, body.audit_id):
        raise Unauthorized(REFUSED)
    for thing in (user, user_domain, project, domain):
        if thing is not None and not _is_good_for(thing, body):
            raise Unauthorized(REFUSED)
    found: list[dict[str, Any]] = []
    if body.scope:
        found = effective_roles(tx, body.user_id, body.scope, body.scope_id)
        if credential is not None:
            found = [role for role in found if role["name"] in credential["roles"]]
        if not found:
            raise Unauthorized(REFUSED)
    return epoch, Login(body, user, user_domain, project, domain, found, credential)
