"""What an agent says of guests is believed for servers at rest, and only if nothing changed since it looked."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.conductor.endpoint import ConductorEndpoint
from kilonova.model.flavor import Flavor
from kilonova.model.guest import PowerObservation
from kilonova.model.server import Server, ServerOrder
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.store.engine import Store
from kilonova.store.queries import servers

NOW = SystemClock().now()


class Reports:
    """One server on host h1, and what h1 and others say of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        unused: Any = None
        self.endpoint = ConductorEndpoint(store, SystemClock(), SystemIds(), unused, unused)

    async def begin(self, vm_state: VMState, task_state: TaskState | None) -> None:
        flavor = Flavor(id="1", name="m1", vcpus=1, memory_mib=128, root_gib=1)
        row = {
            "id": "s", "project_id": "p", "user_id": "u", "name": "n", "hostname": "n", "vm_state": vm_state,
            "flavor": flavor, "metadata": {}, "tags": [], "order": ServerOrder(), "created_at": NOW,
            "updated_at": NOW, "key_name": None, "task_state": task_state, "host": "h1",
            "power_state": PowerState.RUNNING,
        }  # fmt: skip
        await self.store.run(servers.insert, [row])

    async def say(self, power_state: PowerState, *, host: str = "h1", as_of: datetime | None = None) -> Server:
        """What the server is after a report."""
        as_of = as_of or (await self.store.read(servers.get, "s")).updated_at
        seen = PowerObservation(server_id="s", as_of=as_of, power_state=power_state)
        await self.endpoint.report_power_states(host, [seen])
        return await self.store.read(servers.get, "s")


@pytest.fixture
def reports(store: Store) -> Reports:
    return Reports(store)


async def test_a_server_at_rest_becomes_what_its_guest_is(reports: Reports) -> None:
    await reports.begin(VMState.ACTIVE, None)
    server = await reports.say(PowerState.SHUTDOWN)
    assert (server.vm_state, server.power_state) == (VMState.STOPPED, PowerState.SHUTDOWN)
    server = await reports.say(PowerState.RUNNING)
    assert (server.vm_state, server.power_state) == (VMState.ACTIVE, PowerState.RUNNING)


async def test_a_server_whose_guest_is_gone_says_so(reports: Reports) -> None:
    await reports.begin(VMState.ACTIVE, None)
    server = await reports.say(PowerState.NOSTATE)
    assert server.vm_state is VMState.ERROR
    assert "gone from its host" in (await reports.store.read(servers.faults, ["s"]))["s"].message


async def test_a_report_from_before_a_change_is_not_believed(reports: Reports) -> None:
    await reports.begin(VMState.ACTIVE, None)
    server = await reports.say(PowerState.SHUTDOWN, as_of=NOW - timedelta(seconds=1))
    assert (server.vm_state, server.power_state) == (VMState.ACTIVE, PowerState.RUNNING)


async def test_while_a_task_works_on_it_the_task_decides(reports: Reports) -> None:
    await reports.begin(VMState.ACTIVE, TaskState.POWERING_OFF)
    server = await reports.say(PowerState.SHUTDOWN)
    assert (server.vm_state, server.task_state) == (VMState.ACTIVE, TaskState.POWERING_OFF)


async def test_another_host_has_no_say(reports: Reports) -> None:
    await reports.begin(VMState.ACTIVE, None)
    assert (await reports.say(PowerState.NOSTATE, host="h2")).vm_state is VMState.ACTIVE


async def test_of_a_server_in_error_the_power_state_alone_follows(reports: Reports) -> None:
    await reports.begin(VMState.ERROR, None)
    server = await reports.say(PowerState.SHUTDOWN)
    assert (server.vm_state, server.power_state) == (VMState.ERROR, PowerState.SHUTDOWN)
