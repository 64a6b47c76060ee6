"""What carries networks on a simulated host: the fake driver, outliving its agent, with faults at every call."""

import asyncio
from collections.abc import Collection, Sequence

from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network.driver import Report
from kilonova.network.fake import FakeNetworks
from kilonova.sim.faults import Faults


class SimulatedNetworks(FakeNetworks):
    """One host's. The agent's next life takes up what the last one carried."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

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
        faults = self._faults
        await asyncio.sleep(faults.between(5, 60) if faults.strikes("driver.slow") else faults.between(0.01, 0.3))
        if faults.strikes("driver.fail"):
            raise NetworkFailed(f"A tool refused to {operation}: it was made so.")

    def _fail_after(self, operation: str) -> None:
        if self._faults.strikes("driver.fail_after"):
            raise NetworkFailed(f"{operation} was done, but its tool was killed before it said so.")
