"""Services without an agent of their own say by timer that they are alive, so that ``service list`` shows them."""

import asyncio
import contextlib
from collections.abc import Sequence

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.launch.process import Process
from kilonova.model.errors import CloudError
from kilonova.rpcapi.conductor import ConductorAPI

log = get_logger(__name__)


class Heartbeats:
    """One process's beats for the services that it runs."""

    def __init__(
        self,
        conductor: ConductorAPI,
        clock: Clock,
        services: Sequence[str],
        *,
        host: str,
        agent_id: str,
        every_s: float,
    ) -> None:
        self._conductor = conductor
        self._clock = clock
        self._services = services
        self._host = host
        self._agent_id = agent_id
        self._every_s = every_s
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The first beat is at once."""
        self._loop = asyncio.create_task(self._forever(), name="launch.heartbeats")

    async def stop(self) -> None:
        """Fall silent."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    async def _forever(self) -> None:
        while True:
            for service in self._services:
                try:
                    await self._conductor.heartbeat(service, self._host, agent_id=self._agent_id)
                except CloudError as error:
                    log.warning("heartbeat was not heard", service_name=service, cause=error.message)
            await self._clock.sleep(self._every_s)


def start_heartbeats(process: Process, services: Sequence[str], *, every_s: float) -> None:
    """Beat for `services` every `every_s` seconds until the process ends."""
    beats = Heartbeats(
        process.calls.conductor,
        process.clock,
        services,
        host=process.host,
        agent_id=process.ids.uuid(),
        every_s=every_s,
    )
    beats.start()
    process.at_end(beats.stop)
