"""What agents may ask and report. The conductor is their only way to data."""

from collections.abc import Sequence
from datetime import datetime

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.conductor.hands import Hands
from kilonova.conductor.liveness import Liveness
from kilonova.model.guest import GuestRecord, PowerObservation
from kilonova.model.host import HostReport
from kilonova.model.network_plans import HostNetworks
from kilonova.model.server import Fault, Server
from kilonova.model.states import PowerState, VMState
from kilonova.rpcapi.conductor import ConductorAPI, HeartbeatAnswer
from kilonova.store.engine import Store
from kilonova.store.queries import hosts, ports, servers, tasks
from kilonova.store.transactions import Tx
from kilonova.tasks.engine import Engine

log = get_logger(__name__)


class ConductorEndpoint(ConductorAPI):
    """The conductor's end of the conversation with agents."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, engine: Engine[Hands], liveness: Liveness) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._engine = engine
        self._liveness = liveness

    async def wake(self) -> None:
        self._engine.wake()

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer:
        await self._liveness.heard(service, host, agent_id=agent_id)
        return HeartbeatAnswer(known=True)

    async def report_host(self, report: HostReport, *, agent_id: str) -> None:
        await self._liveness.heard("compute", report.host, agent_id=agent_id)
        changed = await self._store.run(hosts.record_report, report, uuid=self._ids.uuid(), at=self._clock.now())
        if changed:
            log.info(
                "host reported",
                host=report.host,
                vcpus=report.vcpus,
                memory_mib=report.memory_mib,
                disk_gib=report.disk_gib,
                hypervisor=report.hypervisor_type,
                virtualization=report.virtualization,
            )

    async def guests_of(self, host: str) -> list[GuestRecord]:
        return await self._store.read(_records, host)

    async def networks_of(self, host: str) -> HostNetworks:
        return await self._store.read(ports.networks_of_host, host)

    async def report_power_states(self, host: str, observed: list[PowerObservation]) -> None:
        await self._store.run(_sync_power, host, observed, at=self._clock.now())


def _records(tx: Tx, host: str) -> list[GuestRecord]:
    here = servers.of_host(tx, host)
    epochs = tasks.epochs_of(tx, [server.id for server in here])
    return [
        GuestRecord(
            server_id=server.id,
            epoch=epochs.get(server.id, 0),
            as_of=server.updated_at,
            power_state=server.power_state,
            vm_state=server.vm_state,
            task_state=server.task_state,
            vcpus=server.flavor.vcpus,
            memory_mib=server.flavor.memory_mib,
            root_gib=server.flavor.root_gib,
        )
        for server in here
    ]


_STATE_FOR = {
    PowerState.RUNNING: VMState.ACTIVE,
    PowerState.SHUTDOWN: VMState.STOPPED,
    PowerState.CRASHED: VMState.STOPPED,
}


def _sync_power(tx: Tx, host: str, observed: Sequence[PowerObservation], *, at: datetime) -> None:
    """Write what the hypervisor says of servers at rest; while a task works on one, the task decides.

    What is seen here may not be so any more when it is written (an order was accepted meanwhile): each write has the
    condition again, and what it does not hold for is left to the next report.
    """
    states = {observation.server_id: observation for observation in observed}
    for server in servers.of_host(tx, host):
        seen = states.get(server.id)
        if seen is None or server.task_state is not None or server.updated_at != seen.as_of:
            continue
        if server.vm_state not in (VMState.ACTIVE, VMState.STOPPED):
            servers.follow_guest(tx, server.id, as_of=seen.as_of, power_state=seen.power_state, at=at)
        elif seen.power_state is PowerState.NOSTATE:
            _lost(tx, server, at=at)
        else:
            vm_state = _STATE_FOR.get(seen.power_state, server.vm_state)
            if servers.follow_guest(
                tx, server.id, as_of=seen.as_of, power_state=seen.power_state, vm_state=vm_state, at=at
            ):
                log.info("power state found", server=server.id, power_state=seen.power_state.name, vm_state=vm_state)


def _lost(tx: Tx, server: Server, *, at: datetime) -> None:
    if not servers.follow_guest(
        tx, server.id, as_of=server.updated_at, power_state=PowerState.NOSTATE, vm_state=VMState.ERROR, at=at
    ):
        return
    servers.add_fault(
        tx,
        server.id,
        Fault(
            code=500,
            message="The guest is gone from its host. Delete the server, or have an administrator look at the host.",
            details=f"step report on host {server.host}: the hypervisor no longer has the guest",
            created_at=at,
        ),
    )
    log.warning("guest is gone from its host", server=server.id, host=server.host)
