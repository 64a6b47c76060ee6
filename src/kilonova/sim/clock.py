"""Clocks of simulated machines: the loop's time, each a little off, as clocks of real ones are."""

import asyncio
from datetime import UTC, datetime, timedelta

from kilonova.sim.loop import SimulatedLoop

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
"""The wall-clock time at which every simulation begins."""


class SimulatedClock:
    """A `Clock` of one machine."""

    def __init__(self, loop: SimulatedLoop, *, skew_s: float = 0.0) -> None:
        self._loop = loop
        self._begin = BEGIN + timedelta(seconds=skew_s)

    def now(self) -> datetime:
        return self._begin + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
