"""Who is alive: heartbeats are gathered in memory and written in bulk; silence becomes "down".

A service is down when nothing was heard of it for ``service_down_time``. If this conductor itself could
not hear or write for a while (a pause of the database, the broker or the machine), silence proves
nothing: everybody gets a new term before anybody is marked. That it cannot hear shows in that it hears nobody at all:
each process, its own among them, has services that report.

Each conductor writes the times of its own clock, and clocks differ: on machines without a time server by hours. So a
service that looks silent is watched first, for the second half of its term: one whose stamp moves, whereto ever, lives.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.model.errors import Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import hosts, services
from kilonova.store.transactions import Tx

log = get_logger(__name__)

FLUSH_S = 1.0
"""Seconds between two writes of what was heard, and two looks for the silent."""


@dataclass(frozen=True, kw_only=True)
class LivenessOptions:
    """``[DEFAULT]`` of kilonova.conf."""

    section: ClassVar[str] = "DEFAULT"

    report_interval: float = 10.0
    """Seconds between two heartbeats of a service."""

    service_down_time: float = 60.0
    """Seconds of silence after which a service counts as down."""


class Liveness:
    """The conductor's ear."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, options: LivenessOptions, *, alone: bool = False) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._down_after = timedelta(seconds=options.service_down_time)
        self._alone = alone
        self._deaf_after = timedelta(seconds=1.5 * options.report_interval)
        self._heard_at: datetime | None = None
        self._heard: dict[tuple[str, str], datetime] = {}
        self._known: dict[tuple[str, str], tuple[str, bool]] = {}
        self._watched: dict[tuple[services.Name, datetime], float] = {}
        """Who looks silent, with its stamp, and since when (monotonic) it has had that."""
        self._grace_until: datetime | None = None
        self._last_flush: datetime | None = None
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to write what is heard."""
        self._known = await self._store.read(services.known)
        # Those who were silent while no conductor listened get a full term to speak up.
        self._grace_until = self._clock.now() + self._down_after
        self._loop = asyncio.create_task(self._flush_forever(), name="conductor.liveness")

    async def stop(self) -> None:
        """Write what is left, and stop."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
            with contextlib.suppress(Unavailable):
                await self._flush()

    async def heard(self, service: str, host: str, *, agent_id: str) -> None:
        """`service` on `host` is alive.

        Raises:
            Conflict: another process that is alive has that name.
        """
        name = (service, host)
        self._heard_at = self._clock.now()
        if self._known.get(name) == (agent_id, True):
            self._heard[name] = self._clock.now()
            return
        came_up = await self._store.run(
            self._register, service=service, host=host, agent_id=agent_id, uuid=self._ids.uuid(), at=self._clock.now()
        )
        self._known[name] = (agent_id, True)
        if came_up:
            log.info("service is up", service_name=service, host=host)

    def _register(self, tx: Tx, *, service: str, host: str, agent_id: str, uuid: str, at: datetime) -> bool:
        came_up = services.register(
            tx,
            service=service,
            host=host,
            agent_id=agent_id,
            uuid=uuid,
            at=at,
            # Only an agent owns the guests of its host; and one process alone has no rivals.
            owner_is_dead=self._alone or service != "compute",
        )
        if came_up:
            hosts.touch_by_name(tx, [host])
        return came_up

    async def _flush_forever(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_S)
            try:
                await self._flush()
            except Unavailable as error:
                log.warning("heartbeats are kept back", cause=str(error))
            except Exception:  # without this loop every host would go down
                log.exception("heartbeats cannot be written")

    async def _flush(self) -> None:
        heard, self._heard = self._heard, {}
        if heard:
            try:
                back, gone = await self._store.run(_write_heard, heard, at=self._clock.now())
            except BaseException:
                self._heard = {**heard, **self._heard}
                raise
            for name in back:
                log.info("service is up", service_name=name[0], host=name[1])
            for name in gone:
                self._known.pop(name, None)  # its next report makes it known again
        now = self._clock.now()
        if self._last_flush is not None and now - self._last_flush > timedelta(seconds=5 * FLUSH_S):
            self._grace_until = now + self._down_after
            log.warning("this conductor was held up; nobody is marked down for a while")
        self._last_flush = now
        if self._heard_at is None or now - self._heard_at > self._deaf_after:
            self._grace_until = now + self._down_after
        if self._grace_until is not None and now < self._grace_until:
            self._watched.clear()
            return
        await self._look_for_the_silent(now)

    async def _look_for_the_silent(self, now: datetime) -> None:
        quiet = await self._store.read(services.silent, before=now - self._down_after / 2)
        moment = self._clock.monotonic()
        self._watched = {one: self._watched.get(one, moment) for one in quiet.items()}
        half_s = self._down_after.total_seconds() / 2
        silent = {
            name: stamp
            for (name, stamp), since in self._watched.items()
            if stamp < now - self._down_after and moment - since >= half_s - FLUSH_S
        }
        if not silent:
            return
        for name in await self._store.run(_mark_silent, silent, at=now):
            self._known.pop(name, None)
            log.warning("service is down", service_name=name[0], host=name[1])


def _write_heard(
    tx: Tx, heard: Mapping[services.Name, datetime], *, at: datetime
) -> tuple[list[services.Name], list[services.Name]]:
    back, gone = services.seen(tx, heard, at=at)
    hosts.touch_by_name(tx, sorted({host for _, host in back}))
    return back, gone


def _mark_silent(tx: Tx, silent: Mapping[services.Name, datetime], *, at: datetime) -> list[services.Name]:
    down = services.mark_silent(tx, silent, at=at)
    hosts.touch_by_name(tx, sorted({host for _, host in down}))
    return down
