"""An event loop on a virtual clock, which runs many made-up processes and can kill each at any await.

Time stands still while anything can run; when nothing can, it jumps to the next timer. Nothing here waits, reads a
socket or starts a thread, so an hour of a cloud takes seconds, and happens the same way each time.

Each callback belongs to the `Life` in its context: one run of one simulated process. Callbacks of one life run in the
order in which they became ready, as asyncio promises to code in one process; *which life* is next is drawn from the
seed, as between real processes. Code therefore meets every order that it can meet outside, and none that it
cannot.

A life that is killed never runs again: what it had ready and its timers are dropped, and its suspended coroutines are
kept, so that not even Python's own clean-up runs their ``finally``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_COMPACTED_ABOVE = 64


class Life:
    """One run of one simulated process, from its start until it is killed or the simulation ends."""

    __slots__ = (
        "_compact_at",
        "_tasks",
        "context",
        "is_over",
        "is_paused",
        "machine",
        "name",
        "on_death",
        "ready",
        "steps",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.machine = name.partition("#")[0]
        """The process whose run this is; names of runs are ``PROCESS#NUMBER``."""
        self.is_over = False
        self.is_paused = False
        self.ready: deque[asyncio.Handle] = deque()
        self.steps = 0
        """Callbacks that it ran."""
        self.on_death: list[Callable[[], None]] = []
        """What the world does when it is killed: connections break."""
        self.context = contextvars.copy_context()
        self.context.run(_life.set, self)
        self._tasks: list[asyncio.Task[Any]] = []
        self._compact_at = _COMPACTED_ABOVE

    def start(self, work: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run a coroutine as a part of this life. The loop must be the running one."""
        loop = asyncio.get_running_loop()
        return loop.create_task(work, name=name or self.name, context=self.context.copy())

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task: asyncio itself does not."""
        self._tasks.append(task)
        if len(self._tasks) >= self._compact_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._compact_at = max(_COMPACTED_ABOVE, 2 * len(self._tasks))

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Its tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def bury(self) -> None:
        """After the run: let go of what was suspended, whatever its clean-up wants to do."""
        self.is_over = True
        for task in self.unfinished():
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be pending
            coroutine: Any = task.get_coro()
            # Clean-up that awaits, or asks for a loop that is gone, has nobody to complain to.
            with contextlib.suppress(BaseException):
                coroutine.close()
        self._tasks = []


_life: contextvars.ContextVar[Life] = contextvars.ContextVar("kilonova_sim_life")


def current_life() -> Life | None:
    """The life whose code runs now; None: the world's own (broker, database, faults)."""
    return _life.get(None)


class SimulationStuck(Exception):
    """Something awaits that can never happen: nothing is ready and no timer is set."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop. `chance` decides which life runs next."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._now = 0.0
        self.world = Life("world")
        """What belongs to no process: broker, database, networks, faults."""
        self._lives: list[Life] = [self.world]
        self._with_ready: list[Life] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Life]] = []
        self._number = 0
        self._is_running = False
        self._is_closed = False
        self._stopping = False
        self.steps = 0
        """Callbacks run so far."""
        self.before_step: Callable[[Life], None] | None = None
        """Called before each callback of a life; it may kill or pause that life."""
        self.complaints: list[str] = []
        """What asyncio had to say: exceptions that nobody took."""

    # ---- lives ----------------------------------------------------------------------------------------------

    def begin(self, name: str) -> Life:
        """A new life."""
        life = Life(name)
        self._lives.append(life)
        return life

    def kill(self, life: Life) -> None:
        """End a life at once, wherever it is. May be called from within it: it then ends at its next await."""
        if life.is_over:
            return
        life.is_over = True
        if life.ready:
            if not life.is_paused:
                self._with_ready.remove(life)
            life.ready.clear()
        for hook in life.on_death:
            hook()

    def pause(self, life: Life, seconds: float) -> None:
        """Stop a life, as ``SIGSTOP`` or a frozen virtual machine does; then it goes on as if nothing had happened."""
        if life.is_over or life.is_paused:
            return
        life.is_paused = True
        if life.ready:
            self._with_ready.remove(life)
        self.later(seconds, self._go_on, life)

    def _go_on(self, life: Life) -> None:
        life.is_paused = False
        if life.ready:
            self._with_ready.append(life)

    # ---- time and callbacks ---------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._make_ready(context.get(_life) or self.world, handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer, context.get(_life) or self.world))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def later(self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> asyncio.TimerHandle:
        """As `call_later`, done by the world: it happens even if the life that asks for it is killed."""
        return self.call_at(self._now + delay, callback, *args, context=self.world.context.copy())

    def world_is_busy_until(self) -> float:
        """When the last of what the world is going to do happens, as it stands now."""
        pending = (when for when, _, timer, life in self._timers if life is self.world and not timer.cancelled())
        return max(pending, default=self._now)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def _make_ready(self, life: Life, handle: asyncio.Handle) -> None:
        if life.is_over:
            return
        if not life.ready and not life.is_paused:
            self._with_ready.append(life)
        life.ready.append(handle)

    def _run_one(self) -> None:
        number = int(self._chance.random() * len(self._with_ready)) if len(self._with_ready) > 1 else 0
        life = self._with_ready[number]
        handle = life.ready[0]
        if handle.cancelled():
            self._took(life, number)
            return
        if self.before_step is not None and life is not self.world:
            self.before_step(life)
            if life.is_over or life.is_paused:
                return
            number = self._with_ready.index(life)
        self._took(life, number)
        self.steps += 1
        life.steps += 1
        handle._run()

    def _took(self, life: Life, number: int) -> None:
        life.ready.popleft()
        if not life.ready:
            last = self._with_ready.pop()
            if last is not life:
                self._with_ready[number] = last

    def _next_timers(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or timers[0][3].is_over):
            heapq.heappop(timers)
        if not timers:
            raise SimulationStuck("nothing is ready, and no timer is set")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            _, _, timer, life = heapq.heappop(timers)
            if not timer.cancelled():
                self._make_ready(life, timer)

    # ---- running --------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        self._is_running = True
        asyncio._set_running_loop(self)
        try:
            while not self._stopping:
                if self._with_ready:
                    self._run_one()
                else:
                    self._next_timers()
        finally:
            self._stopping = False
            self._is_running = False
            asyncio._set_running_loop(None)

    def run_until_complete(self, future: Any) -> Any:
        task: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        task.add_done_callback(lambda _: self.stop())
        self.run_forever()
        if not task.done():
            raise SimulationStuck("the loop was stopped before its work was done")
        return task.result()

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Bury all lives. Nothing runs any more."""
        self._is_closed = True
        for life in self._lives:
            life.bury()
            life.ready.clear()
        self._lives, self._with_ready, self._timers = [], [], []

    # ---- what asyncio needs besides -------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        if context is None:
            context = contextvars.copy_context()
        life = context.get(_life) or self.world
        # asyncio numbers nameless tasks across all loops of the process.
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=str(name or "task"), context=context)
        life.keep(task)
        return task

    async def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> T:  # type: ignore[override]
        """Inline: a thread's moment is not ours to choose."""
        return func(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._is_closed:
            return
        error = context.get("exception")
        self.complaints.append(f"{context.get('message')}: {type(error).__name__ if error else ''} {error or ''}")

    default_exception_handler = call_exception_handler

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """There is none."""

    async def shutdown_asyncgens(self) -> None:
        """None are tracked: those of a killed life must not be closed."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own name
        """There is none."""
