"""One simulated run, from an empty cloud to quiet, and what it showed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from kilonova.base.config import Config
from kilonova.base.ids import SeededIds
from kilonova.cloud.networks import NetworkOptions, Networks
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.model.flavor import Flavor
from kilonova.model.image import Image, ImageStatus, Visibility
from kilonova.sim.broker import SimulatedBroker
from kilonova.sim.clock import BEGIN, SimulatedClock
from kilonova.sim.database import SimulatedDatabase
from kilonova.sim.faults import GROUPS, Faults, chance_from, number_from
from kilonova.sim.history import History
from kilonova.sim.loop import SimulatedLoop
from kilonova.sim.machines import ApiMachine, ConductorMachine, HostMachine, Machine, SchedulerMachine, World
from kilonova.sim.workload import FLAVORS, IMAGE_ID, Users
from kilonova.store.queries import flavors, images, quotas
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to simulate."""

    seed: int
    hosts: int = 3
    servers: int = 5
    faults: tuple[str, ...] = GROUPS
    """Groups of faults."""
    conductors: int = 2
    schedulers: int = 2
    apis: int = 2
    span_s: float = 120.0
    """Simulated seconds in which users ask and things go wrong; then there is peace, until all is quiet."""
    left_out: tuple[int, ...] = ()
    """Numbers of faults that do not happen."""


QUIET_WITHIN_S = 7200.0
"""Simulated seconds of peace after which what is not at rest is stuck."""


class _Silent:
    def ring(self, topic: str) -> None:
        """Nobody listens yet."""


class Simulation:
    """One run."""

    def __init__(self, plan: Plan, *, show: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        seed = plan.seed
        self.loop = SimulatedLoop(chance_from(seed, "order"))
        self.faults = Faults(seed, plan.faults, left_out=plan.left_out)
        self.history = History(self.loop, show=show)
        database = SimulatedDatabase(self.loop, self.faults, self.history)
        clock = SimulatedClock(self.loop)
        self.world = World(
            seed=seed,
            loop=self.loop,
            faults=self.faults,
            history=self.history,
            broker=SimulatedBroker(self.loop, self.faults),
            database=database,
            config=Config(),
            policy=CloudPolicy.load(PolicyOptions(), clock=clock),
        )
        self.faults.is_on = True  # clocks are off from the beginning
        self.conductors = [ConductorMachine(self.world, f"conductor-{n}") for n in range(1, plan.conductors + 1)]
        self.schedulers = [SchedulerMachine(self.world, f"scheduler-{n}") for n in range(1, plan.schedulers + 1)]
        self.apis = [ApiMachine(self.world, f"api-{n}") for n in range(1, plan.apis + 1)]
        self.hosts = [HostMachine(self.world, f"host-{n:03d}") for n in range(1, plan.hosts + 1)]
        self.faults.is_on = False
        self.machines: list[Machine] = [*self.conductors, *self.schedulers, *self.apis, *self.hosts]
        self.users = Users(
            self.world, self.apis, servers=plan.servers, span_s=plan.span_s, users=max(1, min(20, plan.servers // 4))
        )

    def run(self) -> None:
        """From the beginning to the end."""
        with _logs_into(self.history):
            try:
                self.loop.run_until_complete(self._all())
            finally:
                self.loop.close()
                self.world.database.close()

    async def _all(self) -> None:
        await self._furnish()
        for machine in self.machines:
            machine.start()
        clock = SimulatedClock(self.loop)
        while not all(machine.is_up for machine in self.machines):
            await clock.sleep(1)
        await self.users.work()
        await clock.sleep(120)

    async def _furnish(self) -> None:
        store, clock = self.world.database.store, SimulatedClock(self.loop)
        parts = Parts(store, self.world.policy, clock, SeededIds(number_from(self.plan.seed, "furniture")), _Silent())
        await store.run(_furnish)
        await Networks(parts, NetworkOptions(flat_cidr="10.20.0.0/16")).ensure_default("admin", [])


def _furnish(tx: Tx) -> None:
    quotas.set_limits(tx, "", {"instances": 100_000, "cores": 1_000_000, "ram": 10**9, "port": 100_000})
    for name, vcpus, memory_mib, root_gib in FLAVORS:
        flavors.insert(
            tx, Flavor(id=name, name=name, vcpus=vcpus, memory_mib=memory_mib, root_gib=root_gib, created_at=BEGIN)
        )
    images.insert(
        tx,
        Image(
            id=IMAGE_ID,
            name="simulated",
            status=ImageStatus.ACTIVE,
            visibility=Visibility.PUBLIC,
            owner="admin",
            disk_format="raw",
            container_format="bare",
            size=1024**3,
            hash_algo="sha512",
            hash_value="0" * 128,
            created_at=BEGIN,
            updated_at=BEGIN,
        ),
    )


@contextmanager
def _logs_into(history: History) -> Iterator[None]:
    """Lines of services are events of the history while this is entered, and go nowhere else."""
    before = structlog.get_config()
    structlog.configure(processors=[history.take_log], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
