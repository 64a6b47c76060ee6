"""Log lines are events with fields; the request and the server ride along in the context.

Usage::

    log = get_logger(__name__)
    log.info("host chosen", server=server_id, host=name)

Each service of a process writes ``<log_dir>/<service>.log``, one JSON object a line. Which service
is speaking, and for which request, is context (`bind`), so it crosses awaits and tasks by itself.
Secrets never go into a log line: fields whose names say that they are secret are masked as a last
line of defence.
"""

import contextlib
import contextvars
import logging
import sys
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import orjson
import structlog

_context: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("kilonova_log", default={})  # noqa: B039 - never changed in place

_SECRET_WORDS = ("password", "secret", "token", "private_key", "user_data", "admin_pass")

Logger = structlog.typing.FilteringBoundLogger


def get_logger(name: str) -> Logger:
    """A logger named after its module. Its methods take an event and fields."""
    logger: Logger = structlog.get_logger(module=name.removeprefix("kilonova."))
    return logger


@contextlib.contextmanager
def bind(**fields: Any) -> Iterator[None]:
    """Add `fields` to every line logged inside (``service``, ``request_id``, ``server``, ``host`` …)."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def bound() -> dict[str, Any]:
    """The fields bound here and now."""
    return _context.get()


def set_service(service: str, **fields: Any) -> None:
    """Say which service speaks from here on in this task and in those it starts."""
    _context.set({**_context.get(), "service": service, **fields})


def _with_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**_context.get(), **event}


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if _is_secret(key):
            event[key] = "***"
    return event


@lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    return any(word in key for word in _SECRET_WORDS)


class _Level:
    """Drops what is below the level, which can change while the process runs."""

    level = logging.INFO

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method == "debug" and self.level > logging.DEBUG:
            raise structlog.DropEvent
        return event


_level = _Level()


def set_debug(debug: bool) -> None:
    """Log lines below INFO from now on, or no longer."""
    _level.level = logging.DEBUG if debug else logging.INFO


class _Files:
    """One append-only file a service, opened when it first speaks."""

    def __init__(self, log_dir: Path | None, also_stderr: bool) -> None:
        self._dir = log_dir
        self._also_stderr = also_stderr
        self._open: dict[str, IO[bytes]] = {}

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        service = str(event.get("service", "kilonova"))
        line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n"
        if self._dir is not None:
            file = self._open.get(service)
            if file is None:
                file = self._open[service] = (self._dir / f"{service}.log").open("ab", buffering=0)
            file.write(line)
        if self._also_stderr or self._dir is None:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
        raise structlog.DropEvent


def set_up(log_dir: Path | None, *, debug: bool = False, stderr: bool = False) -> None:
    """Send log lines to ``<log_dir>/<service>.log``; to standard error if there is no directory.

    Args:
        debug: also lines below INFO.
        stderr: write to standard error besides the files.
    """
    if log_dir is not None:
        log_dir.mkdir(parents=True, exist_ok=True)
    set_debug(debug)
    structlog.configure(
        processors=[
            _level,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _with_context,
            _mask,
            _Files(log_dir, stderr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=log_dir is not None,  # a service: set up once; tests set up many times
    )
    # Libraries that speak through the standard module: their warnings are worth keeping.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """Hands lines of the standard logging module on."""

    def emit(self, record: logging.LogRecord) -> None:
        # exc_info: third-party lines often carry the only trace of a fault.
        structlog.get_logger(module=record.name).log(
            record.levelno, record.getMessage(), exc_info=record.exc_info or None
        )
