"""The simulated processes: each is built by the same code as a real one, on the simulated broker, database and clock.

A `Machine` is a name with a clock that is a little off. It runs one `Life` after the other: when one is killed,
or cannot start, the next begins some time later, as a supervisor would have it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kilonova.base.config import Config
from kilonova.base.ids import SeededIds
from kilonova.base.log import bind, set_service
from kilonova.cloud.answers import Answers
from kilonova.cloud.parts import Authority, Parts
from kilonova.cloud.security_groups import SecurityGroups
from kilonova.cloud.server_groups import ServerGroups
from kilonova.cloud.servers import Servers
from kilonova.compute.agent import ComputeAgent
from kilonova.compute.endpoint import ComputeEndpoint
from kilonova.compute.options import ComputeOptions
from kilonova.compute.tracker import Tracker
from kilonova.conductor.hands import Hands
from kilonova.launch.agents import HostAgents
from kilonova.launch.control import start_conductor, start_scheduler
from kilonova.launch.heartbeats import start_heartbeats
from kilonova.launch.process import Process
from kilonova.launch.state import StateDir
from kilonova.model.epochs import Epochs
from kilonova.model.errors import CloudError
from kilonova.network.agent import NetworkAgent
from kilonova.network.options import NetworkAgentOptions
from kilonova.rpc.server import RpcServer
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.rpcapi.network import NetworkAPI
from kilonova.sim.broker import SimulatedBroker
from kilonova.sim.clock import SimulatedClock
from kilonova.sim.commands import Watched
from kilonova.sim.database import SimulatedDatabase
from kilonova.sim.faults import Faults, number_from
from kilonova.sim.hardware import Hardware
from kilonova.sim.history import History
from kilonova.sim.hypervisor import SimulatedHypervisor
from kilonova.sim.loop import Life, SimulatedLoop
from kilonova.sim.networks import SimulatedNetworks
from kilonova.sim.outages import HostOutages
from kilonova.tasks.engine import Engine

API_URL = "http://api.simulated"


class _NoDirectory(StateDir):
    """A state directory that is none: secrets are known, nothing is written."""

    def secret(self, name: str, make: Callable[[], str] | None = None) -> str:
        return f"simulated secret {name}"


@dataclass
class World:
    """What all machines of a run share."""

    seed: int
    loop: SimulatedLoop
    faults: Faults
    history: History
    broker: SimulatedBroker
    database: SimulatedDatabase
    hardware: Hardware
    config: Config
    policy: Authority
    state: StateDir = field(default_factory=lambda: _NoDirectory(Path("/nowhere")))


class Machine:
    """One simulated process by name, over all its lives."""

    role = ""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life: Life | None = None
        self.lives = 0
        self.is_up = False
        """Its present life has finished starting."""
        self.is_dead = False
        """It does not come back."""
        self.skew_s = world.faults.between(-5, 5) if world.faults.strikes("clocks.skew") else 0.0
        if self.skew_s and world.faults.one_of(4) == 0:
            self.skew_s *= 5

    def start(self) -> None:
        """Begin a new life."""
        world = self.world
        self.lives += 1
        self.is_up = False
        self.life = life = world.loop.begin(f"{self.name}#{self.lives}")
        world.history.add("begins", life.name)
        task = life.start(self._live(life))
        task.add_done_callback(lambda done: self._started(life, done), context=world.loop.world.context)

    def kill(self) -> None:
        """End the present life, wherever it is."""
        if self.life is not None and not self.life.is_over:
            self.world.history.add("killed", self.life.name, "after", self.life.steps)
            self.is_up = False
            self.world.loop.kill(self.life)

    def _started(self, life: Life, done: "asyncio.Task[None]") -> None:
        if life.is_over or done.cancelled():
            return
        error = done.exception()
        if error is None:
            self.is_up = True
            self.world.history.add("is up", life.name)
            return
        self.world.history.add("could not start", life.name, type(error).__name__, error)
        if not isinstance(error, CloudError):
            raise error
        self.kill()
        self.world.loop.later(2.0, self.start_again)

    def start_again(self) -> None:
        """Begin a new life, unless there is one or the machine is gone for good."""
        if not self.is_dead and (self.life is None or self.life.is_over):
            self.start()

    def ids(self) -> SeededIds:
        """Chance for one life."""
        return SeededIds(number_from(self.world.seed, self.name, self.lives))

    def process(self, life: Life) -> Process:
        """A process of this life."""
        world = self.world
        return Process(
            world.state,
            world.config,
            world.broker.connect(life),
            name=self.name,
            host=self.name,
            clock=SimulatedClock(world.loop, skew_s=self.skew_s),
            ids=self.ids(),
        )

    async def _live(self, life: Life) -> None:
        set_service(self.role, host=self.name)
        process = self.process(life)
        await process.open()
        await self._run(life, process)
        beating = [self.role] if self.role != "compute" else ["network"]
        start_heartbeats(process, beating, every_s=process.config.get(ComputeOptions).report_interval)

    async def _run(self, life: Life, process: Process) -> None:
        raise NotImplementedError


class ConductorMachine(Machine):
    """Runs tasks."""

    role = "conductor"
    engine: Engine[Hands] | None = None
    """Of its present life, or of the last one that finished starting."""

    async def _run(self, life: Life, process: Process) -> None:
        store = self.world.database.connect(life)
        self.engine = await start_conductor(process, store, api_url=API_URL, alone=False)


class SchedulerMachine(Machine):
    """Chooses hosts."""

    role = "scheduler"

    async def _run(self, life: Life, process: Process) -> None:
        await start_scheduler(process, self.world.database.connect(life))


class ApiMachine(Machine):
    """Has the use cases; the simulated users call them as the HTTP routes do."""

    role = "api"
    servers: Servers
    server_groups: ServerGroups
    security_groups: SecurityGroups
    answers: Answers

    async def _run(self, life: Life, process: Process) -> None:
        store = self.world.database.connect(life)
        parts = Parts(store, self.world.policy, process.clock, process.ids, process.calls.bell)
        self.servers = Servers(parts, process.calls.compute)
        self.server_groups = ServerGroups(parts)
        self.security_groups = SecurityGroups(parts)
        self.answers = Answers(store, process.clock)


class _WatchedAgent(ComputeAgent):
    """Tells when it has compared."""

    on_compared: Sequence[Callable[[str], None]] = ()

    async def reconcile(self) -> None:
        await super().reconcile()
        for tell in self.on_compared:
            tell(self.host)


class HostMachine(Machine):
    """One host: its hypervisor with its guests, its networks, its file of epochs, and its agents, which come and go."""

    role = "compute"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        outages = HostOutages(name, world.loop, world.faults, world.history)
        self.hypervisor = SimulatedHypervisor(
            name, world.hardware.host, world.loop, world.faults, outages, seed=world.seed
        )
        self.networks = SimulatedNetworks(world.faults, outages)
        self.on_compared: list[Callable[[str], None]] = []
        """Each is told the host's name when its agent has compared guests with records."""
        self._epochs: dict[str, int] = {}
        self._agent_id = SeededIds(number_from(world.seed, "agent", name)).uuid()

    async def _run(self, life: Life, process: Process) -> None:
        conductor, options = process.calls.conductor, process.config.get(ComputeOptions)
        epochs, tracker = Epochs(known=self._epochs, record=self._record), Tracker()
        agent = _WatchedAgent(
            self.name, self._agent_id, self.hypervisor, conductor, tracker, epochs, process.clock, options
        )
        endpoint = ComputeEndpoint(self.name, self.hypervisor, tracker, epochs, builds=options.max_concurrent_builds)
        network = NetworkAgent(
            self.name, Path("/nowhere"), conductor, process.config.get(NetworkAgentOptions), process.clock,
            process.readiness.registry, table="simulated", api_url=API_URL, secret="", driver=self.networks,
        )  # fmt: skip
        ends: list[tuple[type, object]] = [(ComputeAPI, Watched(endpoint)), (NetworkAPI, network)]
        servers = [
            RpcServer(process.transport, protocol=protocol, endpoint=end, host=self.name, clock=process.clock)
            for protocol, end in ends
        ]
        agent.on_compared = self.on_compared
        agents = HostAgents(self.name, agent, network, servers)
        while True:
            try:
                with bind(service="compute", host=self.name):
                    return await agents.start()
            except CloudError as error:
                self.world.history.add("host cannot start yet:", error.message)
                await process.clock.sleep(5)

    def _record(self, server_id: str, epoch: int) -> None:
        self._epochs[server_id] = max(epoch, self._epochs.pop(server_id, 0))
