"""What agents report to the conductor, and what they ask it. The conductor is their only way to data.

1.0  report_host, heartbeat, guests_of, networks_of, report_power_states, wake
1.1  report_host: with `numa`, `pci`, `more`, `metrics` (HostReport 1.1); an older conductor leaves them out
"""

from typing import ClassVar, Protocol

import msgspec

from kilonova.model.guest import GuestRecord, PowerObservation
from kilonova.model.host import HostReport
from kilonova.model.network_plans import HostNetworks
from kilonova.rpc.client import Target
from kilonova.rpcapi.wire import downgrade


class HeartbeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`known` is false when the conductor has no such service; the agent then reports itself anew."""

    version: str = "1.0"
    known: bool


class ConductorAPI(Protocol):
    """Any conductor can answer."""

    topic: ClassVar[str] = "conductor"
    version: ClassVar[str] = "1.1"
    quiet: ClassVar[frozenset[str]] = frozenset(
        {"heartbeat", "wake", "report_host", "report_power_states", "guests_of", "networks_of"}
    )

    async def wake(self) -> None:
        """There may be due tasks. Only a hint."""
        ...

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer:
        """`service` (``compute``, ``scheduler`` …) on `host` is alive. `agent_id` is the process's own uuid."""
        ...

    async def report_host(self, report: HostReport, *, agent_id: str) -> None:
        """Record capacity and abilities of a host.

        Raises:
            Conflict: another live agent already owns this host name.
        """
        ...

    async def guests_of(self, host: str) -> list[GuestRecord]:
        """All servers that belong on `host` now."""
        ...

    async def networks_of(self, host: str) -> HostNetworks:
        """All networks and ports that belong on `host` now."""
        ...

    async def report_power_states(self, host: str, observed: list[PowerObservation]) -> None:
        """Guests at rest that the hypervisor of `host` shows otherwise than their records say."""
        ...


class ConductorClient(ConductorAPI):
    """Sends to ``conductor``."""

    def __init__(self, target: Target) -> None:
        self._newest = target
        self._target = target.at("1.0")

    async def wake(self) -> None:
        await self._target.cast("wake")

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer:
        answer: HeartbeatAnswer = await self._target.call(
            "heartbeat", service=service, host=host, agent_id=agent_id, deadline_s=20, returns=HeartbeatAnswer
        )
        return answer

    async def report_host(self, report: HostReport, *, agent_id: str) -> None:
        if await self._newest.takes("1.1"):
            await self._newest.at("1.1").call("report_host", report=report, agent_id=agent_id, deadline_s=60)
        else:
            older = downgrade(report, "1.0")
            await self._target.call("report_host", report=older, agent_id=agent_id, deadline_s=60)

    async def guests_of(self, host: str) -> list[GuestRecord]:
        records: list[GuestRecord] = await self._target.call(
            "guests_of", host=host, deadline_s=60, returns=list[GuestRecord]
        )
        return records

    async def networks_of(self, host: str) -> HostNetworks:
        networks: HostNetworks = await self._target.call("networks_of", host=host, deadline_s=60, returns=HostNetworks)
        return networks

    async def report_power_states(self, host: str, observed: list[PowerObservation]) -> None:
        await self._target.call("report_power_states", host=host, observed=observed, deadline_s=60)
