"""One timer for any number of outstanding calls.

A task for each call would cost more than the call itself. Here one task sleeps until the earliest
deadline; calls that were answered meanwhile leave a stale entry behind, which is skipped when its
time comes, or swept out when stale entries outnumber the live.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Container, Sized
from typing import Protocol

from kilonova.base.clock import Clock

_FEW = 256


class Waiting(Container[str], Sized, Protocol):
    """The keys whose deadlines still matter."""


class Deadlines:
    """Calls `expire(key)` when the time of a key that is still in `waiting` has come."""

    def __init__(self, clock: Clock, waiting: Waiting, expire: Callable[[str], None]) -> None:
        self._clock = clock
        self._waiting = waiting
        self._expire = expire
        self._heap: list[tuple[float, str]] = []
        self._sleeper: asyncio.Task[None] | None = None
        self._wakes_at = 0.0
        self._context = contextvars.copy_context()

    def add(self, key: str, seconds: float) -> None:
        """`key` expires in `seconds` from now."""
        due = self._clock.monotonic() + seconds
        if len(self._heap) > _FEW and len(self._heap) > 2 * len(self._waiting):
            self._heap = [entry for entry in self._heap if entry[1] in self._waiting]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (due, key))
        if self._sleeper is None or due < self._wakes_at:
            self._restart(due)

    def close(self) -> None:
        """Forget all deadlines."""
        self._heap.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()
            self._sleeper = None

    def _restart(self, due: float) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._wakes_at = due
        # A context of its own, or the first caller's request would ride on in every later line.
        self._sleeper = asyncio.get_running_loop().create_task(
            self._watch(), name="rpc deadlines", context=self._context.copy()
        )

    async def _watch(self) -> None:
        while self._heap:
            due, key = self._heap[0]
            if key in self._waiting and (left := due - self._clock.monotonic()) > 0:
                self._wakes_at = due
                await self._clock.sleep(left)
            else:
                heapq.heappop(self._heap)
                if key in self._waiting:
                    self._expire(key)
        self._sleeper = None
