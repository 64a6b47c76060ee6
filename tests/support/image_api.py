"""The Image API alone, with everything real below it: HTTP server, rules, database, files. Only tokens are simple."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from kilonova.api.http.app import HttpOptions, make_app
from kilonova.api.http.server import HttpServer
from kilonova.api.image.routes import api
from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.base.policy import Policy, RuleSet
from kilonova.cloud.answers import Answers
from kilonova.cloud.images import Images
from kilonova.cloud.parts import Parts
from kilonova.cloud.policies.image import DEFAULTS
from kilonova.cloud.policy import CloudPolicy
from kilonova.cloud.readiness import Readiness
from kilonova.images.backends.filesystem import FilesystemStore
from kilonova.images.options import ImageOptions
from kilonova.images.tickets import Tickets
from kilonova.model.context import RequestContext
from kilonova.model.errors import Unauthorized
from kilonova.store.engine import Store

NOBODY = "00000000-0000-4000-8000-000000000000"
OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


class SimpleTokens:
    """Tokens are ``<user>:<project>:<role>,<role>``."""

    async def authenticate(self, token: str, request_id: str, source_address: str) -> RequestContext:
        if token.count(":") != 2:
            raise Unauthorized()
        user, project, roles = token.split(":")
        return RequestContext(
            request_id=request_id, user_id=user, project_id=project, roles=tuple(roles.split(",")) if roles else ()
        )


class NoBell:
    def ring(self, topic: str) -> None:
        raise AssertionError("images ring no bell")


@dataclass
class ImageCloud:
    """As much of the cloud as the Image API uses."""

    parts: Parts
    identity: SimpleTokens
    images: Images
    answers: Answers
    readiness: Readiness = field(default_factory=Readiness)


class ImageApi:
    """One running Image API on a directory of its own."""

    def __init__(self, directory: Path, options: ImageOptions | None = None, http: HttpOptions | None = None) -> None:
        self.directory = directory
        self.files = directory / "images"
        self.options = options or ImageOptions()
        self.tickets = Tickets("a secret of tests")
        self.clock = SystemClock()
        self._http = http or HttpOptions()

    async def start(self) -> "ImageApi":
        self.store = Store.open(f"sqlite:///{self.directory / 'db.sqlite'}")
        self.store.create_all()
        policy = CloudPolicy(Policy([RuleSet("image", DEFAULTS)], clock=self.clock))
        parts = Parts(store=self.store, policy=policy, clock=self.clock, ids=SystemIds(), bell=NoBell())
        self.bytes = FilesystemStore(self.files, keep_free=self.options.keep_free_mib * 1024**2)
        self.images = Images(parts, self.bytes, self.tickets, self.options)
        await self.images.sweep(alone=True)
        cloud: Any = ImageCloud(parts, SimpleTokens(), self.images, Answers(self.store, self.clock))
        self.server = HttpServer(make_app([api], cloud, self._http), "127.0.0.1", 0)
        await self.server.start()
        return self

    async def stop(self) -> None:
        await self.server.stop(1)
        await self.store.close()

    def client(self, project: str = "p1", roles: str = "member,reader", **more: Any) -> httpx.AsyncClient:
        """A client of somebody in `project`."""
        headers = {"X-Auth-Token": f"user-of-{project}:{project}:{roles}"}
        return httpx.AsyncClient(base_url=f"{self.server.url}/image/v2", headers=headers, timeout=60, **more)

    def kept(self) -> list[str]:
        """Files of bytes that there are."""
        return sorted(path.name for path in self.files.iterdir())


async def made(client: httpx.AsyncClient, data: bytes | None = None, **more: Any) -> str:
    """A new image, with bytes if there are any; its id."""
    body = {"name": "it", "disk_format": "raw", "container_format": "bare", **more}
    image = (await client.post("/images", json=body)).raise_for_status().json()
    if data is not None:
        (await client.put(f"/images/{image['id']}/file", content=data, headers=OCTETS)).raise_for_status()
    return str(image["id"])


def rss() -> int:
    """Resident memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def names(client: httpx.AsyncClient, query: str = "") -> list[str]:
    """The names of the images that a query finds, in order."""
    answer = await client.get(f"/images?sort=name:asc&{query}")
    assert answer.status_code == 200, answer.text
    return [image["name"] for image in answer.json()["images"]]


async def patch(client: httpx.AsyncClient, image_id: str, *operations: dict[str, Any]) -> httpx.Response:
    """Change an image by JSON patch operations."""
    return await client.patch(f"/images/{image_id}", json=list(operations), headers=PATCH)


def replace(name: str, value: Any) -> dict[str, Any]:
    """The operation that puts a new value in an old one's place."""
    return {"op": "replace", "path": f"/{name}", "value": value}


def slowly(*pieces: bytes, gate: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """A body in pieces; after the first it waits for the gate."""

    async def pour() -> AsyncIterator[bytes]:
        for number, piece in enumerate(pieces):
            if number and gate is not None:
                await gate.wait()
            yield piece

    return pour()


async def status_becomes(client: httpx.AsyncClient, image_id: str, status: str) -> None:
    """Return once the image has the status."""
    async with asyncio.timeout(10):
        while (await client.get(f"/images/{image_id}")).json()["status"] != status:
            await asyncio.sleep(0.01)


def disk(path: Path, disk_format: str, *options: str) -> bytes:
    """The bytes of an empty disk of 8 MiB, made by qemu-img."""
    command = ["qemu-img", "create", "-q", "-f", disk_format, *options, str(path), "8M"]
    subprocess.run(command, check=True, cwd=path.parent)
    return path.read_bytes()
