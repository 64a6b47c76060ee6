"""What a user can do with servers. The one place where their rules stand, whichever API asks.

Each mutating use case commits the new state and the task that brings it about in one transaction, then
rings the conductor's bell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec.structs

from kilonova.base.log import get_logger
from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.cloud.server_actions import Order, begin
from kilonova.cloud.server_creation import Created, Plan, ServerRequest, check, check_metadata, create
from kilonova.cloud.server_rebuild import RebuildRequest, check_rebuild, rebuild
from kilonova.model.context import RequestContext
from kilonova.model.errors import (
    Conflict,
    GuestNotFound,
    HypervisorUnavailable,
    NotFound,
    Unavailable,
)
from kilonova.model.network import Port
from kilonova.model.server import Page, Server, ServerAction, ServerFilter
from kilonova.model.states import RULES, VMState
from kilonova.model.task import StepRecord
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.store.queries import aggregates, hosts, ports, security_groups, servers, tasks
from kilonova.store.transactions import Tx

log = get_logger(__name__)


@dataclass(frozen=True)
class Detailed:
    """A server with what its view shows besides.

    Attributes:
        ports: for the addresses.
        security_groups: names of the groups that its ports are in; while it has none yet, those that were asked for.
    """

    server: Server
    ports: list[Port]
    zone: str
    host_status: str
    security_groups: list[str]


class Servers:
    """Use cases of servers."""

    def __init__(
        self,
        parts: Parts,
        compute: Callable[[str], ComputeAPI],
        *,
        default_zone: str = "nova",
        force_config_drive: bool = True,
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._compute = compute
        self._default_zone = default_zone
        self._force_config_drive = force_config_drive

    # ---- reading ------------------------------------------------------------------------------------

    async def get(self, ctx: RequestContext, server_id: str) -> Detailed:
        """One server, if the caller may see it.

        Raises:
            NotFound: also for a server of somebody else's project.
        """
        return await self._store.read(_detailed, server_id, self._scope(ctx), self._default_zone)

    async def page(
        self, ctx: RequestContext, wanted: ServerFilter, page: Page, *, all_projects: bool = False
    ) -> list[Detailed]:
        """One page of servers with what their views show; the same few statements for any number."""
        wanted = self._visible(ctx, wanted, all_projects)
        return await self._store.read(_detailed_page, wanted, page, self._default_zone)

    async def brief_page(
        self, ctx: RequestContext, wanted: ServerFilter, page: Page, *, all_projects: bool = False
    ) -> list[Server]:
        """As `page`, with the servers' own rows alone."""
        wanted = self._visible(ctx, wanted, all_projects)
        return await self._store.read(servers.list_page, wanted, page)

    def _visible(self, ctx: RequestContext, wanted: ServerFilter, all_projects: bool) -> ServerFilter:
        if all_projects:
            self._parts.policy.authorize(ctx, "os_compute_api:servers:index:get_all_tenants")
            return wanted
        return msgspec.structs.replace(wanted, project_id=ctx.project_id)

    def _scope(self, ctx: RequestContext) -> str | None:
        """The project whose servers the caller sees; None: all."""
        return None if ctx.is_admin else ctx.project_id

    async def actions(self, ctx: RequestContext, server_id: str, **page: Any) -> list[ServerAction]:
        """What was asked of a server, newest first. Also of a deleted one."""
        return await self._store.read(_actions, server_id, self._scope(ctx), page)

    async def action(
        self, ctx: RequestContext, server_id: str, request_id: str
    ) -> tuple[ServerAction, list[StepRecord]]:
        """One action and the steps that it took."""
        return await self._store.read(_action, server_id, self._scope(ctx), request_id)

    # ---- create -------------------------------------------------------------------------------------

    async def create(self, ctx: RequestContext, request: ServerRequest) -> Created:
        """Record the servers and the tasks that will boot them; all or nothing.

        Raises:
            QuotaExceeded, NotFound (flavor, image), BadRequest (everything else the request names)
        """
        check(request)
        if request.requested_host or (request.availability_zone or "").count(":"):
            rule = "os_compute_api:servers:create:forced_host"
            self._parts.policy.authorize(ctx, rule, {"project_id": ctx.project_id})
        ids = self._parts.ids
        plan = Plan(
            ids=[ids.uuid() for _ in range(request.max_count)],
            task_ids=[ids.uuid() for _ in range(request.max_count)],
            reservation_id="r-" + ids.uuid().replace("-", "")[:8],
            admin_password=request.admin_password or ids.secret(9),
            at=self._parts.clock.now(),
            config_drive=self._force_config_drive if request.config_drive is None else request.config_drive,
            default_zone=self._default_zone,
        )
        make = once(
            ctx,
            self._parts.clock,
            create,
            gives=lambda made: Created(made, plan.reservation_id, plan.admin_password),
        )
        made = await self._store.run(make, ctx, request, plan)
        self._parts.bell.ring("conductor")
        for server in made:
            log.info("server accepted", server=server.id, flavor=server.flavor.name, image=server.image_id)
        return Created(made, plan.reservation_id, plan.admin_password)

    # ---- changing -----------------------------------------------------------------------------------

    async def update(self, ctx: RequestContext, server_id: str, changes: dict[str, Any]) -> Detailed:
        """Write a server's name, description, access addresses, disk_config or hostname."""
        await self._store.run(_update, server_id, self._scope(ctx), changes, at=self._parts.clock.now())
        return await self.get(ctx, server_id)

    async def metadata(self, ctx: RequestContext, server_id: str) -> dict[str, str]:
        """A server's metadata."""
        return (await self._store.read(servers.get, server_id, project_id=self._scope(ctx))).metadata

    async def set_metadata(
        self, ctx: RequestContext, server_id: str, items: dict[str, str], *, replace: bool
    ) -> dict[str, str]:
        """Add to a server's metadata, or put others in its place.

        Raises:
            QuotaExceeded: more items than ``metadata_items``.
        """
        return await self._store.run(
            _set_metadata, server_id, self._scope(ctx), items, replace=replace, at=self._parts.clock.now()
        )

    async def delete_metadata(self, ctx: RequestContext, server_id: str, key: str) -> None:
        """Remove one item.

        Raises:
            NotFound
        """
        await self._store.run(_delete_metadata, server_id, self._scope(ctx), key, at=self._parts.clock.now())

    # ---- actions ------------------------------------------------------------------------------------

    async def start(self, ctx: RequestContext, server_id: str) -> None:
        """Start a stopped server."""
        await self._act(ctx, server_id, "start", "start", "server.start")

    async def stop(self, ctx: RequestContext, server_id: str) -> None:
        """Shut a server down; its disk and its place stay."""
        await self._act(ctx, server_id, "stop", "stop", "server.stop")

    async def reboot(self, ctx: RequestContext, server_id: str, *, hard: bool) -> None:
        """Restart a server: soft asks its system, hard resets it."""
        rule = "reboot_hard" if hard else "reboot_soft"
        await self._act(ctx, server_id, rule, "reboot", "server.reboot", hard=hard)

    async def rebuild(self, ctx: RequestContext, server_id: str, request: RebuildRequest) -> tuple[Detailed, str]:
        """Put a fresh disk, made of an image, in place of a server's disk; the server as it is then, and its password.

        Its place, its addresses and its id stay. A stopped server is off afterwards too.

        Raises:
            InvalidState, Conflict (locked), BadRequest (whatever the request names), QuotaExceeded
        """
        check_rebuild(request)
        password = request.admin_password or self._parts.ids.secret(9)
        order = self._order("rebuild", "rebuild", "server.rebuild", admin_password=password)
        await self._store.run(rebuild, ctx, server_id, self._scope(ctx), order, request)
        self._accepted(server_id, "rebuild")
        return await self.get(ctx, server_id), password

    async def delete(self, ctx: RequestContext, server_id: str) -> None:
        """Delete a server, whatever is being done to it: the delete takes over.

        Raises:
            Conflict: it is locked.
        """
        await self._act(ctx, server_id, "delete", "delete", "server.delete")

    async def _act(
        self, ctx: RequestContext, server_id: str, rule: str, action: str, kind: str, **payload: Any
    ) -> None:
        order = self._order(rule, action, kind, **payload)
        await self._store.run(begin, ctx, server_id, self._scope(ctx), order)
        self._accepted(server_id, action)

    def _order(self, rule: str, action: str, kind: str, **payload: Any) -> Order:
        task_id, at = self._parts.ids.uuid(), self._parts.clock.now()
        return Order(task_id=task_id, kind=kind, action=action, rule=RULES[rule], payload=payload, at=at)

    def _accepted(self, server_id: str, action: str) -> None:
        self._parts.bell.ring("conductor")
        log.info("action accepted", server=server_id, action=action)

    async def console_output(self, ctx: RequestContext, server_id: str, *, lines: int | None) -> str:
        """The last `lines` lines (None: all that is kept) of the serial console.

        Raises:
            Conflict: the server has no host yet.
            Unavailable: its host does not answer.
        """
        server = await self._store.read(servers.get, server_id, project_id=self._scope(ctx))
        if server.host is None:
            raise Conflict(f"Instance {server_id} is not ready")
        try:
            text = await self._compute(server.host).console_log(server_id, max_bytes=CONSOLE_BYTES)
        except GuestNotFound:
            raise Conflict(f"Instance {server_id} is not ready") from None
        except HypervisorUnavailable as error:
            raise Unavailable(f"The server's host cannot read the console log now: {error.detail}") from error
        if lines is None or lines < 0:
            return text
        return "\n".join(text.splitlines()[-lines:]) if lines else ""


CONSOLE_BYTES = 100 * 1024
"""How much of a console log is shown at most."""


# ---- transactions: reading ------------------------------------------------------------------------------


def _detailed(tx: Tx, server_id: str, project_id: str | None, default_zone: str) -> Detailed:
    server = servers.get(tx, server_id, project_id=project_id)
    return _with_surroundings(tx, [server], default_zone)[0]


def _detailed_page(tx: Tx, wanted: ServerFilter, page: Page, default_zone: str) -> list[Detailed]:
    return _with_surroundings(tx, servers.list_page(tx, wanted, page), default_zone)


def _with_surroundings(tx: Tx, found: Sequence[Server], default_zone: str) -> list[Detailed]:
    if not found:
        return []
    ports_of = ports.of_servers(tx, [server.id for server in found])
    zones = aggregates.zone_of_hosts(tx)
    statuses = hosts.statuses(tx, {server.host for server in found if server.host})
    groups_of = {server.id: _groups_of(server, ports_of.get(server.id, [])) for server in found}
    names = security_groups.names(tx, {group for groups in groups_of.values() for group in groups})
    return [
        Detailed(
            server=server,
            ports=ports_of.get(server.id, []),
            zone=zones.get(server.host, default_zone) if server.host else (server.availability_zone or ""),
            host_status=statuses.get(server.host, "UNKNOWN") if server.host else "",
            security_groups=[names.get(group, group) for group in groups_of[server.id]],
        )
        for server in found
    ]


def _groups_of(server: Server, its_ports: list[Port]) -> list[str]:
    """Ids of the groups that a server's ports are in; before there are ports, what was asked for, ids or names."""
    if server.vm_state is VMState.BUILDING and not its_ports:
        return server.order.security_groups or ["default"]
    own = [port for port in its_ports if port.project_id == server.project_id]
    return list(dict.fromkeys(group for port in own for group in port.security_groups))


def _actions(tx: Tx, server_id: str, project_id: str | None, page: dict[str, Any]) -> list[ServerAction]:
    servers.get(tx, server_id, project_id=project_id, deleted=True)
    return servers.actions_of(tx, server_id, **page)


def _action(tx: Tx, server_id: str, project_id: str | None, request_id: str) -> tuple[ServerAction, list[StepRecord]]:
    servers.get(tx, server_id, project_id=project_id, deleted=True)
    action = servers.action(tx, server_id, request_id)
    steps = tasks.steps_of(tx, [action.task_id])[action.task_id] if action.task_id else []
    return action, steps


# ---- transactions: changing -------------------------------------------------------------------------------


def _update(tx: Tx, server_id: str, project_id: str | None, changes: dict[str, Any], *, at: datetime) -> None:
    servers.lock(tx, server_id, project_id=project_id)
    servers.update(tx, server_id, at=at, **changes)


def _set_metadata(
    tx: Tx, server_id: str, project_id: str | None, items: dict[str, str], *, replace: bool, at: datetime
) -> dict[str, str]:
    server = servers.lock(tx, server_id, project_id=project_id)
    metadata = items if replace else {**server.metadata, **items}
    check_metadata(tx, server.project_id, metadata, used=len(server.metadata))
    servers.update(tx, server_id, at=at, metadata=metadata)
    return metadata


def _delete_metadata(tx: Tx, server_id: str, project_id: str | None, key: str, *, at: datetime) -> None:
    server = servers.lock(tx, server_id, project_id=project_id)
    if key not in server.metadata:
        raise NotFound(kind="Metadata item", id=key)
    left = {name: value for name, value in server.metadata.items() if name != key}
    servers.update(tx, server_id, at=at, metadata=left)
