"""The way from a guest to the metadata service: the source address on this network says which server asks.

Anti-spoofing rules make the address trustworthy. The question goes on with a signed header; what the guest itself
sent as headers goes no further.
"""

import asyncio
import contextlib
import hashlib
import hmac
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn

from kilonova.base.log import get_logger

log = get_logger(__name__)

Who = Callable[[str], tuple[str, str] | None]
"""Source address to server id and project id."""


class MetadataProxy:
    """One network's proxy, on the host's address of that network."""

    def __init__(self, address: str, who: Who, api_url: str, secret: str) -> None:
        self.address = address
        self.port = 0
        self._who = who
        self._api_url = api_url
        self._secret = secret
        self._http = httpx.AsyncClient(timeout=20, trust_env=False)
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on any free port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self, lifespan="off", log_config=None, access_log=False, server_header=False, loop="none",
            limit_concurrency=200, timeout_keep_alive=5,
        )  # fmt: skip
        self._server = _Uvicorn(config)
        self._task = asyncio.create_task(self._server.serve([listener]), name=f"metadata.{self.address}")

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            await self._task
        await self._http.aclose()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        status, content_type, body = await self._answer(scope)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: dict[str, Any]) -> tuple[int, str, bytes]:
        source = scope["client"][0]
        found = self._who(source)
        if found is None:
            return 404, "text/plain", b"This address is no server's.\n"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "text/plain", b"Metadata can only be read.\n"
        server_id, project_id = found
        headers = {
            "X-Instance-ID": server_id,
            "X-Tenant-ID": project_id,
            "X-Forwarded-For": source,
            "X-Instance-ID-Signature": hmac.new(self._secret.encode(), server_id.encode(), hashlib.sha256).hexdigest(),
        }
        try:
            answer = await self._http.get(f"{self._api_url}/metadata{scope['path']}", headers=headers)
        except httpx.HTTPError as error:
            log.warning("metadata service cannot be reached", server=server_id, cause=str(error))
            return 503, "text/plain", b"The metadata service does not answer now; try again.\n"
        log.info("metadata told", server=server_id, path=scope["path"], status=answer.status_code)
        return answer.status_code, answer.headers.get("content-type", "text/plain"), answer.content


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
