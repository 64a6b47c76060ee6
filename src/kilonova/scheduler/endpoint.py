"""The scheduler's end of the conversation: keeps the table fresh and answers with ranked hosts.

Requests that wait together are decided together: one look at the feed, then one decision after the other
on the table in memory, each deducted before the next. The scheduler writes nothing; the conductor claims,
and stores the explanation with its claim.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.model.errors import CloudError
from kilonova.model.request_spec import Choice, RequestSpec, WhatIf
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.scheduler.drivers.base import SchedulerDriver
from kilonova.scheduler.feed import Feed, FeedPage
from kilonova.scheduler.metrics import SchedulerMetrics
from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.table import HostTable
from kilonova.scheduler.what_if import MOST_TRIED, try_out

log = get_logger(__name__)

_TURN = 32
"""Decisions made in one go before other work of the process gets its turn."""


@dataclass
class _Waiting:
    spec: RequestSpec
    answer: asyncio.Future[list[Choice]]


class SchedulerEndpoint(SchedulerAPI):
    """Answers `select` for any conductor."""

    def __init__(
        self,
        feed: Feed,
        driver: SchedulerDriver,
        clock: Clock,
        options: SchedulerOptions | None = None,
        metrics: SchedulerMetrics | None = None,
    ) -> None:
        self.table = HostTable()
        self._feed = feed
        self._driver = driver
        self._clock = clock
        self._options = options or SchedulerOptions()
        self._metrics = metrics or SchedulerMetrics()
        self._reading = asyncio.Lock()
        self._read_at: float | None = None
        self._metrics.watch_staleness(lambda: self.staleness_s)
        self._waiting: list[_Waiting] = []
        self._deciding: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None

    @property
    def staleness_s(self) -> float:
        """Seconds since the feed was last read: how old the table may be. Endless before it was read at all."""
        return float("inf") if self._read_at is None else self._clock.monotonic() - self._read_at

    async def start(self) -> None:
        """Keep the table fresh from now on, also when nobody asks."""
        self._timer = asyncio.create_task(self._refresh_forever(), name="scheduler.refresh")

    async def stop(self) -> None:
        """Answer what is waiting, then stop."""
        for task in (self._timer, self._deciding):
            if task is None:
                continue
            if task is self._timer:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # ---- what conductors ask ---------------------------------------------------------------------------------

    async def select(self, spec: RequestSpec) -> list[Choice]:
        waiting = _Waiting(spec, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._deciding is None:
            self._deciding = asyncio.create_task(self._decide_all(), name="scheduler.decide")
        choices = await waiting.answer
        for choice in choices:  # here, and not where it is decided: the request's id is in this task's context
            self._tell(choice)
        return choices

    async def what_if(self, spec: RequestSpec, *, most: int) -> WhatIf:
        await self._read_feed()
        # In one go: nobody else may meet what is only tried.
        return try_out(self._driver, self.table, spec, most=min(most, MOST_TRIED), now=self._clock.monotonic)

    async def refresh(self) -> None:
        await self._read_feed()

    # ---- inside ------------------------------------------------------------------------------------------------

    async def _decide_all(self) -> None:
        try:
            while self._waiting:
                # Whoever comes while the feed is read waits for the next look: this one may be older than the
                # request.
                batch, self._waiting = self._waiting, []
                try:
                    if self._driver.reads_feed_each_time or self._read_at is None:
                        await self._read_feed()
                except Exception as error:
                    if not isinstance(error, CloudError):
                        log.exception("the feed of hosts cannot be taken in")
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                    continue
                for number, waiting in enumerate(batch, start=1):
                    self._decide(waiting)
                    if number % _TURN == 0:
                        await self._clock.sleep(0)
        finally:
            self._deciding = None

    def _decide(self, waiting: _Waiting) -> None:
        if waiting.answer.done():  # the caller has gone
            return
        started = self._clock.monotonic()
        try:
            choices = self._driver.select(self.table, waiting.spec, now=started)
        except Exception as error:  # a plug-in's fault is its request's fault, not everybody's
            log.exception("decision failed", server=waiting.spec.server_ids)
            waiting.answer.set_exception(error)
            return
        self._metrics.decided(choices, seconds=self._clock.monotonic() - started)
        waiting.answer.set_result(choices)

    async def _read_feed(self) -> None:
        async with self._reading:
            at = self._clock.monotonic()
            page = await self._feed.read(
                since=self.table.seq,
                aggregates_version=self.table.aggregates.version,
                pending=self.table.pending.keys(),
            )
            self._metrics.read()
            self._take_in(page)
            self._read_at = at

    def _take_in(self, page: FeedPage) -> None:
        table = self.table
        if page.aggregates is not None:
            table.set_aggregates(*page.aggregates)
        if page.hosts:
            table.apply(page.hosts)
        if page.claimed or page.ended:
            table.settle([*page.claimed, *page.ended])
        if table.pending:
            forgotten = table.expire(self._clock.monotonic() - self._options.pending_forgotten_after)
            if forgotten:
                log.info("choices were never claimed", count=forgotten)
        for complaint, was_told in table.complaints.items():
            if not was_told:
                table.complaints[complaint] = True
                log.warning("metadata cannot be used", what=complaint)

    async def _refresh_forever(self) -> None:
        while True:
            try:
                await self._read_feed()
            except CloudError as error:
                log.warning("the feed of hosts cannot be read; the table grows stale", cause=error.message)
            except Exception:  # a row that cannot be understood must not end the refreshing of all others
                log.exception("the feed of hosts cannot be taken in")
            await self._clock.sleep(self._options.refresh_interval)

    def _tell(self, choice: Choice) -> None:
        explanation = choice.explanation
        if choice.candidates:
            log.info(
                "host chosen",
                server=choice.server_id,
                host=choice.candidates[0].host,
                passed=explanation.filters[-1][1],
                considered=explanation.filters[0][1],
                candidates=len(choice.candidates),
                seq=self.table.seq,
            )
        else:
            log.info("no valid host", server=choice.server_id, missing=explanation.missing, seq=self.table.seq)
