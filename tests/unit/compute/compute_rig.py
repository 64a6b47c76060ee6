"""One host's agent on the fake driver, and a conductor that is a list of records."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.compute.agent import ComputeAgent
from kilonova.compute.endpoint import ComputeEndpoint
from kilonova.compute.options import ComputeOptions
from kilonova.compute.tracker import Tracker
from kilonova.model.epochs import Epochs
from kilonova.model.guest import GuestRecord, GuestSpec, PowerObservation
from kilonova.model.host import HostReport
from kilonova.model.states import PowerState
from kilonova.rpcapi.conductor import ConductorAPI, HeartbeatAnswer
from kilonova.virt.fake.driver import FakeDriver
from kilonova.virt.fake.options import FakeOptions

HOST = "h1"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def guest(server_id: str, *, memory_mib: int = 512, vcpus: int = 1) -> GuestSpec:
    return GuestSpec(
        server_id=server_id,
        name=f"instance-{server_id}",
        project_id="p",
        hostname=server_id,
        vcpus=vcpus,
        memory_mib=memory_mib,
        root_gib=1,
    )


def record(server_id: str, *, epoch: int = 1, task_state: str | None = None) -> GuestRecord:
    return GuestRecord(
        server_id=server_id,
        epoch=epoch,
        as_of=WHEN,
        vm_state="active",
        task_state=task_state,
        power_state=PowerState.RUNNING,
        vcpus=1,
        memory_mib=512,
        root_gib=1,
    )


class Conductor(ConductorAPI):
    """Answers from `records`; raises `away` where that is set."""

    def __init__(self) -> None:
        self.records: list[GuestRecord] = []
        self.away: Exception | None = None
        self.known = True
        self.beats = 0
        self.reports: list[HostReport] = []
        self.observed: list[PowerObservation] = []

    async def heartbeat(self, service: str, host: str, *, agent_id: str) -> HeartbeatAnswer:
        self.beats += 1
        if self.away:
            raise self.away
        return HeartbeatAnswer(known=self.known)

    async def report_host(self, report: HostReport, *, agent_id: str) -> None:
        if self.away:
            raise self.away
        self.reports.append(report)

    async def guests_of(self, host: str) -> list[GuestRecord]:
        if self.away:
            raise self.away
        return self.records

    async def report_power_states(self, host: str, observed: list[PowerObservation]) -> None:
        self.observed += observed


@dataclass
class Rig:
    """The parts of one host, wired as the launcher does."""

    driver: FakeDriver = field(
        default_factory=lambda: FakeDriver(HOST, FakeOptions(memory_mib=2048), SystemClock(), SystemIds())
    )
    options: ComputeOptions = field(default_factory=lambda: ComputeOptions(reserved_host_memory_mb=0))
    epochs: Epochs = field(default_factory=Epochs)

    def __post_init__(self) -> None:
        self.conductor = Conductor()
        self.tracker = Tracker()
        self.endpoint = ComputeEndpoint(
            HOST, self.driver, self.tracker, self.epochs, builds=self.options.max_concurrent_builds
        )
        self.agent = ComputeAgent(
            HOST, "agent", self.driver, self.conductor, self.tracker, self.epochs, SystemClock(), self.options
        )
