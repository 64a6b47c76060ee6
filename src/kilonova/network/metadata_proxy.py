"""The way from a guest to the metadata service: the source address on this network says which server asks.

Anti-spoofing rules make the address trustworthy. The question goes on with a signed header; nothing that the guest
itself sent as headers or query goes further, and its path only after it has been taken apart and put together again.
"""

import asyncio
import contextlib
import errno
import hashlib
import hmac
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import uvicorn

from kilonova.base.log import get_logger
from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import PortPlan

log = get_logger(__name__)

MAX_ANSWER = 1024 * 1024
"""Bytes of one answer; user data has at most 64 KiB."""

Who = Callable[[str], PortPlan | None]
"""Source address to the port that has it."""


@dataclass(frozen=True, kw_only=True)
class MetadataService:
    """Where the metadata service is, and the secret that it shares with the proxies of all hosts."""

    url: str
    secret: str

    def signed_headers(self, port: PortPlan, source: str) -> dict[str, str]:
        """For whom a proxy asks, and the proof that it is one."""
        signature = hmac.new(self.secret.encode(), port.server_id.encode(), hashlib.sha256).hexdigest()
        return {
            "X-Instance-ID": port.server_id,
            "X-Tenant-ID": port.project_id,
            "X-Forwarded-For": source,
            "X-Instance-ID-Signature": signature,
        }


class MetadataProxy:
    """One network's proxy, on the host's address of that network, for that network's bridge alone: another's guests
    may have the same addresses."""

    def __init__(self, address: str, bridge: str, who: Who, service: MetadataService) -> None:
        self.address = address
        self._bridge = bridge
        self.port = 0
        self._who = who
        self._service = service
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(10, connect=3), trust_env=False, follow_redirects=False)
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._task is not None and not self._task.done()

    async def start(self, port: int = 0) -> None:
        """Listen on `port`; on any free one if another program has that.

        Raises:
            NetworkFailed: the address is not this host's.
        """
        listener = self._listen(port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self,
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=200,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        self._server = _Uvicorn(config)
        self._task = asyncio.create_task(self._server.serve([listener]), name=f"metadata.{self.address}")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has a flag alone
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            await asyncio.wait({self._task})
        await self._http.aclose()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._bridge.encode() + b"\0")
            try:
                listener.bind((self.address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or port == 0:
                    raise
                listener.bind((self.address, 0))
        except OSError as error:
            listener.close()
            raise NetworkFailed(f"The metadata proxy cannot listen on {self.address}: {error.strerror}.") from None
        return listener

    # ---- one question ----------------------------------------------------------------------------------------

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        status, content_type, body = await self._answer(scope)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: dict[str, Any]) -> tuple[int, str, bytes]:
        source = scope["client"][0]
        port = self._who(source)
        if port is None:
            return 404, "text/plain", b"This address is no server's.\n"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "text/plain", b"Metadata can only be read.\n"
        path = "/".join(quote(part, safe="~:@=+,") for part in scope["path"].split("/") if part not in ("", ".", ".."))
        headers = self._service.signed_headers(port, source)
        try:
            status, content_type, body = await self._ask(f"{self._service.url}/{path}", headers)
        except httpx.HTTPError as error:
            log.warning("metadata service cannot be reached", server=port.server_id, cause=repr(error))
            return 503, "text/plain", b"The metadata service does not answer now; try again.\n"
        log.info("metadata told", server=port.server_id, path=f"/{path}", status=status)
        if status not in (200, 404):
            # What stands in other answers is for the log of the service, not for guests.
            return (status if status >= 500 else 502), "text/plain", b"The metadata service does not answer.\n"
        return status, content_type, body

    async def _ask(self, url: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        async with self._http.stream("GET", url, headers=headers) as answer:
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise httpx.DecodingError("the answer is too large")
            return answer.status_code, answer.headers.get("content-type", "text/plain"), body


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
