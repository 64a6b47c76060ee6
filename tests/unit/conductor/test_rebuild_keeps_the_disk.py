"""When a rebuild that failed may say that the server kept its disk: only if no earlier try can have taken it."""

from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.conductor.tasks import rebuild
from kilonova.model.errors import CloudError, GuestRejected, ImageUnusable, NotSupported
from kilonova.tasks.kinds import Run


def run_of(epoch: int) -> Run[Any]:
    return Run(
        task_id="t",
        subject="s",
        payload={"host": "h", "power_on": True, "epoch": 7},
        epoch=epoch,
        attempt=1,
        request_id="r",
        services=None,
        clock=SystemClock(),
        ids=SystemIds(),
    )


@pytest.mark.parametrize("fault", [ImageUnusable("Broken."), NotSupported("Too old.")])
@pytest.mark.parametrize(("epoch", "kept"), [(7, True), (8, False)])
async def test_only_the_first_try_can_leave_the_disk_untouched(
    fault: CloudError, epoch: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(rebuild, "run_guest", refuse)
    with pytest.raises(type(fault) if kept else GuestRejected) as raised:
        await rebuild.respawn(run_of(epoch))
    assert (raised.value.code in rebuild.UNTOUCHED) is kept
