"""Stop, start and reboot. If it cannot be done, the server goes back to rest as it was, and the action says why.

Payload: ``host``; for reboot ``hard``.
"""

from datetime import datetime
from functools import partial

from kilonova.base.log import get_logger
from kilonova.conductor.hands import Hands
from kilonova.conductor.tasks.boot import host_of, plug_ports
from kilonova.model.states import PowerState, VMState
from kilonova.model.task import Failure
from kilonova.store.queries import servers
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import Run, Step, TaskKind, Write

log = get_logger(__name__)

GRACE_S = 60.0
"""Seconds that a guest has to shut down by itself before the plug is pulled."""


async def plug(run: Run[Hands]) -> None:
    """The host may have been restarted since: bridges and rules are made again."""
    await plug_ports(run, host_of(run))


async def power_off(run: Run[Hands]) -> Write:
    await run.services.compute(host_of(run)).power_off(run.subject, epoch=run.epoch, grace_s=GRACE_S)
    return _rest(run, VMState.STOPPED, PowerState.SHUTDOWN)


async def power_on(run: Run[Hands]) -> Write:
    await run.services.compute(host_of(run)).power_on(run.subject, epoch=run.epoch)
    return _rest(run, VMState.ACTIVE, PowerState.RUNNING)


async def reboot(run: Run[Hands]) -> Write:
    await run.services.compute(host_of(run)).reboot(
        run.subject, epoch=run.epoch, hard=bool(run.payload["hard"]), grace_s=GRACE_S
    )
    return _rest(run, VMState.ACTIVE, PowerState.RUNNING)


def _rest(run: Run[Hands], vm_state: VMState, power_state: PowerState) -> Write:
    return partial(
        _settle,
        server_id=run.subject,
        vm_state=vm_state,
        power_state=power_state,
        task_id=run.task_id,
        at=run.clock.now(),
    )


def _settle(tx: Tx, *, server_id: str, vm_state: VMState, power_state: PowerState, task_id: str, at: datetime) -> None:
    servers.become(tx, server_id, at=at, vm_state=vm_state, power_state=power_state)
    servers.touch_action(tx, task_id=task_id, at=at)


def failed(run: Run[Hands], failure: Failure) -> Write:
    return partial(_leave_as_it_was, run=run, failure=failure, at=run.clock.now())


def _leave_as_it_was(tx: Tx, *, run: Run[Hands], failure: Failure, at: datetime) -> None:
    servers.become(tx, run.subject, at=at)
    servers.fail_action(tx, task_id=run.task_id, message=f"{failure.step}: {failure.message}", at=at)
    log.warning("action failed", step=failure.step, host=failure.host, cause=failure.message)


STOP = TaskKind("server.stop", steps=(Step("power_off", power_off, deadline_s=240),), failed=failed)

START = TaskKind(
    "server.start",
    steps=(Step("plug", plug, deadline_s=90), Step("power_on", power_on, deadline_s=180)),
    failed=failed,
)

REBOOT = TaskKind(
    "server.reboot",
    steps=(Step("plug", plug, deadline_s=90), Step("reboot", reboot, deadline_s=240)),
    failed=failed,
)
