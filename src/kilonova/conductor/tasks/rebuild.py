"""Rebuild: a fresh disk of an image in place of a server's disk. Its place, its ports and its id stay.

Payload: ``host``; ``power_on`` (false: the server was stopped, and is off afterwards); ``admin_password`` (secret);
``before``: the image of before, for a server that keeps its disk after all; ``epoch``: of the first try of ``spawn``.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from kilonova.base.log import get_logger
from kilonova.conductor.hands import Hands
from kilonova.conductor.tasks.boot import host_of, plug_ports, run_guest
from kilonova.conductor.tasks.broken import break_server
from kilonova.model.errors import CloudError, GuestRejected, ImageUnusable, NotFound, NotSupported
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.model.task import Failure
from kilonova.store.queries import servers
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import Run, Step, TaskKind, Write

log = get_logger(__name__)

UNTOUCHED = frozenset({ImageUnusable.code, NotSupported.code, NotFound.code})
"""Faults after which the guest of before is as it was: see `kilonova.virt.driver.VirtDriver.spawn`. (What is not found
is the image, deleted meanwhile.)"""


async def plug(run: Run[Hands]) -> Write:
    await plug_ports(run, host_of(run))
    return partial(_spawning, server_id=run.subject, epoch=run.epoch, at=run.clock.now())


def _spawning(tx: Tx, *, server_id: str, epoch: int, at: datetime) -> Mapping[str, Any]:
    servers.become(tx, server_id, at=at, task_state=TaskState.REBUILD_SPAWNING)
    return {"epoch": epoch}


async def respawn(run: Run[Hands]) -> Write:
    power_on = bool(run.payload["power_on"])
    try:
        await run_guest(run, host_of(run), replaces=True, power_on=power_on)
    except CloudError as error:
        # Whoever tried before us may have been heard, and may still be: then nobody knows which disk there is.
        if error.code in UNTOUCHED and run.payload.get("epoch") != run.epoch:
            raise GuestRejected(f"{error.message} An earlier try may have taken the disk of before.") from error
        raise
    return partial(_settle, server_id=run.subject, is_on=power_on, task_id=run.task_id, at=run.clock.now())


def _settle(tx: Tx, *, server_id: str, is_on: bool, task_id: str, at: datetime) -> None:
    servers.become(
        tx,
        server_id,
        at=at,
        vm_state=VMState.ACTIVE if is_on else VMState.STOPPED,
        power_state=PowerState.RUNNING if is_on else PowerState.SHUTDOWN,
        launched_at=at,
        progress=100,
    )
    servers.touch_action(tx, task_id=task_id, at=at)


def failed(run: Run[Hands], failure: Failure) -> Write:
    if failure.code in UNTOUCHED or failure.step == "plug":
        return partial(_leave_as_it_was, run=run, failure=failure, at=run.clock.now())
    return partial(
        break_server,
        server_id=run.subject,
        failure=failure,
        message=failure.message,
        attempt=run.attempt,
        task_id=run.task_id,
        at=run.clock.now(),
    )


def _leave_as_it_was(tx: Tx, *, run: Run[Hands], failure: Failure, at: datetime) -> None:
    before: Mapping[str, Any] = run.payload["before"]
    order = servers.get(tx, run.subject).order
    order = msgspec.structs.replace(order, image_properties=before["image_properties"])
    servers.become(
        tx, run.subject, at=at, image_id=before["image_id"], progress=100, request=msgspec.to_builtins(order)
    )
    servers.fail_action(tx, task_id=run.task_id, message=f"{failure.step}: {failure.message}", at=at)
    log.warning("server keeps its disk", step=failure.step, host=failure.host, cause=failure.message)


REBUILD = TaskKind(
    "server.rebuild",
    steps=(Step("plug", plug, deadline_s=90), Step("spawn", respawn, deadline_s=900)),
    failed=failed,
)
