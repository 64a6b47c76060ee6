"""How anything that is done to a server begins: state, task and action are written together, or nothing is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kilonova.model.context import RequestContext
from kilonova.model.errors import Conflict, InvalidState
from kilonova.model.states import Rule, TaskState
from kilonova.store.queries import servers, tasks
from kilonova.store.transactions import Tx


@dataclass(frozen=True)
class Order:
    """An action that is about to begin."""

    task_id: str
    kind: str
    action: str
    rule: Rule
    payload: dict[str, Any]
    at: datetime


def begin(tx: Tx, ctx: RequestContext, server_id: str, project_id: str | None, order: Order) -> None:
    """Check the state, write the new one with its task and its action.

    The server is locked from the look at its state on: of two orders at the same moment one is the second.

    Raises:
        NotFound
        Conflict: the server is locked.
        InvalidState: `order.rule` does not allow the action now.
    """
    server = servers.lock(tx, server_id, project_id=project_id)
    rule = order.rule
    if server.locked and not ctx.is_admin:
        raise Conflict(f"Instance {server_id} is locked")
    if server.vm_state not in rule.allowed:
        raise InvalidState(server_id=server_id, action=order.action, attribute="vm_state", state=server.vm_state)
    if server.task_state is not None and not rule.during_task:
        raise InvalidState(server_id=server_id, action=order.action, attribute="task_state", state=server.task_state)
    if server.task_state is TaskState.DELETING:
        return  # a delete is under way: asking again changes nothing
    if server.host is None and not rule.during_task:
        raise InvalidState(server_id=server_id, action=order.action, attribute="host", state="none")
    tasks.insert(
        tx,
        task_id=order.task_id,
        kind=order.kind,
        subject=server_id,
        payload={**order.payload, "host": server.host},
        request_id=ctx.request_id,
        at=order.at,
        supersede=rule.during_task,
    )
    servers.become(tx, server_id, at=order.at, task_state=rule.during)
    record_action(tx, ctx, server_id, order.action, order.task_id, order.at)


def record_action(tx: Tx, ctx: RequestContext, server_id: str, action: str, task_id: str | None, at: datetime) -> None:
    """Note that the caller asked for `action`; its events are the steps of the task."""
    servers.add_action(
        tx,
        server_id=server_id,
        action=action,
        request_id=ctx.request_id,
        user_id=ctx.user_id,
        project_id=ctx.project_id,
        task_id=task_id,
        at=at,
    )
