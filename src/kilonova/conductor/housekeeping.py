"""Forget what nobody asks for any more: records of ended tasks, old scheduling decisions. Takes no input."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.model.errors import Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import answers, decisions, service_events, tasks
from kilonova.tasks.engine import TaskOptions

log = get_logger(__name__)

EVERY_S = 600.0
"""Seconds between two rounds."""


@dataclass(frozen=True, kw_only=True)
class ConductorOptions:
    """``[conductor]`` of kilonova.conf."""

    section: ClassVar[str] = "conductor"

    keep_decisions_days: float = 7.0
    """Days after which the scheduler's stored decisions, and with them their explanations, are forgotten."""

    invariant_check_interval: float = 600.0
    """Seconds between two looks at whether the books agree with themselves (claims, quota, ports, tasks) and with what
    hypervisors run: ``kilonova_invariant_drift`` in ``/metrics``. Each look reads all servers once, and asks the agent
    of each host once. 0: never; ``kilonova doctor --invariants`` looks at any time."""

    invariant_check_hosts_at_once: int = 16
    """Hosts that are asked for their guests at the same time in such a look. 0: none is asked, only the books are
    looked at."""

    invariant_check_again: float = 65.0
    """Seconds after which guests that are otherwise than the books say are looked at once more: only what is the same
    both times counts. Somewhat more than two of ``[compute] sync_power_state_interval``: agents mend by then."""

    keep_service_events_days: float = 90.0
    """Days after which it is forgotten when services came and went."""


class Housekeeping:
    """Prunes in small portions, so that nobody waits for it."""

    def __init__(self, store: Store, clock: Clock, options: ConductorOptions, task_options: TaskOptions) -> None:
        self._store = store
        self._clock = clock
        self._keep_decisions = timedelta(days=options.keep_decisions_days)
        self._keep_service_events = timedelta(days=options.keep_service_events_days)
        self._keep_tasks = timedelta(days=task_options.keep_finished_days)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to prune by timer."""
        self._loop = asyncio.create_task(self._forever(), name="conductor.housekeeping")

    async def stop(self) -> None:
        """No more rounds."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    async def round(self) -> int:
        """Forget all that is old; how many rows."""
        now = self._clock.now()
        gone = 0
        for prune, kept in (
            (tasks.prune, self._keep_tasks),
            (tasks.prune_subjects, self._keep_tasks),
            (decisions.prune, self._keep_decisions),
            (service_events.prune, self._keep_service_events),
            (answers.prune, answers.KEPT),
        ):
            while count := await self._store.run(prune, before=now - kept):
                gone += count
        return gone

    async def _forever(self) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                gone = await self.round()
            except Unavailable as error:
                log.warning("housekeeping waits", cause=error.message)
                continue
            if gone:
                log.info("old records forgotten", rows=gone)
