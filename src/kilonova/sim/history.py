"""What happened in a simulation, line by line, and the hash that tells two histories apart."""

import hashlib
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from kilonova.model.errors import CloudError
from kilonova.sim.loop import SimulatedLoop, current_life


class History:
    """Lines of time, process and event. Everything that services log is in it."""

    def __init__(self, loop: SimulatedLoop, *, show: Callable[[str], None] | None = None) -> None:
        """`show`: is handed each line."""
        self.events = 0
        self.unforeseen: dict[str, str] = {}
        """What services logged of errors that are none of the product's own: by event, the first one's words."""
        self._loop = loop
        self._show = show
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, *words: object) -> None:
        """Something happened now, in the life that runs."""
        life = current_life()
        line = f"{self._loop.time():12.6f} {life.name if life else 'world':16} {' '.join(map(str, words))}"
        self.events += 1
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        if self._show is not None:
            self._show(line)

    @property
    def hash(self) -> str:
        """Equal for equal histories."""
        return self._hash.hexdigest()

    def take_log(self, _: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """A processor of structlog: a line of a service is an event, and goes nowhere else."""
        fields = " ".join(f"{key}={_plain(value)}" for key, value in sorted(event.items()) if key not in _LEFT_OUT)
        trace = event.get("exc_info")
        if trace:
            error = trace if isinstance(trace, BaseException) else _current_error()
            text = f"{type(error).__name__}: {error}"
            fields += f" error={text}"
            if not isinstance(error, CloudError):
                self.unforeseen.setdefault(str(event["event"]), text)
        self.add(method, event["event"], fields)
        raise structlog.DropEvent


_LEFT_OUT = frozenset({"event", "exc_info", "module"})


def _plain(value: object) -> str:
    # A set's order is not the seed's.
    return str(sorted(value, key=str)) if isinstance(value, set | frozenset) else str(value)


def _current_error() -> BaseException | None:
    return sys.exc_info()[1]
