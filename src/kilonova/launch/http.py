"""Serve an ASGI application on this process's event loop."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn


class HttpServer:
    """uvicorn, started and stopped from outside: it leaves signals to the process."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._server = _Quiet(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                date_header=True,
                loop="none",
                http="httptools",
                ws="none",
                timeout_keep_alive=75,
                backlog=1024,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; connections are taken when this returns.

        Raises:
            OSError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
        except OSError:
            listener.close()
            raise
        self._task = asyncio.create_task(self._server.serve([listener]), name="http")
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Take no more connections, finish what is under way for a few seconds."""
        if self._task is None:
            return
        self._server.should_exit = True
        try:
            await asyncio.wait_for(asyncio.shield(self._task), timeout=4)
        except TimeoutError:
            self._server.force_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Signals are the process's own business."""
        yield
