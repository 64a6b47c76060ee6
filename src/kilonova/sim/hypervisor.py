"""A simulated host's hypervisor: the fake driver, living outside of its agent's process, with faults at every call."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

from kilonova.base.ids import SeededIds
from kilonova.model.errors import GuestRejected, HypervisorUnavailable
from kilonova.model.guest import GuestSpec
from kilonova.model.states import PowerState
from kilonova.sim.clock import SimulatedClock
from kilonova.sim.commands import epoch_of_command
from kilonova.sim.faults import Faults, number_from
from kilonova.sim.loop import SimulatedLoop, current_life
from kilonova.sim.outages import HostOutages
from kilonova.virt.fake.driver import FakeDriver
from kilonova.virt.fake.options import FakeOptions

LOCK_S = 30.0
"""How long an operation waits for an earlier one on the same guest; libvirt's own limit."""


class SimulatedHypervisor(FakeDriver):
    """One host's. The agent's next life finds the guests that the last one left, half-made ones among them."""

    def __init__(
        self,
        host: str,
        options: FakeOptions,
        loop: SimulatedLoop,
        faults: Faults,
        outages: HostOutages,
        *,
        seed: int,
    ) -> None:
        ids = SeededIds(number_from(seed, "hypervisor", host))
        super().__init__(host, options, SimulatedClock(loop), ids)
        self._troubles = faults
        self._outages = outages
        self._loop = loop
        self.troubled: set[str] = set()
        """Servers whose guest was hit by a fault: it may be otherwise than its record for a while."""
        self.overtaken: dict[str, str] = {}
        """Server to an order that was carried out after a newer one: law 4 is broken."""
        self.carried_out: set[tuple[str, int | None]] = set()
        """Servers and epochs of orders that were carried out to their end."""
        self._newest: Counter[str] = Counter()
        self._going_on: dict[asyncio.Task[None], str] = {}

    def image_of(self, server_id: str) -> str | None:
        """What a guest's disk was made of."""
        guest = self._guests.get(server_id)
        return guest.image_id if guest else None

    def can_destroy(self, server_id: str) -> bool:
        """Whether nothing keeps it from that for long: it is not broken, and no other operation holds the guest."""
        return not self._outages.refuses("destroy") and server_id not in self._going_on.values()

    def there(self) -> Collection[str]:
        """Servers that have a guest here, half-made or not."""
        return self._guests.keys()

    def lose_power(self) -> None:
        """All guests are off at once, and nothing goes on; what was half-made stays so."""
        for task in self._going_on:
            task.cancel()
        self._going_on.clear()
        for server_id, guest in list(self._guests.items()):
            if guest.power_state is PowerState.RUNNING:
                self.lose(server_id, PowerState.SHUTDOWN)

    def lose(self, server_id: str, power_state: PowerState | None = None) -> None:
        super().lose(server_id, power_state)
        self.troubled.add(server_id)

    async def spawn(self, spec: GuestSpec) -> None:
        await self._do(spec.server_id, partial(super().spawn, spec))

    async def destroy(self, server_id: str) -> None:
        await self._do(server_id, partial(super().destroy, server_id))
        self._fail_after("destroy", server_id)

    async def power_on(self, server_id: str) -> None:
        await self._do(server_id, partial(super().power_on, server_id))
        self._fail_after("power_on", server_id)

    async def power_off(self, server_id: str, *, grace_s: float = 0.0) -> None:
        await self._do(server_id, partial(super().power_off, server_id, grace_s=grace_s))
        self._fail_after("power_off", server_id)

    async def reboot(self, server_id: str, *, hard: bool, grace_s: float = 60.0) -> None:
        await self._do(server_id, partial(super().reboot, server_id, hard=hard, grace_s=grace_s))
        self._fail_after("reboot", server_id)

    async def _do(self, server_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it; sometimes so that it goes on when the agent that asked for it is killed, as libvirt's work does.

        As there, one operation on a guest ends before the next begins, and who waits too long is told so.
        """
        self._note_order(server_id)
        inside = _server.set(server_id)
        try:
            await self._wait_for_earlier(server_id)
            if self._troubles.strikes("driver.goes_on"):
                await self._in_the_world(server_id, work())
            else:
                await work()
            self.carried_out.add((server_id, epoch_of_command()))
        finally:
            _server.reset(inside)

    def _note_order(self, server_id: str) -> None:
        epoch = epoch_of_command()
        if epoch is None:
            return
        if epoch < self._newest[server_id]:
            self.overtaken[server_id] = f"on {self._host} epoch {epoch} after {self._newest[server_id]}"
        self._newest[server_id] = max(self._newest[server_id], epoch)

    async def _wait_for_earlier(self, server_id: str) -> None:
        earlier = [task for task, busy in self._going_on.items() if busy == server_id]
        if earlier and (await asyncio.wait(earlier, timeout=LOCK_S))[1]:
            raise HypervisorUnavailable("An earlier operation still holds the guest.")

    async def _in_the_world(self, server_id: str, work: Coroutine[Any, Any, None]) -> None:
        life = current_life()

        async def outside() -> None:
            _server.set(server_id)
            await work

        task = self._loop.world.start(outside(), name=f"hypervisor of {self._host}")
        self._going_on[task] = server_id

        def ended(_: "asyncio.Task[None]") -> None:
            self._going_on.pop(task, None)
            if life is not None and life.is_over:
                self.troubled.add(server_id)

        task.add_done_callback(ended, context=self._loop.world.context)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise

    def _strikes(self, kind: str) -> bool:
        if not self._troubles.strikes(kind):
            return False
        self._note_trouble()
        return True

    def _note_trouble(self) -> None:
        if server_id := _server.get():
            self.troubled.add(server_id)

    def _fail_after(self, operation: str, server_id: str) -> None:
        if self._troubles.strikes("driver.fail_after"):
            self.troubled.add(server_id)
            raise HypervisorUnavailable(f"{operation} was done, but the hypervisor's answer was lost.")

    async def _meet(self, operation: str, delay_s: float, failures: float) -> None:
        faults, outages = self._troubles, self._outages
        outages.maybe_begin()
        if outages.refuses(operation):
            await outages.guests.take_time()
        else:
            await self._take_time(operation, delay_s, failures)
        if outages.refuses(operation):  # or it began meanwhile
            self._note_trouble()
            raise HypervisorUnavailable(f"The hypervisor does not answer to {operation}: it is broken.")
        if self._strikes("driver.fail"):
            if operation == "spawn" and faults.one_of(2):
                raise GuestRejected("The hypervisor refuses this guest: it was made so.")
            raise HypervisorUnavailable(f"The hypervisor does not answer to {operation}: it was made so.")

    async def _take_time(self, operation: str, delay_s: float, failures: float) -> None:
        faults = self._troubles
        if self._strikes("driver.slow"):
            await asyncio.sleep(faults.between(5, 300))
        if self._strikes("driver.hang"):
            await asyncio.sleep(faults.between(100, 700))
        await super()._meet(operation, delay_s, failures)


_server: ContextVar[str] = ContextVar("server_of_this_operation", default="")
