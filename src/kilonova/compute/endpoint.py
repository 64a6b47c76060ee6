"""Commands of conductor tasks: checks the epoch, holds the claim, calls the driver."""

import asyncio

from kilonova.base.log import get_logger
from kilonova.compute.tracker import Tracker
from kilonova.model.epochs import Epochs
from kilonova.model.errors import NotSupported
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.virt.driver import ConsoleLog, VirtDriver

log = get_logger(__name__)


class ComputeEndpoint(ComputeAPI):
    """The agent's end of `ComputeAPI`."""

    def __init__(self, host: str, driver: VirtDriver, tracker: Tracker, epochs: Epochs, *, builds: int = 10) -> None:
        """`builds`: guests that are made at the same time at the most; more wait their turn."""
        self._host = host
        self._driver = driver
        self._tracker = tracker
        self._epochs = epochs
        self._builds = asyncio.Semaphore(builds)

    async def spawn(self, guest: GuestSpec, *, epoch: int) -> None:
        async with self._epochs.enter(guest.server_id, epoch), self._builds:
            # Guests that nobody told us of take room too: the claim is held against what is really here.
            moment = self._tracker.moment()
            self._tracker.observe((await self._driver.list_guests()).values(), since=moment)
            async with self._tracker.claim(guest):
                await self._driver.spawn(guest)
        log.info(
            "guest runs", server=guest.server_id, guest=guest.name, driver=self._driver.name, flavor=guest.flavor_name
        )

    async def destroy(self, server_id: str, *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self._driver.destroy(server_id)
            self._tracker.release(server_id)
        log.info("guest is gone", server=server_id)

    async def power_on(self, server_id: str, *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self._driver.power_on(server_id)
        log.info("guest is on", server=server_id)

    async def power_off(self, server_id: str, *, epoch: int, grace_s: float = 60.0) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self._driver.power_off(server_id, grace_s=grace_s)
        log.info("guest is off", server=server_id)

    async def reboot(self, server_id: str, *, epoch: int, hard: bool, grace_s: float = 60.0) -> None:
        async with self._epochs.enter(server_id, epoch):
            await self._driver.reboot(server_id, hard=hard, grace_s=grace_s)
        log.info("guest was restarted", server=server_id, hard=hard)

    async def console_log(self, server_id: str, *, max_bytes: int) -> str:
        if not isinstance(self._driver, ConsoleLog):
            raise NotSupported(f"The {self._driver.name} driver keeps no console log.")
        return (await self._driver.console_log(server_id, max_bytes=max_bytes)).decode(errors="replace")

    async def guests(self) -> list[GuestState]:
        return list((await self._driver.list_guests()).values())

    async def ping(self) -> str:
        return self._host
