"""Log lines are events with fields; the request and the server ride along in the context.

Usage::

    log = get_logger(__name__)
    log.info("host chosen", server=server_id, host=name)

Each service of a process writes ``<log_dir>/<service>.log``, one JSON object a line. Which service
is speaking, and for which request, is context (`bind`), so it crosses awaits and tasks by itself.
Secrets never go into a log line: fields whose names say that they are secret, at any depth, and passwords in URLs
are masked as a last line of defence. Logging never raises, and never stops a service.
"""

import contextlib
import contextvars
import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import structlog

from kilonova.base.log_files import LogFile, to_stderr
from kilonova.base.log_lines import as_json, as_text
from kilonova.base.masking import masked

_context: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("kilonova_log", default={})  # noqa: B039 - never changed in place

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)

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
    return {key: masked(str(key), value) for key, value in event.items()}


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


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """``[DEFAULT]`` of kilonova.conf: how much is logged, and how much of it is kept."""

    section: ClassVar[str] = "DEFAULT"

    max_logfile_size_mb: int = 200
    """Size in MiB from which a log file is moved to ``NAME.log.1`` and a new one begun; 0 for never."""

    max_logfile_count: int = 10
    """How many full files of each service are kept."""

    use_stderr: bool = False
    """Log to standard error besides the files; in a form for people if it is a terminal."""


class _Sinks:
    """The end of the way: a file for each service, opened when it first speaks, and standard error."""

    def __init__(self, log_dir: Path | None, stderr: bool, options: LogOptions) -> None:
        self._dir = log_dir
        self._stderr = stderr or log_dir is None
        self._options = options
        self._open: dict[str, LogFile] = {}

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        written = True
        if self._dir is not None:
            written = self._file(str(event.get("service", "kilonova"))).write(as_json(event))
        if self._stderr and written:
            terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
            to_stderr(as_text(event, colour=True) if terminal else as_json(event))
        raise structlog.DropEvent

    def _file(self, service: str) -> LogFile:
        file = self._open.get(service)
        if file is None:
            name = re.sub(r"[^\w.-]", "_", service)
            file = self._open[service] = LogFile(
                cast(Path, self._dir) / f"{name}.log",
                max_bytes=self._options.max_logfile_size_mb * 1024**2,
                keep=self._options.max_logfile_count,
            )
        return file


def set_up(
    log_dir: Path | None, *, debug: bool = False, stderr: bool = False, options: LogOptions | None = None
) -> None:
    """Send log lines to ``<log_dir>/<service>.log``; to standard error if there is no directory, or it is of no use.

    Args:
        debug: also lines below INFO.
        stderr: write to standard error besides the files.
    """
    options = options or LogOptions()
    set_debug(debug)
    structlog.configure(
        processors=[
            _level,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _with_context,
            _mask,
            _Sinks(log_dir, stderr or options.use_stderr, options),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=log_dir is not None,  # a service: set up once; tests set up many times
    )
    # Libraries that speak through the standard module: their warnings are worth keeping.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """Hands lines of the standard logging module on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the format are the library's fault, not ours
            message = str(record.msg)
        # Levels between the five known ones count as the next lower one.
        level = max((known for known in _LEVELS if known <= record.levelno), default=logging.DEBUG)
        # exc_info: third-party lines often carry the only trace of a fault.
        structlog.get_logger(module=record.name).log(level, message, exc_info=record.exc_info or None)
