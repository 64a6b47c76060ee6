"""Whether hosts, once all is at rest, report what they run."""

from collections.abc import Mapping, Sequence
from typing import Final

from kilonova.conductor.invariants import Violation, reported
from kilonova.model.guest import GuestState
from kilonova.sim.database import Note
from kilonova.sim.loop import SimulatedLoop
from kilonova.store.engine import Store
from kilonova.store.queries.invariants import Reported, reports

SETTLED_S: Final = 20.0
"""Seconds of rest after which a report has nothing from before in it."""


class Reports:
    """Remembers when hosts reported, and when their agents looked at all guests."""

    def __init__(self, loop: SimulatedLoop, store: Store) -> None:
        self._loop = loop
        self._store = store
        self._reported: dict[str, float] = {}
        self._compared: dict[str, float] = {}
        """Host to its agent's last comparison before its last report."""
        self._comparing: dict[str, float] = {}

    def see(self, notes: Sequence[Note]) -> None:
        """Who reported in one transaction."""
        for name, *told in notes:
            if name == "report":
                [host] = told
                self._reported[host] = self._loop.time()
                self._compared[host] = self._comparing.get(host, 0.0)

    def note_comparison(self, host: str) -> None:
        """The agent of this host has looked at all its guests."""
        self._comparing[host] = self._loop.time()

    def look(self, guests: Mapping[str, Mapping[str, GuestState]], *, since: float) -> list[Violation]:
        """Reports that do not tell what there is, of hosts that told something in the rest that began at `since`."""
        told: dict[str, Reported] = {}
        for host, report in self._store.run_now(reports).items():
            if self._reported.get(host, 0.0) > since + SETTLED_S:
                # An agent counts guests when it compares: an older count is left out.
                told[host] = report if self._compared[host] > since else report._replace(guests=None)
        return reported(told, guests)
