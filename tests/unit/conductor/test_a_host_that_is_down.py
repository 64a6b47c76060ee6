"""A build whose host went down is not waited for, try after try: it is left to the host, and the next one is tried."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.conductor.tasks import boot
from kilonova.model.errors import HostDown
from kilonova.model.task import Failure
from kilonova.store.engine import Store
from kilonova.store.queries import services
from kilonova.tasks.engine import PASSING
from kilonova.tasks.kinds import Run

NOW = datetime.now(UTC)


def nobody(host: str) -> Any:
    raise AssertionError(f"{host} is not to be called")


@pytest.fixture
async def run(store: Store) -> Run[Any]:
    await store.run(
        services.register,
        service="compute",
        host="h1",
        uuid="00000000-0000-4000-8000-000000000001",
        agent_id="a",
        at=NOW - timedelta(minutes=5),
    )
    await store.run(services.mark_silent, {("compute", "h1"): NOW - timedelta(minutes=5)}, at=NOW)
    return Run(
        task_id="t",
        subject="s",
        payload={"host": "h1"},
        epoch=1,
        attempt=1,
        request_id="r",
        services=SimpleNamespace(store=store, compute=nobody, network=nobody),
        clock=SystemClock(),
        ids=SystemIds(),
    )


async def test_the_build_fails_at_once_and_may_begin_again_elsewhere(run: Run[Any]) -> None:
    with pytest.raises(HostDown) as raised:
        await boot.spawn(run)
    assert not isinstance(raised.value, PASSING)
    again = boot.begin_again(run, Failure(step="spawn", host="h1", code=raised.value.code, message=""))
    assert again is not None and again["excluded"] == ["h1"]


async def test_its_undo_is_left_to_the_host(run: Run[Any]) -> None:
    await boot.destroy(run)
    await boot.unplug(run)
