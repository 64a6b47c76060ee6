"""Servers whose task came to nothing: ERROR, with a fault that says where and why."""

from datetime import datetime

import msgspec

from kilonova.base.log import get_logger
from kilonova.conductor.hands import Hands
from kilonova.model.server import Fault
from kilonova.model.states import VMState
from kilonova.model.task import Failure
from kilonova.store.queries import servers
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import Run

log = get_logger(__name__)


def break_server(
    tx: Tx, server_id: str, failure: Failure, *, message: str, attempt: int, task_id: str, at: datetime
) -> None:
    """Put a server into ERROR with a fault that names step, host and cause."""
    details = (
        f"step {failure.step} on host {failure.host or '(none)'}, attempt {attempt}: {failure.code}: {failure.message}"
    )
    servers.become(tx, server_id, at=at, vm_state=VMState.ERROR)
    servers.add_fault(tx, server_id, Fault(code=500, message=message, details=details, created_at=at))
    servers.fail_action(tx, task_id=task_id, message=f"{failure.step}: {failure.message}", at=at)
    log.warning("server is in error", step=failure.step, host=failure.host, cause=failure.message)


def last_resort(tx: Tx, run: Run[Hands], failure: Failure) -> None:
    """End a task whose kind cannot write its own end, which is a defect of ours. Nothing is read that could be bad."""
    if run.failure is not None:
        words = f"{failure.message} It was to be told: {run.failure.code}: {run.failure.message}"
        failure = msgspec.structs.replace(failure, message=words)
    break_server(
        tx,
        run.subject,
        failure,
        message="A defect of the cloud kept this server's task from its proper end. Reboot it hard, or delete it.",
        attempt=run.attempt,
        task_id=run.task_id,
        at=run.clock.now(),
    )
