"""The processes of this machine that run on a state directory: each has said there where it can be looked at."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    """One of them."""

    services: tuple[str, ...]
    pid: int
    url: str
    """Where it answers ``/inspect`` and the like."""

    def __str__(self) -> str:
        return f"{', '.join(self.services)} (pid {self.pid})"


def running(
    state: Path, *, service: str | None = None, complain: Callable[[str], None] = lambda _: None
) -> Iterator[Running]:
    """Each process that lives.

    Args:
        service: only those that run it.
        complain: told of files that cannot be read, and of those that dead processes left behind.
    """
    for file in sorted((state / "run").glob("*.json")):
        try:
            told = json.loads(file.read_text())
            found = Running(tuple(told["services"]), int(told["pid"]), str(told["url"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            complain(f"{file} cannot be read: {error}. It is left out.")
            continue
        if service and service not in found.services:
            continue
        if not Path(f"/proc/{found.pid}").exists():
            complain(f"{found} is dead, and left {file} behind.")
            continue
        yield found
