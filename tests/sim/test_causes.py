"""What a failure says, compared with what was made to fail: step, host and cause, each time and to the letter."""

import re
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.model.errors import CloudError, GuestRejected, HypervisorUnavailable, ImageUnusable, NetworkFailed
from kilonova.sim.hypervisor import SimulatedHypervisor
from kilonova.sim.networks import SimulatedNetworks
from kilonova.sim.plan import Plan
from kilonova.sim.simulation import Simulation
from kilonova.store.tables.servers import server_actions, server_faults
from kilonova.store.tables.tasks import tasks
from kilonova.store.transactions import Tx

CAUSE = re.compile(r"cause \d+")


class Defect:
    """One operation that fails on every host, each time for a cause of its own."""

    def __init__(self, operation: str, error: type[CloudError]) -> None:
        self._operation = operation
        self._error = error
        self.hosts: dict[str, str] = {}
        """Each cause's host."""

    def meet(self, operation: str, host: str) -> None:
        if operation == self._operation:
            cause = f"cause {len(self.hosts)}"
            self.hosts[cause] = host
            raise self._error(f"{operation} met {cause}.")


def _told(tx: Tx) -> tuple[list[tuple[str, str]], list[str]]:
    """Of all that failed: kinds with what their actions say; and the details of faults."""
    query = (
        sa.select(tasks.c.kind, server_actions.c.message)
        .join(tasks, tasks.c.id == server_actions.c.task_id)
        .where(tasks.c.outcome == "failed")
    )
    actions = [(row.kind, row.message) for row in tx.execute(query)]
    return actions, list(tx.execute(sa.select(server_faults.c.details)).scalars())


@pytest.mark.parametrize(
    ("operation", "error", "kind"),
    [
        ("spawn", GuestRejected, "server.boot"),
        ("spawn", HypervisorUnavailable, "server.boot"),
        ("spawn", ImageUnusable, "server.boot"),
        ("plug", NetworkFailed, "server.boot"),
        ("power_off", HypervisorUnavailable, "server.stop"),
        ("power_on", HypervisorUnavailable, "server.start"),
        ("reboot", HypervisorUnavailable, "server.reboot"),
    ],
)
def test_what_a_failure_says_is_what_was_made_to_fail(
    monkeypatch: pytest.MonkeyPatch, operation: str, error: type[CloudError], kind: str
) -> None:
    defect = Defect(operation, error)
    guests_meet = SimulatedHypervisor._meet

    async def meet(self: SimulatedHypervisor, operation: str, *args: Any) -> None:
        defect.meet(operation, self._host)
        await guests_meet(self, operation, *args)

    async def networks_meet(self: SimulatedNetworks, operation: str) -> None:
        defect.meet(operation, host_of[id(self)])

    monkeypatch.setattr(SimulatedHypervisor, "_meet", meet)
    monkeypatch.setattr(SimulatedNetworks, "_meet", networks_meet)
    simulation = Simulation(Plan(seed=1, hosts=4, servers=12, faults=()))
    host_of = {id(host.networks): host.name for host in simulation.hosts}
    found: list[Any] = []
    database = simulation.world.database
    close = database.close
    monkeypatch.setattr(database, "close", lambda: (found.extend(database.store.run_now(_told)), close()))
    assert simulation.run().violations == []

    actions, faults = found
    assert {kind for kind, _ in actions} == {kind}, "that failed, and nothing else"
    for _, message in actions:
        [cause] = CAUSE.findall(message)
        assert message == f"{operation}: {operation} met {cause}."
    assert bool(faults) == (kind == "server.boot"), "the others stay as they were"
    for details in faults:
        [cause] = CAUSE.findall(details)
        host = defect.hosts[cause]
        assert re.fullmatch(
            rf"step {operation} on host {host}, attempt \d: {re.escape(error.code)}: {operation} met {cause}\.", details
        )
