"""A build that fails: which hosts the scheduler shall avoid for it, and what is forgotten with the server."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.stores import fresh_store

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.conductor.tasks import boot
from kilonova.model.flavor import Flavor
from kilonova.model.host import HostReport
from kilonova.model.server import ServerOrder
from kilonova.model.states import VMState
from kilonova.model.task import Failure
from kilonova.store.engine import Store
from kilonova.store.queries import hosts, servers, tasks
from kilonova.tasks.kinds import Run

CLOCK = SystemClock()
NOW = CLOCK.now()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = fresh_store(tmp_path)
    report = HostReport(
        host="h1",
        hypervisor_hostname="h1",
        hypervisor_type="fake",
        hypervisor_version=1,
        vcpus=1,
        memory_mib=1,
        disk_gib=1,
    )
    await opened.run(hosts.record_report, report, uuid="00000000-0000-4000-8000-000000000001", at=NOW)
    row: dict[str, Any] = {
        "id": "s",
        "project_id": "p",
        "user_id": "u",
        "name": "n",
        "hostname": "h",
        "vm_state": VMState.BUILDING,
        "flavor": Flavor(id="1", name="m1", vcpus=1, memory_mib=1, root_gib=1),
        "metadata": {},
        "tags": [],
        "order": ServerOrder(),
        "created_at": NOW,
        "updated_at": NOW,
        "key_name": None,
    }
    await opened.run(servers.insert, [row])
    yield opened
    await opened.close()


@pytest.mark.parametrize(("code", "counted"), [("host.image_unusable", 0), ("host.rejected", 1)])
async def test_a_host_is_blamed_only_for_what_is_its_own(store: Store, code: str, counted: int) -> None:
    run: Run[Any] = Run(
        task_id="t",
        subject="s",
        payload={"host": "h1"},
        epoch=1,
        attempt=1,
        request_id="r",
        services=None,
        clock=CLOCK,
        ids=SystemIds(),
        failure=Failure(step="spawn", host="h1", code=code, message="m"),
    )
    await store.run(await boot.unplace(run))
    [state] = await store.read(hosts.changes_since, 0)
    assert state.failed_builds == counted


async def test_epochs_are_forgotten_with_the_server_and_not_before(store: Store) -> None:
    await store.run(tasks.insert, task_id="t", kind="server.boot", subject="s", payload={}, request_id="r", at=NOW)
    soon = NOW + timedelta(days=1)
    assert await store.run(tasks.prune_subjects, before=soon) == 0
    await store.run(servers.update, "s", at=NOW, deleted_at=NOW)
    assert await store.run(tasks.prune_subjects, before=soon) == 0, "a task of it is alive"
    [task] = await store.run(tasks.lease_due, owner="o", now=NOW, until=soon, limit=1, kinds=["server.boot"])
    await store.run(tasks.finish, task, outcome="done", at=NOW)
    assert await store.run(tasks.prune_subjects, before=NOW) == 0, "it was deleted not long enough ago"
    assert await store.run(tasks.prune_subjects, before=soon) == 1
    assert await store.read(tasks.epochs_of, ["s"]) == {}
