"""What an agent measures on its machine between two reports, for the scheduler's metrics filter and weigher.

Names are those of the classic CPU monitor: shares of time between 0 and 1 (``cpu.percent`` is all that was not idle),
and ``cpu.*.time`` in nanoseconds since the machine started. Source of the numbers: ``/proc/stat``, see proc(5).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from kilonova.compute.inventory import InventoryError

Monitor = Callable[[], Mapping[str, float]]
"""Gives metric to value; the first call may give none that need two looks."""

STAT: Final = Path("/proc/stat")

_KINDS: Final = {"user": (0, 1), "kernel": (2, 5, 6), "idle": (3,), "iowait": (4,)}
"""Kind of time to columns of the ``cpu`` line: niced work is the user's, interrupts are the kernel's."""


class CpuMonitor:
    """How this machine's processors spent the time since the look before."""

    def __init__(self, stat: Path = STAT, *, tick_s: float | None = None) -> None:
        self._stat = stat
        self._tick_ns = 1e9 * (tick_s if tick_s is not None else 1 / os.sysconf("SC_CLK_TCK"))
        self._before = self._look()

    def _look(self) -> dict[str, int]:
        columns = [int(ticks) for ticks in self._stat.read_text().split("\n", 1)[0].split()[1:]]
        return {kind: sum(columns[place] for place in places) for kind, places in _KINDS.items()}

    def __call__(self) -> dict[str, float]:
        """Times since the start of the machine; shares, if time has passed since the last call."""
        now, before = self._look(), self._before
        found = {f"cpu.{kind}.time": ticks * self._tick_ns for kind, ticks in now.items()}
        # Idle time may go back a little when a processor is switched off: proc(5).
        spent = {kind: max(0, now[kind] - before[kind]) for kind in now}
        whole = sum(spent.values())
        if whole:
            self._before = now
            found |= {f"cpu.{kind}.percent": round(ticks / whole, 4) for kind, ticks in spent.items()}
            found["cpu.percent"] = round(1 - (spent["idle"] + spent["iowait"]) / whole, 4)
        return found


_KNOWN: Final[Mapping[str, Callable[[], Monitor]]] = {"cpu.virt_driver": CpuMonitor}


def monitors(names: Sequence[str]) -> list[Monitor]:
    """The monitors of these names.

    Raises:
        InventoryError: there is none of such a name.
    """
    for name in names:
        if name not in _KNOWN:
            raise InventoryError(f"[compute] compute_monitors: there is no '{name}'. There are: {', '.join(_KNOWN)}.")
    return [_KNOWN[name]() for name in names]
