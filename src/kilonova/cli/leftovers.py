"""What a cloud has on this machine besides its files: devices, rules, processes. For showing, and for cleaning up.

Devices and rules are told from other people's by their names; processes by the state directory in their
command line. What was there before is not counted.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from kilonova.base.clock import Clock

_LINK: Final = re.compile(r"(kb|kn)[0-9a-f-]{4,13}$")
"""Bridges of networks and taps of ports: two letters and the beginning of an id."""


@dataclass(frozen=True)
class Machine:
    """Devices and rules that clouds have made on this machine, at one moment."""

    links: frozenset[str]
    tables: frozenset[str]

    @classmethod
    def look(cls) -> Self:
        """What is there now."""
        shown = json.loads(_output("ip", "-json", "link", "show") or "[]")
        names = (str(link["ifname"]) for link in shown)
        tables = (line.strip() for line in _output("nft", "list", "tables").splitlines())
        return cls(
            frozenset(name for name in names if _LINK.match(name)),
            frozenset(table for table in tables if "kilonova" in table),
        )

    def since(self, before: "Machine") -> list[str]:
        """What is here and was not there before, in words."""
        links = (f"link {name}" for name in sorted(self.links - before.links))
        return [*links, *(f"nft {table}" for table in sorted(self.tables - before.tables))]


def processes_of(state: Path) -> dict[int, str]:
    """Processes that name the state directory in their command line, without this one and its parents."""
    own = _ancestors(os.getpid())
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid in own:
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        command = b" ".join(words).decode(errors="replace").strip()
        if re.search(re.escape(str(state)) + r"(?![\w.-])", command):
            found[pid] = command
    return found


def _ancestors(pid: int) -> set[int]:
    chain = {pid}
    while pid > 1:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            break
        match = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        pid = int(match[1]) if match else 0
        chain.add(pid)
    return chain


async def end_processes(
    state: Path, clock: Clock, *, keep: frozenset[int] = frozenset(), grace_s: float = 10.0
) -> list[str]:
    """End what runs for the state directory, but for `keep`: by pid, politely first. Returns what would not go."""

    def running() -> dict[int, str]:
        return {pid: command for pid, command in processes_of(state).items() if pid not in keep}

    for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 3.0)):
        for pid in running():
            _signal(pid, sign)
        end = clock.monotonic() + patience_s
        while running() and clock.monotonic() < end:
            await clock.sleep(0.1)
    return list(running().values())


def _signal(pid: int, sign: int) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return  # gone by itself


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
