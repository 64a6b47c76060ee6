"""Times in which something lives on and refuses whatever it is asked: a hypervisor, network tools, the database.

Faults that are drawn one by one never fail twenty times in a row; an outage does, and so reaches the ends of retries.
"""

import asyncio

from kilonova.sim.faults import Faults
from kilonova.sim.history import History
from kilonova.sim.loop import SimulatedLoop

SLOW_TO_REFUSE_S = 20.0
"""The longest that something waits before it refuses."""


_LOOKS = frozenset({"start", "report", "list_guests"})


class Outage:
    """Of one thing: whole, until somebody lets it begin."""

    def __init__(self, what: str, loop: SimulatedLoop, history: History) -> None:
        self.number = 0
        """Outages so far."""
        self._what = what
        self._loop = loop
        self._history = history
        self._until = 0.0
        self._refuses_after_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it refuses now."""
        return self._loop.time() < self._until

    def begin(self, seconds: float, *, refuses_after_s: float = 0.0) -> None:
        """Refuse everything for so long, each time after a wait. What peace there is waits for the end of it."""
        self.number += 1
        self._until = max(self._until, self._loop.time() + seconds)
        self._refuses_after_s = refuses_after_s
        self._history.add("refuses everything:", self._what, "for", round(seconds, 3))
        self._loop.later(seconds, self._end)

    def _end(self) -> None:
        if not self.is_on:
            self._history.add("is whole again:", self._what)

    async def take_time(self) -> None:
        """What it takes to refuse."""
        await asyncio.sleep(self._refuses_after_s)


class HostOutages:
    """Of one host's drivers, whose agent lives and beats meanwhile."""

    def __init__(self, host: str, loop: SimulatedLoop, faults: Faults, history: History) -> None:
        self.guests = Outage(f"hypervisor of {host}", loop, history)
        self.networks = Outage(f"network tools of {host}", loop, history)
        self._can_look = False
        self._faults = faults

    def refuses(self, operation: str) -> bool:
        """Whether the hypervisor does not do this now. Some still tell what there is, and change nothing."""
        return self.guests.is_on and not (self._can_look and operation in _LOOKS)

    def maybe_begin(self) -> None:
        """Asked at each call of a driver: guests', networks', or both together may break now."""
        faults = self._faults
        if not faults.strikes("driver.broken"):
            return
        seconds = faults.between(60, 900)
        refuses_after_s = faults.between(0, SLOW_TO_REFUSE_S) if faults.one_of(2) else 0.0
        which = faults.one_of(3)
        if which != 0:
            self._can_look = faults.one_of(2) == 0
            self.guests.begin(seconds, refuses_after_s=refuses_after_s)
        if which != 1:
            self.networks.begin(seconds, refuses_after_s=refuses_after_s)
