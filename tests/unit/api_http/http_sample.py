"""A small cloud behind the framework: two APIs with a route of each sort, real rules, real ids."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
from msgspec import Meta, Struct
from msgspec import field as named

from kilonova.api.http.app import HttpApp, HttpOptions, make_app
from kilonova.api.http.errors import GLANCE_ERRORS, KEYSTONE_ERRORS, NEUTRON_ERRORS, NOVA_ERRORS, TEXT_ERRORS
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Api, Extension, Reply, Request
from kilonova.api.http.schema import Since, Until, Uuid
from kilonova.api.http.views import Field, View
from kilonova.base.ids import SeededIds
from kilonova.base.policy import Default, Policy, RuleSet
from kilonova.cloud.policy import CloudPolicy
from kilonova.cloud.readiness import Readiness
from kilonova.model.context import RequestContext
from kilonova.model.errors import Conflict, QuotaExceeded, ServiceError, TooManyRequests, Unauthorized, Unavailable

SERVER = "8f4c1a2e-0d63-4b1f-9c57-3f6a1c2b7d90"


class ManualClock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class People:
    """Tokens are ``<user>:<project>:<role>,<role>``."""

    async def authenticate(self, token: str, request_id: str, source_address: str) -> RequestContext:
        if token.count(":") != 2:
            raise Unauthorized()
        user, project, roles = token.split(":")
        return RequestContext(
            request_id=request_id,
            user_id=user,
            project_id=project,
            roles=tuple(roles.split(",")),
            source_address=source_address,
        )


@dataclass
class SampleParts:
    policy: CloudPolicy
    clock: Any
    ids: SeededIds = field(default_factory=lambda: SeededIds(1))


@dataclass
class SampleCloud:
    """What the handlers see; `seen` is what they were given."""

    parts: SampleParts
    identity: People = field(default_factory=People)
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def readiness(self) -> Readiness:
        """New metrics for each app that is made of it."""
        return Readiness()


RULES = (
    Default("create", "role:member and project_id:%(project_id)s"),
    Default("anyone", "@"),
    Default("nobody", "!"),
)

Name = Annotated[str, Meta(min_length=1, max_length=20)]


class Nic(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    uuid: Uuid
    tag: Annotated[str | None, Since("2.32")] = None


class ThingCreate(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    name: Name
    size: Annotated[int, Meta(ge=0, le=100)] = 1
    networks: list[Nic] | str | None = None
    nics: dict[str, Nic] = {}
    notes: dict[str, str] = named(name="os:notes", default_factory=dict)
    tags: Annotated[list[Name], Since("2.52")] = []
    files: Annotated[list[str], Until("2.56")] = []


class ThingQuery(Struct, kw_only=True):
    limit: str | None = None
    marker: str | None = None
    deep: bool = False
    count: Annotated[int, Meta(ge=0)] = 0
    sort_key: list[str] = []
    newer: Annotated[str | None, Since("2.66")] = None


class StrictQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str | None = None
    newer: Annotated[str | None, Since("2.66")] = None


VIEW = View(
    Field("id", lambda thing: thing["id"]),
    Field("old", lambda _: 1, until="2.9"),
    Field("new", lambda _: 2, since="2.10"),
)


class Patch(Struct, forbid_unknown_fields=True):
    op: str
    path: str
    value: Any = None


def compute_api() -> Api:
    api = Api(
        "compute",
        root="/compute/v2.1",
        errors=NOVA_ERRORS,
        min_version="2.1",
        max_version="2.96",
        extensions=[Extension("os-things", "Things")],
    )

    @api.route("POST", "/things", policy="create", status=202, body_key="thing")
    async def create(cloud: SampleCloud, req: Request, body: ThingCreate) -> Reply:
        cloud.seen["body"] = body
        return Reply({"thing": {"name": body.name}}, {"Location": req.url("things", "a b/c")})

    @api.route("GET", "/things")
    async def index(cloud: SampleCloud, req: Request, query: ThingQuery) -> Reply:
        cloud.seen["query"] = query
        limit = page_size(query.limit)
        ids = [f"t{n}" for n in range(5)][:limit]
        return Reply({"things": ids, "things_links": next_links(req, limit, ids)})

    @api.route("GET", "/strict")
    async def strict(query: StrictQuery) -> Reply:
        return Reply({"name": query.name, "newer": query.newer})

    @api.route("GET", "/things/detail")
    async def detail() -> Reply:
        return Reply({"detail": True})

    @api.route("GET", "/things/{thing_id}", policy="anyone")
    async def show(req: Request, thing_id: Uuid) -> Reply:
        return Reply({"thing": VIEW.render({"id": thing_id}, req.microversion)})

    @api.route("DELETE", "/things/{id}", status=204)
    async def delete(id: str) -> Reply:
        return Reply()

    @api.route("GET", "/numbers/{number}")
    async def number(number: int) -> Reply:
        return Reply({"number": number})

    @api.route("GET", "/changed", until="2.9")
    async def changed_old() -> Reply:
        return Reply({"form": "old"})

    @api.route("GET", "/changed", since="2.10")
    async def changed_new() -> Reply:
        return Reply({"form": "new"})

    @api.route("GET", "/added", since="2.50")
    async def added() -> Reply:
        return Reply({"added": True})

    @api.route("GET", "/forbidden", policy="nobody")
    async def forbidden() -> Reply:
        raise AssertionError("the rule lets nobody in")

    @api.route("GET", "/mistyped", policy="no:such:rule")
    async def mistyped() -> Reply:
        raise AssertionError("an unknown rule lets nobody in")

    @api.route("GET", "/fail/{how}")
    async def fail(how: str) -> Reply:
        raise {
            "bug": RuntimeError("secret inside"),
            "quota": QuotaExceeded("cores", limit=20, used=19, asked=4),
            "rate": TooManyRequests(retry_after_s=7),
            "busy": Unavailable(),
            "conflict": Conflict("It is in the way."),
            "service": ServiceError("The other side."),
            "text": Conflict("half \ud800 pair"),
        }[how]

    @api.route("POST", "/echo", body_optional=True, max_body=1000)
    async def echo(body: Any) -> Reply:
        return Reply({"echo": body})

    return api


def image_api() -> Api:
    api = Api("image", root="/image/v2", errors=GLANCE_ERRORS)

    @api.route(
        "PATCH",
        "/images/{id}",
        accepts=["application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch"],
    )
    async def patch(id: str, body: list[Patch]) -> Reply:
        return Reply({"ops": [change.op for change in body]})

    @api.route("PUT", "/images/{id}/file", accepts=["application/octet-stream"], max_body=None, status=204)
    async def upload(cloud: SampleCloud, id: str, stream: AsyncIterator[bytes]) -> Reply:
        cloud.seen["sizes"] = []
        async for chunk in stream:
            cloud.seen["sizes"].append(len(chunk))
        cloud.seen["complete"] = True
        return Reply()

    @api.route("PUT", "/images/{id}/small", accepts=["application/octet-stream"], max_body=10, status=204)
    async def upload_small(id: str, stream: AsyncIterator[bytes]) -> Reply:
        async for _ in stream:
            pass
        return Reply()

    @api.route("GET", "/images/{id}/file")
    async def download(cloud: SampleCloud, id: str) -> Reply:
        count = int(id)

        async def chunks() -> AsyncIterator[bytes]:
            try:
                for _ in range(count):
                    cloud.seen["sent"] = cloud.seen.get("sent", 0) + 1
                    yield b"x" * 65536
            finally:
                cloud.seen["closed"] = True

        return Reply(stream=chunks(), headers={"Content-Length": str(count * 65536)})

    @api.route("GET", "/images/{id}/broken")
    async def broken(id: str) -> Reply:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            raise OSError("the disk went away")

        return Reply(stream=chunks(), headers={"Content-Length": "100"})

    return api


def other_apis() -> list[Api]:
    identity = Api("identity", root="/identity/v3", errors=KEYSTONE_ERRORS)

    @identity.route("GET", "/maybe", public=True)
    async def maybe(req: Request) -> Reply:
        who = (await req.authenticate()).user_id if "x-auth-token" in req.headers else "nobody"
        return Reply({"who": who, "from": req.ctx.source_address})

    @identity.route("GET", "/fail")
    async def fail() -> Reply:
        raise Conflict("It is <in> the way.")

    network = Api("network", root="/network/v2.0", errors=NEUTRON_ERRORS, extensions=[Extension("quotas", "Quota")])

    @network.route("GET", "/networks")
    async def networks() -> Reply:
        return Reply({"networks": []})

    @network.route("POST", "/networks")
    async def create_network() -> Reply:
        raise QuotaExceeded("network", limit=1, used=1, asked=1)

    metadata = Api("metadata", root="/latest", errors=TEXT_ERRORS)

    @metadata.route("GET", "/meta-data/{rest:path}", public=True)
    async def meta(rest: str) -> Reply:
        return Reply(f"{rest}\n")

    return [identity, network, metadata]


def sample_app(options: HttpOptions | None = None, clock: Any = None) -> tuple[HttpApp, SampleCloud]:
    clock = clock or ManualClock()
    policy = CloudPolicy(Policy([RuleSet("sample", RULES)], clock=clock))
    cloud = SampleCloud(SampleParts(policy, clock))
    return make_app([compute_api(), image_api(), *other_apis()], cloud, options), cloud


class Client(httpx.AsyncClient):
    """Talks to an app in this process as member m of project p."""

    def __init__(self, app: HttpApp, cloud: SampleCloud, headers: Mapping[str, str] | None = None) -> None:
        self.cloud = cloud
        super().__init__(
            transport=httpx.ASGITransport(app, client=("198.51.100.7", 4711)),
            base_url="http://cloud.test:8774",
            headers={"X-Auth-Token": "m:p:member,reader"} if headers is None else headers,
        )


class SystemTime(ManualClock):
    """The machine's clock, for tests that use sockets."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
