"""``POST /servers/{id}/action`` of the Compute API v2.1, and ``/servers/{id}/os-instance-actions``."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Struct

from kilonova.api.compute.api import api
from kilonova.api.compute.server_rebuild import Rebuild, rebuild_server
from kilonova.api.compute.server_security_groups import GroupReference, add_group, remove_group
from kilonova.api.compute.shared import moment, timestamp_us
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import convert
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest
from kilonova.model.server import ServerAction
from kilonova.model.task import StepRecord


class Reboot(Struct, forbid_unknown_fields=True):
    """``{"reboot": {"type": "SOFT"}}``."""

    type: Literal["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]


class ConsoleOutput(Struct, forbid_unknown_fields=True):
    """``{"os-getConsoleOutput": {"length": 50}}``; without a length, all that is kept."""

    length: int | str | None = None


Handler = Callable[[Cloud, Request, str, Any], Awaitable[Reply]]


@dataclass(frozen=True)
class Action:
    """One action: the rule that allows it, what its argument looks like, and what does it."""

    policy: str
    argument: Any
    handler: Handler


async def _start(cloud: Cloud, req: Request, server_id: str, _: None) -> Reply:
    await cloud.servers.start(req.ctx, server_id)
    return Reply(status=202)


async def _stop(cloud: Cloud, req: Request, server_id: str, _: None) -> Reply:
    await cloud.servers.stop(req.ctx, server_id)
    return Reply(status=202)


async def _reboot(cloud: Cloud, req: Request, server_id: str, argument: Reboot) -> Reply:
    await cloud.servers.reboot(req.ctx, server_id, hard=argument.type.upper() == "HARD")
    return Reply(status=202)


async def _force_delete(cloud: Cloud, req: Request, server_id: str, _: Any) -> Reply:
    await cloud.servers.delete(req.ctx, server_id)
    return Reply(status=202)


async def _console_output(cloud: Cloud, req: Request, server_id: str, argument: ConsoleOutput) -> Reply:
    length = argument.length
    if isinstance(length, str):
        if not length.lstrip("-").isdigit() or len(length) > 9:
            raise BadRequest(f"Invalid input for field/attribute length. Value: {length}. It must be a number.")
        length = int(length)
    if length is not None and length < -1:
        raise BadRequest(f"Invalid input for field/attribute length. Value: {length}. It must be -1 or more.")
    text = await cloud.servers.console_output(req.ctx, server_id, lines=length)
    return Reply({"output": text}, status=200)


ACTIONS: dict[str, Action] = {
    "os-start": Action("os_compute_api:servers:start", Any, _start),
    "os-stop": Action("os_compute_api:servers:stop", Any, _stop),
    "reboot": Action("os_compute_api:servers:reboot", Reboot, _reboot),
    "rebuild": Action("os_compute_api:servers:rebuild", Rebuild, rebuild_server),
    "forceDelete": Action("os_compute_api:os-deferred-delete:force", Any, _force_delete),
    "os-getConsoleOutput": Action("os_compute_api:os-console-output", ConsoleOutput, _console_output),
    "addSecurityGroup": Action("os_compute_api:os-security-groups:add", GroupReference, add_group),
    "removeSecurityGroup": Action("os_compute_api:os-security-groups:remove", GroupReference, remove_group),
}


@api.route("POST", "/servers/{server_id}/action", policy=None, status=202)
async def act(cloud: Cloud, req: Request, server_id: str, body: dict[str, Any]) -> Reply:
    """Do one thing to a server: the body has one key, the action's name."""
    if len(body) != 1:
        raise BadRequest("The body must have exactly one key: the name of the action.")
    [(name, argument)] = body.items()
    action = ACTIONS.get(name)
    if action is None:
        raise BadRequest(f"There is no such action: {name}. Known are: {', '.join(sorted(ACTIONS))}.")
    # The action's rule needs to know whose server it is; somebody else's is not found at all.
    owner = (await cloud.servers.get(req.ctx, server_id)).server.project_id
    cloud.parts.policy.authorize(req.ctx, action.policy, {"project_id": owner})
    return await action.handler(
        cloud, req, server_id, convert(argument, action.argument, at=name, version=req.microversion)
    )


# ---- what was done ------------------------------------------------------------------------------------------

SUMMARY = View(
    Field("action", lambda a: a.action),
    Field("instance_uuid", lambda a: a.server_id),
    Field("request_id", lambda a: a.request_id),
    Field("user_id", lambda a: a.user_id),
    Field("project_id", lambda a: a.project_id),
    Field("start_time", lambda a: timestamp_us(a.started_at)),
    Field("message", lambda a: a.message),
    Field("updated_at", lambda a: timestamp_us(a.updated_at), since="2.58"),
)


class ActionQuery(Struct, kw_only=True):
    """Query of ``GET /servers/{id}/os-instance-actions``; paging came with 2.58."""

    limit: str | None = None
    marker: str | None = None
    changes_since: str | None = msgspec.field(name="changes-since", default=None)
    changes_before: str | None = msgspec.field(name="changes-before", default=None)


@api.route("GET", "/servers/{server_id}/os-instance-actions", policy="os_compute_api:os-instance-actions:list")
async def list_actions(cloud: Cloud, req: Request, server_id: str, query: ActionQuery) -> Reply:
    """What was asked of a server, newest first. Also of a deleted one."""
    limit = page_size(query.limit)
    found = await cloud.servers.actions(
        req.ctx,
        server_id,
        limit=limit,
        marker=query.marker,
        since=moment("changes-since", query.changes_since),
        before=moment("changes-before", query.changes_before),
    )
    body: dict[str, Any] = {"instanceActions": [SUMMARY.render(action, req.microversion) for action in found]}
    further = next_links(req, limit, [action.request_id for action in found])
    if further:
        body["links"] = further
    return Reply(body)


@api.route(
    "GET",
    "/servers/{server_id}/os-instance-actions/{request_id}",
    policy="os_compute_api:os-instance-actions:show",
)
async def show_action(cloud: Cloud, req: Request, server_id: str, request_id: str) -> Reply:
    """One action with the steps that it took."""
    action, steps = await cloud.servers.action(req.ctx, server_id, request_id)
    allows, target = cloud.parts.policy.allows, {"project_id": action.project_id}
    with_host = allows(req.ctx, "os_compute_api:os-instance-actions:events", target)
    with_details = allows(req.ctx, "os_compute_api:os-instance-actions:events:details", target)
    view = SUMMARY.render(action, req.microversion)
    view["events"] = [_event(step, action, with_host=with_host, with_details=with_details) for step in reversed(steps)]
    return Reply({"instanceAction": view})


def _event(step: StepRecord, action: ServerAction, *, with_host: bool, with_details: bool) -> dict[str, Any]:
    verb = "undo_" if step.undoing else ""
    event: dict[str, Any] = {
        "event": f"{action.action}_{verb}{step.step}",
        "start_time": timestamp_us(step.started_at),
        "finish_time": timestamp_us(step.finished_at),
        "result": "Success" if step.result == "done" else "Error",
    }
    if with_details:
        event["traceback"] = step.detail or None
        event["details"] = step.detail or None
    if with_host:
        event["host"] = step.host
        event["hostId"] = step.host or ""
    return event
