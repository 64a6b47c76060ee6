"""The Identity API over a real store, in this process: several API processes of one cloud, and time that is ours."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import argon2
import httpx
from cryptography.fernet import Fernet

from kilonova.api.http.app import make_app
from kilonova.api.identity import application_credentials, groups, resources, role_assignments
from kilonova.api.identity.tokens import api
from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.cloud.accounts import Accounts
from kilonova.cloud.application_credentials import ApplicationCredentials
from kilonova.cloud.logins import Logins
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.cloud.readiness import Readiness
from kilonova.cloud.role_assignments import RoleAssignments
from kilonova.identity.passwords import Passwords
from kilonova.identity.service import Identity, IdentityOptions
from kilonova.store.engine import Store

ROUTES: Final = (application_credentials, groups, resources, role_assignments)
"""Importing them registers their routes."""

LIMIT: Final = 5
"""Failed logins a minute."""

CHEAP: Final = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""A hash that costs next to nothing."""


class HandTime:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def move(self, seconds: float) -> None:
        """Time passes."""
        self.seconds += seconds


class CountingHasher(argon2.PasswordHasher):
    """Says how often it was asked."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:
        self.verified += 1
        return super().verify(hash, password)


@cache
def _rules() -> CloudPolicy:
    return CloudPolicy.load(PolicyOptions(), clock=SystemClock())


class ApiProcess:
    """One process that serves the Identity API."""

    def __init__(self, store: Store, clock: HandTime, key: bytes, options: IdentityOptions) -> None:
        self.hasher = CountingHasher()
        limit = options.failed_logins_per_minute
        self.passwords = Passwords(store, clock, failures_per_minute=limit, hasher=self.hasher)
        ids = SystemIds()
        parts = Parts(store, _rules(), clock, ids, SimpleNamespace(ring=lambda topic: None))
        self.identity = Identity(store, clock, ids, options, key, passwords=self.passwords)
        self.cloud = SimpleNamespace(
            parts=parts,
            readiness=Readiness(),
            identity=self.identity,
            accounts=Accounts(parts, self.identity),
            logins=Logins(parts, self.identity),
            role_assignments=RoleAssignments(parts),
            application_credentials=ApplicationCredentials(parts, self.identity),
            answers=None,
        )
        self.app: Any = make_app([api], self.cloud)


def named(thing: str) -> dict[str, Any]:
    """A user or project in a body: its name, or its name and its domain's (``bob@acme``)."""
    name, _, domain = thing.partition("@")
    return {"name": name, "domain": {"name": domain} if domain else {"id": "default"}}


@dataclass
class World:
    """A cloud with an administrator, and as many API processes as one asks for."""

    store: Store
    clock: HandTime = field(default_factory=HandTime)
    options: IdentityOptions = field(default_factory=lambda: IdentityOptions(failed_logins_per_minute=LIMIT))
    key: bytes = field(default_factory=Fernet.generate_key)
    processes: dict[int, ApiProcess] = field(default_factory=dict)
    admin: str = ""
    """The administrator's token."""
    admin_password: str = ""

    async def begin(self) -> "World":
        """Make the first user."""
        password = await self.process().identity.bootstrap()
        assert password is not None
        self.admin_password = password
        self.admin = await self.login("admin", password, "admin")
        return self

    def process(self, number: int = 0) -> ApiProcess:
        """One of the API processes."""
        if number not in self.processes:
            self.processes[number] = ApiProcess(self.store, self.clock, self.key, self.options)
        return self.processes[number]

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        on: int = 0,
        source: str = "198.51.100.7",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request; as the administrator unless told otherwise."""
        transport = httpx.ASGITransport(self.process(on).app, client=(source, 4711))
        given = {"X-Auth-Token": self.admin if token is None else token} | (headers or {})
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud.test") as http:
            return await http.request(method, f"/identity/v3{path}", json=body, headers=given)

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """`call`, which must work; what stands in the body under its one name."""
        answer = await self.call(method, path, body, **more)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        if not answer.content:
            return None
        found = {name: value for name, value in answer.json().items() if name != "links"}
        [value] = found.values()
        return value

    async def auth(self, identity: dict[str, Any], scope: Any = None, **more: Any) -> httpx.Response:
        """``POST /auth/tokens``."""
        body = {"identity": identity} | ({} if scope is None else {"scope": scope})
        return await self.call("POST", "/auth/tokens", {"auth": body}, **more)

    async def try_login(
        self, user: str, password: str, project: str | None = None, *, scope: Any = None, **more: Any
    ) -> httpx.Response:
        """By password; on a project, or a `scope`."""
        proof = {"methods": ["password"], "password": {"user": {**named(user), "password": password}}}
        return await self.auth(proof, {"project": named(project)} if project else scope, **more)

    async def login(self, user: str, password: str, project: str | None = None, **more: Any) -> str:
        """The token."""
        return self.token_of(await self.try_login(user, password, project, **more))

    @staticmethod
    def token_of(answer: httpx.Response) -> str:
        """The token that a login was answered with."""
        assert answer.status_code == 201, answer.text
        return str(answer.headers["X-Subject-Token"])

    async def exchange(self, token: str, scope: Any = None, **more: Any) -> httpx.Response:
        """A token for another."""
        return await self.auth({"methods": ["token"], "token": {"id": token}}, scope, **more)

    async def use(self, token: str, on: int = 0) -> int:
        """The status of a request that everybody who is logged in may make."""
        return (await self.call("GET", "/auth/catalog", token=token, on=on)).status_code

    async def make(self, kind: str, name: str, **more: Any) -> str:
        """A new domain, project, user, group or role; its id."""
        return str((await self.ask("POST", f"/{kind}s", {kind: {"name": name, **more}}))["id"])

    async def user(self, name: str, role: str | None = None, project: str | None = None, **more: Any) -> str:
        """A new user with password ``pw``, and perhaps a role on a project (by id); its id."""
        user_id = await self.make("user", name, password="pw", **more)
        if role is not None:
            await self.grant(role, f"projects/{project}", f"users/{user_id}")
        return user_id

    async def role(self, name: str) -> str:
        """A role's id."""
        [found] = await self.ask("GET", f"/roles?name={name}")
        return str(found["id"])

    async def grant(self, role: str, place: str, actor: str, *, method: str = "PUT") -> None:
        """Give a role: ``grant("member", f"projects/{id}", f"users/{id}")``."""
        await self.ask(method, f"/{place}/{actor}/roles/{await self.role(role)}")

    async def ungrant(self, role: str, place: str, actor: str) -> None:
        """Take it away."""
        await self.grant(role, place, actor, method="DELETE")


def message(answer: httpx.Response) -> str:
    """An error's text."""
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    return str(error["message"])
