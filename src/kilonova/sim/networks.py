"""What carries networks on a simulated host: the fake driver, outliving its agent, with faults at every call."""

import asyncio
from collections.abc import Collection, Sequence

from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network.driver import Report
from kilonova.network.fake import FakeNetworks
from kilonova.sim.faults import Faults
from kilonova.sim.outages import HostOutages


class SimulatedNetworks(FakeNetworks):
    """One host's. The agent's next life takes up what the last one carried."""

    def __init__(self, faults: Faults, outages: HostOutages) -> None:
        super().__init__()
        self._faults = faults
        self._outages = outages

    async def plug(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        await self._meet("plug")
        await super().plug(networks, ports)
        self._fail_after("plug")

    async def unplug(self, server_id: str) -> None:
        await self._meet("unplug")
        await super().unplug(server_id)
        self._fail_after("unplug")

    async def reconcile(self, wanted: HostNetworks, *, leave: Collection[str] = ()) -> Report:
        await self._meet("reconcile")
        return await super().reconcile(wanted, leave=leave)

    async def _meet(self, operation: str) -> None:
        faults, outages = self._faults, self._outages
        outages.maybe_begin()
        if outages.networks.is_on:
            await outages.networks.take_time()
        else:
            await self._take_time()
        if outages.networks.is_on:  # or it began meanwhile
            raise NetworkFailed(f"No tool does what {operation} needs: this host's are broken.")
        if faults.strikes("driver.fail"):
            raise NetworkFailed(f"A tool refused to {operation}: it was made so.")

    async def _take_time(self) -> None:
        faults = self._faults
        await asyncio.sleep(faults.between(5, 120) if faults.strikes("driver.slow") else faults.between(0.01, 0.3))
        if faults.strikes("driver.hang"):
            await asyncio.sleep(faults.between(95, 400))  # longer than a step waits

    def _fail_after(self, operation: str) -> None:
        if self._faults.strikes("driver.fail_after"):
            raise NetworkFailed(f"{operation} was done, but its tool was killed before it said so.")
