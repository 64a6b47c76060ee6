"""What every process tells operators of itself, on loopback: ``/healthz``, ``/readyz``, ``/metrics``, ``/inspect``.

A process with a conductor also answers ``/guests``: what its agents' hypervisors run, for `kilonova doctor`, which
cannot ask the agents of another process that has its queue in memory.

Where it listens stands in a file below the state directory, so that `kilonova inspect` finds every process of a
machine. It is a server of its own and not the API's: agents have no API, and users have no business here.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import msgspec
import orjson

from kilonova import __version__
from kilonova.api.http.server import HttpServer, ServerOptions
from kilonova.base.log import get_logger
from kilonova.base.masking import masked
from kilonova.base.metrics import CONTENT_TYPE, Gauge, Histogram, exposition
from kilonova.launch.addresses import Address
from kilonova.launch.process import Process
from kilonova.launch.state import write_private
from kilonova.model.errors import CloudError

log = get_logger(__name__)

CHECK_S = 3.0
"""Seconds after which a check counts as failed."""

LATE_S = 60.0
"""Seconds that periodic work may take besides its own interval."""

LAG_EVERY_S = 0.5
"""Seconds between two measurements of the event loop."""

Check = Callable[[], Awaitable[object]]
Section = Callable[[], Any]
Answer = Callable[[Sequence[str]], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class OperationsOptions:
    """``[operations]`` of kilonova.conf."""

    section: ClassVar[str] = "operations"

    listen: str = "127.0.0.1:0"
    """Where each process answers ``/healthz``, ``/readyz``, ``/metrics``, ``/inspect`` and, with a conductor in it,
    ``/guests``; port 0 is any free one, to be found in ``STATE/run``. Anybody who reaches it can read it: leave it on
    loopback, or behind a firewall."""


class LoopIsLate(Exception):
    """Periodic work has not ended for much longer than it should."""


class Operations:
    """One process's answers."""

    def __init__(self, process: Process, listen: Address, services: tuple[str, ...]) -> None:
        self._process = process
        self._services = services
        self._checks: dict[str, Check] = {"broker": process.transport.depths, "loops": self._loops_run}
        self._sections: dict[str, Section] = {
            "calls waiting for an answer": lambda: [msgspec.to_builtins(call) for call in process.rpc.inspect()],
            "messages in hand": lambda: [
                msgspec.to_builtins(message) for server in process.servers for message in server.inspect()
            ],
            "loops": self._loops,
            "waiting in the event loop": _coroutines,
            "config": process.config.shown,
        }
        self._answers: dict[str, Answer] = {}
        self._http = HttpServer(self, listen.host, listen.port, ServerOptions())
        self._file = process.state.root / "run" / f"{process.host}-{process.name}.json"
        registry = process.readiness.registry
        Gauge(
            "kilonova_calls_waiting", "Calls to other services without an answer yet", registry=registry
        ).set_function(lambda: len(process.rpc.inspect()))
        Gauge("kilonova_messages_in_hand", "Messages being worked on", registry=registry).set_function(
            lambda: sum(len(server.inspect()) for server in process.servers)
        )
        self._lag = Histogram(
            "kilonova_event_loop_lag_seconds",
            "How much later than wanted the event loop came back to a coroutine",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=registry,
        )

    def add_check(self, name: str, check: Check) -> None:
        """`check` raises, or does not end, when this process cannot do its work."""
        self._checks[name] = check

    def add_section(self, name: str, section: Section) -> None:
        """Something to look at: a list of objects, or one."""
        self._sections[name] = section

    def add_answer(self, path: str, answer: Answer) -> None:
        """What is told at a path of its own, handed the values of `host` in the query: it may take a while."""
        self._answers[path] = answer

    async def start(self) -> None:
        """Listen until the process ends.

        Raises:
            OSError: the address cannot be had.
        """
        await self._http.start()
        self._process.at_end(self.stop)
        self._watching = asyncio.create_task(self._watch(), name="operations.lag")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        told = {"pid": os.getpid(), "url": self._http.url, "services": self._services, "host": self._process.host}
        write_private(self._file, orjson.dumps(told).decode())

    async def stop(self) -> None:
        """Fall silent."""
        self._file.unlink(missing_ok=True)
        self._watching.cancel()
        await self._http.stop(drain_s=1.0)

    async def readiness(self) -> dict[str, str]:
        """What this process still waits for, or cannot reach: name to cause. Empty: it can do all of its work."""
        waiting = dict(self._process.readiness.waiting)
        names = [name for name in self._checks if name not in waiting]
        causes = await asyncio.gather(*(_cause(self._checks[name]) for name in names))
        return waiting | {name: cause for name, cause in zip(names, causes, strict=True) if cause}

    async def inspect(self) -> dict[str, Any]:
        """Everything at once."""
        found: dict[str, Any] = {
            "version": __version__,
            "host": self._process.host,
            "services": self._services,
            "pid": os.getpid(),
            "waiting for": await self.readiness(),
        }
        for name, section in self._sections.items():
            try:
                found[name] = section()
            except Exception as error:  # one that fails must not hide the others
                found[name] = {"cannot be shown": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(CloudError, TimeoutError):
            async with asyncio.timeout(CHECK_S):
                found["queues"] = [
                    {"queue": name, **msgspec.to_builtins(depth)}
                    for name, depth in (await self._process.transport.depths()).items()
                ]
        shown: dict[str, Any] = masked("", found, depth=32)
        return shown

    async def _watch(self) -> None:
        clock = self._process.clock
        while True:
            before = clock.monotonic()
            await clock.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, clock.monotonic() - before - LAG_EVERY_S))

    def _loops(self) -> list[dict[str, Any]]:
        now = self._process.clock.monotonic()
        return [
            {
                "loop": name,
                "every s": loop.every_s,
                "runs": loop.runs,
                "s since the last end": None if loop.last_end is None else now - loop.last_end,
                "s in this run": None if loop.running_since is None else now - loop.running_since,
                "failure": loop.failure,
            }
            for name, loop in self._process.loops.items()
        ]

    async def _loops_run(self) -> None:
        now = self._process.clock.monotonic()
        late = [
            name
            for name, loop in self._process.loops.items()
            if now - (loop.since if loop.last_end is None else loop.last_end) > 3 * loop.every_s + LATE_S
        ]
        if late:
            raise LoopIsLate(f"no end of {', '.join(late)} for more than three times as long as it should take")

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """One request (ASGI)."""
        if scope["type"] != "http":
            return
        status, content_type, body = 200, b"application/json", b""
        match scope["path"]:
            case "/healthz":
                body = orjson.dumps({"alive": True})
            case "/readyz":
                waiting = await self.readiness()
                status = 503 if waiting else 200
                body = orjson.dumps({"ready": not waiting, "waiting_for": waiting})
            case "/metrics":
                content_type = CONTENT_TYPE.encode()
                body = exposition(self._process.readiness.registry)
            case "/inspect":
                body = orjson.dumps(await self.inspect(), default=str)
            case path if path in self._answers:
                hosts = parse_qs(scope.get("query_string", b"").decode(errors="replace")).get("host", [])
                status, body = await _answered(self._answers[path], hosts)
            case _:
                paths = ["/healthz", "/readyz", "/metrics", "/inspect", *self._answers]
                status, body = 404, orjson.dumps({"paths": paths})
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _cause(check: Check) -> str:
    """Why a check fails; empty if it does not."""
    try:
        async with asyncio.timeout(CHECK_S):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except CloudError as error:
        return error.message
    except LoopIsLate as error:
        return str(error)
    except Exception as error:  # whatever a check meets is an answer
        return f"{type(error).__name__}: {error}"
    return ""


async def _answered(answer: Answer, hosts: Sequence[str]) -> tuple[int, bytes]:
    try:
        return 200, orjson.dumps(await answer(hosts))
    except CloudError as error:
        return 503, orjson.dumps({"cause": error.message})


def _coroutines() -> list[dict[str, Any]]:
    """What the event loop has in hand, and in which function each waits; those without a name are counted by it."""
    found: Counter[tuple[str, str]] = Counter()
    for task in asyncio.all_tasks():
        stack = task.get_stack(limit=1)
        where = f"{Path(stack[0].f_code.co_filename).name}:{stack[0].f_lineno}" if stack else ""
        name = task.get_name()
        if name.startswith("Task-"):
            name = getattr(task.get_coro(), "__qualname__", "")
        found[name, where] += 1
    return [{"name": name, "at": where, "count": count} for (name, where), count in sorted(found.items())]
