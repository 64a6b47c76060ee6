"""One simulated run, from an empty cloud to quiet, and what it showed."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import structlog

from kilonova.base.config import Config
from kilonova.base.ids import SeededIds
from kilonova.cloud.networks import NetworkOptions, Networks
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.conductor.invariants import AT_REST, Violation, always, at_rest, networks
from kilonova.model.flavor import Flavor
from kilonova.model.guest import GuestState
from kilonova.model.image import Image, ImageStatus, Visibility
from kilonova.model.states import VMState
from kilonova.sim.broker import SimulatedBroker
from kilonova.sim.clock import BEGIN, SimulatedClock
from kilonova.sim.database import SimulatedDatabase
from kilonova.sim.faults import Faults, chance_from, number_from
from kilonova.sim.hardware import HARDWARE
from kilonova.sim.history import History
from kilonova.sim.loop import Life, SimulatedLoop, SimulationStuck
from kilonova.sim.machines import ApiMachine, ConductorMachine, HostMachine, Machine, SchedulerMachine, World
from kilonova.sim.outcomes import Outcomes
from kilonova.sim.plan import Plan, Result
from kilonova.sim.removals import Removals
from kilonova.sim.reports import Reports
from kilonova.sim.transitions import Watch
from kilonova.sim.workload import IMAGES, Users
from kilonova.store.queries import flavors, images, quotas
from kilonova.store.queries.invariants import (
    Books,
    books,
    done_twice,
    kinds_in_hand,
    named_twice,
    requests_with_tasks,
    subjects_that_failed,
)
from kilonova.store.transactions import Tx

QUIET_WITHIN_S = 3600.0
"""Simulated seconds of peace after which what is not at rest is stuck."""

BROKEN_S = 100.0
"""Simulated seconds after which books that do not agree, at rest in all else, will not agree any more."""

LOOK_S = 10.0
"""Simulated seconds between two looks of the checker at a large cloud, and at any that is coming to rest."""

CALM = 7
"""Looks in a row that must show rest: all periodic work has been done in between."""

SMALL = 12
"""Servers up to which the checker looks after every transaction."""


class _Silent:
    def ring(self, topic: str) -> None:
        """Nobody listens yet."""


class Simulation:
    """One run."""

    def __init__(self, plan: Plan, *, show: Callable[[str], None] | None = None, until_violation: bool = False) -> None:
        """
        Args:
            show: is handed each line of the history.
            until_violation: the run ends with the first rule that is broken.
        """
        self.plan = plan
        self._until_violation = until_violation
        seed, hardware = plan.seed, HARDWARE[plan.hardware]
        self.loop = SimulatedLoop(chance_from(seed, "order"))
        self.faults = Faults(seed, plan.faults, left_out=plan.left_out, load=max(1.0, plan.servers / (4 * SMALL)))
        self.history = History(self.loop, show=show)
        database = SimulatedDatabase(self.loop, self.faults, self.history)
        self.clock = clock = SimulatedClock(self.loop)
        self.world = World(
            seed=seed,
            loop=self.loop,
            faults=self.faults,
            history=self.history,
            broker=SimulatedBroker(self.loop, self.faults),
            database=database,
            hardware=hardware,
            config=Config(overrides=hardware.config),
            policy=CloudPolicy.load(PolicyOptions(), clock=clock),
        )
        self.faults.is_on = True  # clocks are off from the beginning
        self.conductors = [ConductorMachine(self.world, f"conductor-{n}") for n in range(1, plan.conductors + 1)]
        self.schedulers = [SchedulerMachine(self.world, f"scheduler-{n}") for n in range(1, plan.schedulers + 1)]
        self.apis = [ApiMachine(self.world, f"api-{n}") for n in range(1, plan.apis + 1)]
        self.hosts = [HostMachine(self.world, f"host-{n:03d}") for n in range(1, plan.hosts + 1)]
        self.faults.is_on = False
        self.machines: list[Machine] = [*self.conductors, *self.schedulers, *self.apis, *self.hosts]
        self.world.database.doom = self.world.broker.doom = self._doom
        self.world.broker.agents = frozenset(host.name for host in self.hosts)
        self._machine_of = {machine.name: machine for machine in self.machines}
        self.kills = 0
        self.kill_points: Counter[str] = Counter()
        """Kind of task to the kills of who worked on one: a conductor, or the agent of its server's host."""
        self.quiet_after_s = 0.0
        self._watch = Watch()
        hypervisors = {host.name: host.hypervisor for host in self.hosts}
        self._outcomes = Outcomes(database.store, hypervisors)
        self._removals = Removals(self.loop, hypervisors)
        self._reports = Reports(self.loop, database.store)
        for host in self.hosts:
            host.on_compared += [self._removals.note_comparison, self._reports.note_comparison]
        self._violations: dict[tuple[str, str], Violation] = {}
        self.users = Users(
            self.world, self.apis, servers=plan.servers, span_s=plan.span_s, users=max(1, min(100, plan.servers // 4))
        )

    def run(self) -> Result:
        """From the beginning to the end."""
        started = time.perf_counter()
        with _logs_into(self.history):
            try:
                try:
                    self.loop.run_until_complete(self._all())
                except SimulationStuck:
                    if not (self._until_violation and self._violations):
                        raise
                return self._result(time.perf_counter() - started)
            finally:
                self.loop.close()
                self.world.database.close()

    async def _all(self) -> None:
        await self._furnish()
        is_small = self.plan.servers <= SMALL
        self.world.database.after_commit.append(self._see_changes)
        if is_small:
            self.world.database.after_commit.append(self._look_after)
        for machine in self.machines:
            machine.start()
        await self._until(lambda: all(machine.is_up for machine in self.machines), within_s=600)
        self.faults.is_on = True
        self.loop.before_step = self._before_step
        if not is_small:
            self.loop.world.start(self._look_often(), name="look")
        await self.users.work()
        self.faults.is_on = False
        self.history.add("peace")
        await self._come_to_rest()

    async def _until(self, is_so: Callable[[], bool], *, within_s: float) -> None:
        end = self.loop.time() + within_s
        while not is_so() and self.loop.time() < end:
            await self.clock.sleep(1)

    # ---- what goes wrong with machines ----------------------------------------------------------------------

    def _before_step(self, life: Life) -> None:
        machine = self._machine_of.get(life.machine)
        if machine is None or not self.faults.is_on:
            return
        if self.faults.strikes(f"kill.{machine.role}"):
            self._kill(machine)
        elif self.faults.strikes(f"pauses.{machine.role}"):
            seconds = self.faults.between(1, 5) if self.faults.one_of(2) else self.faults.between(5, 90)
            self.history.add("paused", life.name, "for", round(seconds, 3))
            self.loop.pause(life, seconds)
        elif isinstance(machine, HostMachine):
            self._trouble_host(machine)

    def _doom(self, life: Life, seconds: float) -> None:
        """Kill this life in so many seconds."""
        machine = self._machine_of.get(life.machine)
        if machine is not None:
            self.loop.later(seconds, lambda: None if life.is_over else self._kill(machine))

    def _kill(self, machine: Machine) -> None:
        self._end(machine)
        self._come_back(machine, self.faults.between(0.5, 20))

    def _end(self, machine: Machine) -> None:
        self.kills += 1
        self.kill_points.update(self._in_hand(machine) or ("nothing",))
        machine.kill()

    def _in_hand(self, machine: Machine) -> Collection[str]:
        run_now = self.world.database.store.run_now
        if isinstance(machine, ConductorMachine):
            return run_now(kinds_in_hand, worker=machine.engine.owner) if machine.engine else ()
        if isinstance(machine, HostMachine):
            return run_now(kinds_in_hand, host=machine.name)
        return ()

    def _trouble_host(self, host: HostMachine) -> None:
        faults = self.faults
        if faults.strikes("hosts.lose_power"):
            self._end(host)
            host.hypervisor.lose_power()
            self.history.add("lost power", host.name)
            self._come_back(host, faults.between(20, 200))
        elif faults.strikes("hosts.die") and 3 * sum(other.is_dead for other in self.hosts) < len(self.hosts):
            self._end(host)
            host.is_dead = True
            self.history.add("died for good", host.name)
        elif faults.strikes("hosts.lose_guest"):
            there = sorted(host.hypervisor.shown())
            if there:
                lost = there[faults.one_of(len(there))]
                host.hypervisor.lose(lost)
                self.history.add("guest is gone", lost, "on", host.name)

    def _come_back(self, machine: Machine, seconds: float) -> None:
        self.loop.later(seconds, machine.start_again)

    # ---- looking --------------------------------------------------------------------------------------------

    def _see_changes(self, _: str) -> None:
        database = self.world.database
        if database.noted:
            self._report(self._outcomes.see(database.noted, self._watch.states))
            self._report(self._removals.see(database.noted))
            self._reports.see(database.noted)
        if database.changes:
            self._report(self._watch.see(database.changes))

    def _look_after(self, transaction: str) -> None:
        if transaction not in _CHANGES_NOTHING:
            self._look()

    async def _look_often(self) -> None:
        while True:
            await self.clock.sleep(LOOK_S)
            self._look()

    def _look(self) -> None:
        books = self._books()
        self._report([*always(books), *self._watch.look_at_leases(books), *self._removals.look(books)])

    def _books(self) -> Books:
        return self.world.database.store.run_now(books)

    def _report(self, found: Sequence[Violation]) -> None:
        for violation in found:
            if (violation.rule, violation.what) not in self._violations:
                self.history.add("VIOLATION", violation)
                self._violations[violation.rule, violation.what] = violation
        if found and self._until_violation:
            self.loop.stop()

    async def _come_to_rest(self) -> None:
        """Wait until nothing moves and all agrees; what does not agree after a long time is a violation."""
        begin = self.loop.time()
        # What is on its way yet (late messages and transactions, what hypervisors go on with) must do no harm either.
        arrives = max(self.loop.world_is_busy_until(), self.world.broker.cut_off_until())
        calm = broken = 0
        since = 0.0
        found: list[Violation] = []
        while calm < CALM and broken * LOOK_S < BROKEN_S and self.loop.time() < begin + QUIET_WITHIN_S:
            await self.clock.sleep(LOOK_S)
            found = self._not_at_rest()
            if found:
                self.quiet_after_s = self.loop.time() - begin
            calm = 0 if found or self.loop.time() < arrives else calm + 1
            since = self.loop.time() if calm <= 1 else since
            broken = broken + 1 if found and {*found} <= {*always(self._books())} else 0
        self._report([*found, *(() if found else self._reports.look(self._guests(), since=since))])
        self.history.add("quiet after", round(self.quiet_after_s, 1))

    def _not_at_rest(self) -> list[Violation]:
        books = self._books()
        gone = {host.name for host in self.hosts if host.is_dead}
        living = [host for host in self.hosts if not host.is_dead]
        guests = self._guests()
        down = [machine.name for machine in self.machines if not (machine.is_up or machine.is_dead)]
        carried = {host.name: {port.nic.port_id for port in host.networks.carried().ports} for host in living}
        found = [*always(books), *at_rest(books, guests, gone=gone), *networks(books, carried), *self._promises(books)]
        found += [Violation("stuck", "every service comes back", name, "it is not up") for name in down]
        return found

    def _guests(self) -> dict[str, dict[str, GuestState]]:
        """Of hosts that are not gone for good."""
        return {host.name: host.hypervisor.shown() for host in self.hosts if not host.is_dead}

    def _promises(self, books: Books) -> list[Violation]:
        """What users were promised and what did not come true."""
        accepted = self.users.accepted
        found = [
            Violation("lost", "what was created is there", server_id, f"{request_id} was accepted")
            for server_id, request_id in accepted.created.items()
            if server_id not in books.servers and server_id not in books.deleted
        ]
        found += [
            Violation("stuck", "what was deleted is gone", server_id, f"{request_id} was accepted")
            for server_id, request_id in accepted.deleted.items()
            if server_id in books.servers
        ]
        found += [
            Violation("lost", "nobody's server goes unasked", server_id, "it is deleted")
            for server_id in sorted(books.deleted - accepted.to_go)
        ]
        taken_up = self.world.database.store.run_now(requests_with_tasks)
        found += [
            Violation("lost", "what was accepted is done, or says why not", request_id, f"{what}: there was no task")
            for request_id, what in accepted.ordered.items()
            if request_id not in taken_up
        ]
        found += [
            Violation("odd", "a server has the disk of its image", server.id, f"of {image_id}, not {server.image_id}")
            for server in books.servers.values()
            if server.vm_state in AT_REST and server.id not in books.faults
            for host in self.hosts
            if host.name == server.host and not host.is_dead
            if (image_id := host.hypervisor.image_of(server.id)) not in (None, server.image_id)
        ]
        run_now = self.world.database.store.run_now
        known = run_now(subjects_that_failed).union(*(host.hypervisor.troubled for host in self.hosts))
        found += [
            Violation("odd", "nothing changes by itself", server_id, text)
            for server_id, text in self._watch.by_itself.items()
            if server_id not in known
        ]
        found += [
            Violation("odd", "no order is carried out after a newer one", server_id, text)
            for host in self.hosts
            for server_id, text in sorted(host.hypervisor.overtaken.items())
        ]
        found += [
            Violation("odd", "no service meets an error that it does not know", event, text)
            for event, text in self.history.unforeseen.items()
        ]
        found += [
            Violation("doubled", "each step is done once", task_id, step) for task_id, step in run_now(done_twice)
        ]
        found += [
            Violation("doubled", "one key makes one server", name, f"there are {many}")
            for name, many in run_now(named_twice, "once-").items()
        ]
        return found

    def _result(self, wall_s: float) -> Result:
        books, plan = self._books(), self.plan
        found = list(self._violations.values())
        states = Counter(server.vm_state for server in books.servers.values())
        harms = Counter(violation.harm for violation in found)
        texts = [str(violation) for violation in found] + [f"odd: asyncio: {text}" for text in self.loop.complaints]
        return Result(
            seed=plan.seed,
            hosts=plan.hosts,
            servers=plan.servers,
            faults=list(plan.faults),
            events=self.history.events,
            steps=self.loop.steps,
            simulated_s=round(self.loop.time(), 3),
            quiet_after_s=round(self.quiet_after_s, 3),
            faults_drawn=self.faults.number,
            kills=self.kills,
            kill_points=dict(sorted(self.kill_points.items())),
            messages_lost=self.world.broker.lost,
            struck=dict(sorted(self.faults.struck.items())),
            requests=len(self.users.accepted.requests),
            servers_created=len(books.servers) + len(books.deleted),
            servers_active=states[VMState.ACTIVE],
            servers_deleted=len(books.deleted),
            servers_error=states[VMState.ERROR],
            stuck=harms["stuck"],
            leaked=harms["leaked"],
            doubled=harms["doubled"],
            violations=texts,
            history_hash=self.history.hash,
            wall_s=round(wall_s, 3),
        )

    async def _furnish(self) -> None:
        store = self.world.database.store
        parts = Parts(
            store, self.world.policy, self.clock, SeededIds(number_from(self.plan.seed, "furniture")), _Silent()
        )
        await store.run(_furnish, self.world.hardware.flavors)
        await Networks(parts, NetworkOptions(flat_cidr="10.20.0.0/16")).ensure_default("admin", [])


_CHANGES_NOTHING = frozenset({"_write_heard", "Liveness._register", "renew", "_mark_silent"})
"""Transactions that the checker need not look behind: they touch nothing that it reads."""


def _furnish(tx: Tx, offered: Sequence[Flavor]) -> None:
    quotas.set_limits(tx, "", {"instances": 100_000, "cores": 1_000_000, "ram": 10**9, "port": 100_000})
    for flavor in offered:
        flavors.insert(tx, msgspec.structs.replace(flavor, created_at=BEGIN))
    for image_id in IMAGES:
        images.insert(
            tx,
            Image(
                id=image_id,
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
