"""The HTTP server: uvicorn inside this process, with what it lacks against slow and oversized clients.

Signals are none of its business: whoever starts it stops it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kilonova.base.log import get_logger

log = get_logger(__name__)

MAX_HEADERS = 128


class ListenError(OSError):
    """The address cannot be listened on; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """``[api]`` of kilonova.conf."""

    section: ClassVar[str] = "api"

    max_connections: int = 2000
    """Connections and requests under way at once; more are answered with 503."""

    keep_alive_s: int = 75
    """A connection without a request is closed after this long."""

    head_timeout_s: float = 20.0
    """The request line and headers must have arrived after this long."""

    max_head_bytes: int = 65536
    """The request line and headers together; more is answered with 431."""

    trusted_proxies: str = ""
    """Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed, separated by commas. Logins are limited by
    address, so only a proxy that sets both itself belongs here."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Adds limits on the size of a request's head and on the time it may take to arrive."""

    options: ClassVar[ServerOptions]
    _head_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _waiting_bytes = 0
    """Bytes of a head that the parser has not made sense of yet."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._waiting_bytes += len(data)
            if self._waiting_bytes > self.options.max_head_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._stop_head()
        if self._head_bytes > self.options.max_head_bytes or len(self.headers) > MAX_HEADERS:
            self._refuse_head()
            # Ends the parser's work on this connection; uvicorn answers a connection that is closing with nothing.
            raise ValueError("oversized head")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _start_head(self) -> None:
        self._in_head = True
        self._head_bytes = self._waiting_bytes = 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.options.head_timeout_s, self._head_too_late)

    def _stop_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._say_and_close(b"408 Request Timeout", b"The request's headers did not arrive in time.")

    def _refuse_head(self) -> None:
        self._stop_head()
        text = f"The request's headers are larger than {self.options.max_head_bytes} bytes or more than {MAX_HEADERS}."
        self._say_and_close(b"431 Request Header Fields Too Large", text.encode())

    def _say_and_close(self, status: bytes, text: bytes) -> None:
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n" % len(text)
        self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + text)
        self.transport.close()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves one ASGI application on one address."""

    def __init__(self, app: Any, address: str, port: int, options: ServerOptions | None = None) -> None:
        """
        Args:
            address: an IP address or host name to listen on.
            port: 0 is any free one; see `port` after `start`.
        """
        self._address = address
        self._options = options or ServerOptions()
        self.port = port
        protocol = type("Protocol", (GuardedProtocol,), {"options": self._options})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # the application logs every request and every fault itself
            access_log=False,
            server_header=False,
            limit_concurrency=self._options.max_connections,
            timeout_keep_alive=self._options.keep_alive_s,
            proxy_headers=bool(self._options.trusted_proxies),
            forwarded_allow_ips=self._options.trusted_proxies,
            reset_contextvars=True,
        )
        self._uvicorn = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where this server is reached from this machine."""
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._address, self._address)  # noqa: S104 - compared only
        return f"http://[{address}]:{self.port}" if ":" in address else f"http://{address}:{self.port}"

    async def start(self) -> None:
        """Listen and serve until `stop`.

        Raises:
            ListenError: somebody else listens there, or the address is not this machine's.
        """
        listener = self._listen()
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._uvicorn.serve(sockets=[listener]), name="http")
        while not self._uvicorn.started:
            if self._task.done():
                self._task.result()
                raise ListenError(f"The server at {self.url} ended at once.")
            await asyncio.sleep(0)
        log.info("listening", url=self.url)

    async def stop(self, drain_s: float = 10.0) -> None:
        """Take no more connections, let requests under way end for up to `drain_s`, then cut them off."""
        if self._task is None:
            return
        self._uvicorn.config.timeout_graceful_shutdown = max(int(drain_s), 1)
        self._uvicorn.should_exit = True
        await self._task
        self._task = None
        log.info("stopped listening", url=self.url)

    def _listen(self) -> socket.socket:
        try:
            [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
                self._address, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise ListenError(f"{self._address} is no address to listen on: {error.strerror or error}") from None
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.bind(where)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise ListenError(f"Cannot listen on {self._address} port {self.port}: {error.strerror}.") from None
        return listener
