"""Deliberate breakages of the product, each of which the simulator must notice. See docs/reliability.md.

A breakage rewrites one function while a test runs: a piece of its source is replaced, and the function is compiled
again in its module. The product has no switches for this. If a piece is not there any more, the code has moved on,
and the breakage has to follow it.
"""

import __future__

import importlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from kilonova.cloud import server_creation
from kilonova.cloud.servers import Servers
from kilonova.sim.faults import kinds_of
from kilonova.sim.plan import Plan
from kilonova.store.queries import allocations, tasks

WITHIN = 50
"""Seeds within which each must be noticed."""


@dataclass(frozen=True)
class Rewrite:
    """Replace a piece of a function's source, wherever it stands in it."""

    where: str
    """``module:function`` or ``module:Class.method``, below ``kilonova``."""
    old: str
    new: str

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Until the end of the test."""
        module_name, _, path = self.where.partition(":")
        module = importlib.import_module(f"kilonova.{module_name}")
        *outer, name = path.split(".")
        owner: Any = module
        for part in outer:
            owner = getattr(owner, part)
        before = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(before))
        assert self.old in source, f"{self.where} has no {self.old!r} any more: let this breakage follow the code"
        code = compile(
            source.replace(self.old, self.new),
            inspect.getfile(module),
            "exec",
            flags=__future__.annotations.compiler_flag,
        )
        made: dict[str, Any] = {}
        exec(code, module.__dict__, made)  # among the module's own names, so that other patches hold in it
        patch.setattr(owner, name, made[name])
        for other in [module for key, module in sys.modules.items() if key.startswith("kilonova.")]:
            if vars(other).get(name) is before:  # it was imported by name
                patch.setattr(other, name, made[name])


@dataclass(frozen=True)
class Breakage:
    """One way to break a promise."""

    name: str
    what: str
    """For people."""
    changes: tuple[Rewrite, ...] = ()
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    """For what is not a piece of a function."""
    hosts: int = 4
    servers: int = 8
    seed: int = 1
    """One that notices it, tried first."""
    rule: str = ""
    """By which it is noticed."""
    more: dict[str, Any] = field(default_factory=dict)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Break it until the end of the test."""
        for change in self.changes:
            change.apply(patch)
        if self.patch is not None:
            self.patch(patch)

    def plan(self, seed: int) -> Plan:
        """In which it is looked for."""
        return Plan(seed=seed, hosts=self.hosts, servers=self.servers, **self.more)


def _claim_without_looking(patch: pytest.MonkeyPatch) -> None:
    blind = allocations._OF_HOST.values(used=allocations._inv.used + allocations._AMOUNT)
    patch.setattr(allocations, "_TAKE", blind)


def _task_in_a_second_transaction(patch: pytest.MonkeyPatch) -> None:
    later: dict[str, dict[str, Any]] = {}

    def insert(tx: Any, **row: Any) -> None:
        later[row["subject"]] = row

    create = Servers.create

    async def create_in_two(self: Any, ctx: Any, request: Any) -> Any:
        created = await create(self, ctx, request)
        for server in created.servers:
            await self._store.run(tasks.insert, **later.pop(server.id))
        return created

    patch.setattr(server_creation, "tasks", types.SimpleNamespace(insert=insert))
    patch.setattr(Servers, "create", create_in_two)


_SLOW_HOSTS = kinds_of(["driver.slow", "driver.hang", "messages.delay", "users"])
"""Long looks that nobody's death cuts short."""

REFUSED_AT_LAST = Rewrite(
    "compute.endpoint:ComputeEndpoint.spawn",
    "await self._driver.spawn(guest)",
    "await self._driver.spawn(guest)\n"
    "            if guest.server_id < '8':\n"
    "                raise NotSupported('It was made so.')",
)
"""No breakage: what an undo is for. Of many a guest its host says that it cannot be, when it is there already."""

BREAKAGES = (
    Breakage(
        "no guard at commits",
        "A worker that lost its task, to another or to a delete, may still write.",
        (Rewrite("store.queries.tasks:_guarded", "if moved.rowcount == 0:", "if False:"),),
        servers=12,
        rule="states change by the table",
    ),
    Breakage(
        "acknowledged before the work",
        "An agent answers while the guest is still being made.",
        (
            Rewrite(
                "compute.endpoint:ComputeEndpoint.spawn",
                "await self._driver.spawn(guest)",
                "asyncio.ensure_future(self._driver.spawn(guest))",
            ),
        ),
        rule="what is done is so on its host",
    ),
    Breakage(
        "state and task in two transactions (API)",
        "A server is written first, the task that boots it after that.",
        patch=_task_in_a_second_transaction,
        rule="what is not at rest has a live task",
    ),
    Breakage(
        "state and task in two transactions (engine)",
        "What a step changed is written first, that it is done after that, and only that is guarded.",
        (
            Rewrite(
                "tasks.engine:_Worker._do",
                'await self._commit("done", self._done, step, write, started)',
                "more = await self._store.run(write) if write else None\n"
                '        await self._commit("done", self._done, step, lambda tx: more, started)',
            ),
        ),
        rule="what is at rest has no live task",
    ),
    Breakage(
        "the bell alone",
        "No sweep: a task whose bell is lost waits forever.",
        (Rewrite("tasks.engine:Engine._wait_for_bell", "self._options.sweep_interval_s", "1e9"),),
        seed=5,
        rule="every task ends",
    ),
    Breakage(
        "a claim without a look",
        "Room is taken without the condition that there is some.",
        patch=_claim_without_looking,
        hosts=2,
        servers=60,
        seed=2,
        rule="no more is claimed than there is",
    ),
    Breakage(
        "the undo of a claim is skipped",
        "A build that failed keeps its room on the host.",
        (Rewrite("conductor.tasks.boot:_unclaim", "allocations.release(tx, server_id=server_id)", "pass"),),
        seed=10,
        rule="a server without a host holds nothing",
    ),
    Breakage(
        "the undo of a spawn is skipped",
        "A build goes on elsewhere without a word to the host where it failed, which is up.",
        (Rewrite("conductor.tasks.boot:_is_left_to_the_host", "return False", "return True"), REFUSED_AT_LAST),
        rule="what was removed is gone",
    ),
    Breakage(
        "an undo under the epoch of what it undoes",
        "A command that comes again after its undo is obeyed.",
        (Rewrite("tasks.engine:_Worker._turn_back", "tasks.renew_epoch(tx, moved)", "moved.epoch"), REFUSED_AT_LAST),
        servers=12,
        seed=10,
        rule="what leaves a host leaves no guest there",
    ),
    Breakage(
        "a guest comes after its undo",
        "An agent says that it cannot make a guest, and goes on making it.",
        (
            Rewrite(
                "compute.endpoint:ComputeEndpoint.spawn",
                "await self._driver.spawn(guest)",
                "asyncio.get_running_loop().call_later(9, lambda: asyncio.ensure_future(self._driver.spawn(guest)))\n"
                "            raise NotSupported('It was made so.')",
            ),
        ),
        rule="no guest runs on two hosts",
    ),
    Breakage(
        "room is given back in half",
        "The claim goes, what counts as used stays.",
        (Rewrite("store.queries.allocations:_drop", "_give_back(tx, host_id, amounts)", "pass"),),
        rule="used is the sum of the claims",
    ),
    Breakage(
        "guests are made too small",
        "A guest has half of the memory that its server has paid for.",
        (Rewrite("conductor.guests:guest_spec", "memory_mib=flavor.memory_mib", "memory_mib=flavor.memory_mib // 2"),),
        rule="a guest is as large as its flavor",
    ),
    Breakage(
        "hosts report what they were",
        "What a host says of its guests is what it said first.",
        (
            Rewrite(
                "compute.agent:ComputeAgent.report",
                "await self._driver.report()",
                "vars(self).get('first') or vars(self).setdefault('first', await self._driver.report())",
            ),
        ),
        seed=3,
        rule="a host reports what its guests take",
    ),
    Breakage(
        "quota is not given back",
        "Deleted servers still count.",
        (
            Rewrite(
                "conductor.tasks.delete:_erase",
                "quotas.give_back(tx, server.project_id, server.flavor.quota())",
                "pass",
            ),
        ),
        rule="quota in use is what there is",
    ),
    Breakage(
        "ports are not given back",
        "Deleted servers keep their ports and addresses.",
        (Rewrite("conductor.tasks.delete:_erase", "ports.release_for_server(tx, server_id)", "pass"),),
        rule="a port of a server has one",
    ),
    Breakage(
        "a delete does not end the task before it",
        "Two tasks work on one server.",
        (Rewrite("store.queries.tasks:_take_over", "_end(tx, current, outcome=SUPERSEDED, at=at)", "pass"),),
        rule="at most one live task",
    ),
    Breakage(
        "agents do not clean up",
        "Guests that belong nowhere are never removed.",
        (Rewrite("compute.reconcile:reconcile", "if server_id not in records and await", "if False and await"),),
        seed=16,
        rule="what leaves a host leaves no guest there",
    ),
    Breakage(
        "agents look in the wrong order",
        "Guests are listed after the records were read: a new one seems to belong nowhere.",
        (
            Rewrite(
                "compute.reconcile:reconcile",
                "    before = {server_id: epochs.seen(server_id) for server_id in await driver.list_guests()}\n"
                "    records = {record.server_id: record for record in await conductor.guests_of(host)}\n",
                "    records = {record.server_id: record for record in await conductor.guests_of(host)}\n"
                "    before = {server_id: epochs.seen(server_id) for server_id in await driver.list_guests()}\n",
            ),
        ),
        hosts=2,
        servers=16,  # too many for a look after each transaction
        more={"faults": _SLOW_HOSTS},
        seed=4,
        rule="nothing changes by itself",
    ),
    Breakage(
        "the key of a request is not taken",
        "A creation that is repeated under one Idempotency-Key is done twice.",
        (Rewrite("cloud.answers:once", "if record is None:", "if True:"),),
        seed=18,
        rule="one key makes one server",
    ),
    Breakage(
        "an order is forgotten",
        "The API accepts what is asked of a server, and does nothing.",
        (Rewrite("cloud.server_actions:begin", "    rule = order.rule\n", "    return\n    rule = order.rule\n"),),
        rule="what was deleted is gone",
    ),
    Breakage(
        "an order is not carried out",
        "An agent says that it restarted a guest, and did not.",
        (
            Rewrite(
                "compute.endpoint:ComputeEndpoint.reboot",
                "await self._driver.reboot(server_id, hard=hard, grace_s=grace_s)",
                "pass",
            ),
        ),
        rule="what was accepted is done, or says why not",
    ),
    Breakage(
        "a stop says ACTIVE",
        "What a task writes at its end is not what was ordered.",
        (
            Rewrite(
                "conductor.tasks.power:_settle",
                "vm_state=vm_state, power_state=power_state)",
                "vm_state=VMState.ACTIVE, power_state=PowerState.RUNNING)",
            ),
        ),
        seed=2,
        rule="what is done is as it was ordered",
    ),
    Breakage(
        "a rebuild keeps the image of before",
        "The disk is made anew, of the image that the server had.",
        (Rewrite("cloud.server_rebuild:rebuild", "image_id=image.id, progress=0", "progress=0"),),
        seed=2,
        rule="what is done is as it was ordered",
    ),
    Breakage(
        "an order that failed leaves STOPPED",
        "What could not be done, a stop among others, is written as if it had been.",
        (
            Rewrite(
                "conductor.tasks.power:_leave_as_it_was",
                "servers.become(tx, run.subject, at=at)",
                "servers.become(tx, run.subject, at=at, vm_state=VMState.STOPPED)",
            ),
        ),
        seed=5,
        rule="what fails leaves a server as it was, or in error",
    ),
    Breakage(
        "a failure that says nothing",
        "An order comes to nothing, and its action does not say why.",
        (
            Rewrite(
                "conductor.tasks.power:_leave_as_it_was",
                'servers.fail_action(tx, task_id=run.task_id, message=f"{failure.step}: {failure.message}", at=at)',
                "pass",
            ),
        ),
        seed=5,
        rule="what was accepted is done, or says why not",
    ),
    Breakage(
        "every second restart is left out",
        "An agent restarts a guest once, and says so of each later order.",
        (
            Rewrite(
                "compute.endpoint:ComputeEndpoint.reboot",
                "await self._driver.reboot(server_id, hard=hard, grace_s=grace_s)",
                'done = vars(self).setdefault("done", set())\n'
                "        if server_id not in done:\n"
                "            await self._driver.reboot(server_id, hard=hard, grace_s=grace_s)\n"
                "        done.add(server_id)",
            ),
        ),
        seed=7,
        rule="what was accepted is done, or says why not",
    ),
    Breakage(
        "no guard at the agent",
        "An agent obeys commands that are older than one it has seen.",
        (Rewrite("model.epochs:Epochs.enter", "if epoch < seat.epoch:", "if False:"),),
        servers=12,
        seed=3,
        rule="no order is carried out after a newer one",
    ),
    Breakage(
        "agents forget epochs",
        "What an agent has seen is lost when it is started again.",
        (Rewrite("model.epochs:Epochs.__init__", "(known or {}).items()", "()"),),
        servers=12,
        seed=14,
        rule="no order is carried out after a newer one",
    ),
    Breakage(
        "no new epoch with a lease",
        "Who takes over a task cannot be told from who had it.",
        (Rewrite("store.queries.tasks:lease_due", 'tx.execute(_BUMP_EPOCH, {"who": subject})', "pass"),),
        servers=12,
        rule="each holder of a task has an epoch of its own",
    ),
    Breakage(
        "hosts do not ask what they shall carry",
        "A network agent knows what commands told it, and nothing else.",
        (
            Rewrite(
                "network.agent:NetworkAgent.refresh",
                "report = await self.driver.reconcile(wanted, leave=self._touched)",
                "return",
            ),
        ),
        seed=3,
        rule="a host carries the ports that are bound to it",
    ),
    Breakage(
        "devices are not given back",
        "Deleted servers keep their CPUs, huge pages and PCI devices.",
        (Rewrite("store.queries.devices:release", "if row is None or _write(", "if True or _write("),),
        more={"hardware": "fine"},
        rule="what a host gave out is what claims hold",
    ),
    Breakage(
        "a task goes back",
        "A worker that lost the answer of a commit writes the place before it again.",
        (
            Rewrite("tasks.engine:_Worker._what_is_written", "    found = await", "    return None\n    found = await"),
            Rewrite(
                "store.queries.tasks:_guarded_update",
                '*(_t[name] == sa.bindparam(f"from_{name}", type_=_t[name].type) for name in _PLACE),',
                "",
            ),
        ),
        servers=12,
        seed=2,
        rule="each step is done once",
    ),
    Breakage(
        "a transaction keeps notes outside of it",
        "What was done in a transaction that was rolled back is not done again when that is run again.",
        (
            Rewrite(
                "conductor.tasks.delete:_erase",
                "    quotas.give_back(",
                '    notes = _server_and_host.__dict__.setdefault("notes", set())\n'
                "    is_new = task_id not in notes\n"
                "    notes.add(task_id)\n"
                "    if is_new:\n        quotas.give_back(",
            ),
        ),
        servers=12,
        seed=9,
        rule="quota in use is what there is",
    ),
)
