"""What a user can do with servers. The one place where their rules stand, whichever API asks.

Each mutating use case commits the new state and the task that brings it about in one transaction, then
rings the conductor's bell.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import msgspec.structs

from kilonova.base.log import get_logger
from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import (
    BadRequest,
    Conflict,
    GuestNotFound,
    HypervisorUnavailable,
    InvalidState,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from kilonova.model.flavor import Flavor
from kilonova.model.image import Image
from kilonova.model.network import Port
from kilonova.model.server import Page, RequestedNetwork, Server, ServerAction, ServerFilter, ServerOrder
from kilonova.model.server_group import ServerGroupRecord
from kilonova.model.states import RULES, PowerState, Rule, TaskState, VMState
from kilonova.model.task import StepRecord
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.store.queries import (
    aggregates,
    flavors,
    groups,
    hosts,
    images,
    keypairs,
    ports,
    quotas,
    security_groups,
    servers,
    tasks,
)
from kilonova.store.transactions import Tx

log = get_logger(__name__)

MAX_USER_DATA = 65535
"""Bytes of user data, base64 included, as the Compute API has it."""


@dataclass(frozen=True, kw_only=True)
class ServerRequest:
    """What a user asks for. `networks` is a list or one of the words ``auto`` and ``none``."""

    name: str
    flavor_id: str
    image_id: str = ""
    description: str | None = None
    key_name: str | None = None
    user_data: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    networks: list[RequestedNetwork] | str = "auto"
    availability_zone: str | None = None
    requested_host: str | None = None
    scheduler_hints: dict[str, Any] = field(default_factory=dict)
    config_drive: bool | None = None
    min_count: int = 1
    max_count: int = 1
    hostname: str | None = None
    admin_password: str | None = None
    access_ipv4: str = ""
    access_ipv6: str = ""
    disk_config: str = "MANUAL"
    personality: list[dict[str, str]] = field(default_factory=list)
    security_groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Created:
    """What `Servers.create` made: the servers of one reservation, and the password given to their guests."""

    servers: list[Server]
    reservation_id: str
    admin_password: str


@dataclass(frozen=True)
class Detailed:
    """A server with what its view shows besides: its ports (for the addresses), its zone, its host's state."""

    server: Server
    ports: list[Port]
    zone: str
    host_status: str


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
        """One page of servers with what their views show; three statements for any number."""
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
        self._check(request)
        if request.requested_host or (request.availability_zone or "").count(":"):
            rule = "os_compute_api:servers:create:forced_host"
            self._parts.policy.authorize(ctx, rule, {"project_id": ctx.project_id})
        ids = self._parts.ids
        plan = _Plan(
            ids=[ids.uuid() for _ in range(request.max_count)],
            task_ids=[ids.uuid() for _ in range(request.max_count)],
            reservation_id="r-" + ids.uuid().replace("-", "")[:8],
            admin_password=request.admin_password or ids.secret(9),
            at=self._parts.clock.now(),
            config_drive=self._force_config_drive if request.config_drive is None else request.config_drive,
            default_zone=self._default_zone,
        )
        create = once(
            ctx,
            self._parts.clock,
            _create,
            gives=lambda made: Created(made, plan.reservation_id, plan.admin_password),
        )
        made = await self._store.run(create, ctx, request, plan)
        self._parts.bell.ring("conductor")
        for server in made:
            log.info("server accepted", server=server.id, flavor=server.flavor.name, image=server.image_id)
        return Created(made, plan.reservation_id, plan.admin_password)

    def _check(self, request: ServerRequest) -> None:
        if request.min_count > request.max_count:
            raise BadRequest("min_count must be <= max_count")
        if request.user_data is not None:
            if len(request.user_data) > MAX_USER_DATA:
                raise BadRequest(f"user_data is longer than {MAX_USER_DATA} characters.")
            try:
                base64.b64decode(request.user_data, validate=True)
            except (binascii.Error, ValueError):
                raise BadRequest("user_data is not valid base64.") from None
        if isinstance(request.networks, list) and request.max_count > 1:
            for network in request.networks:
                if network.port_id:
                    raise BadRequest("A port can be given to one server only: ask for one server (max_count 1).")
                if network.fixed_ip:
                    raise BadRequest("An address can be given to one server only: ask for one server (max_count 1).")

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

    async def delete(self, ctx: RequestContext, server_id: str) -> None:
        """Delete a server, whatever is being done to it: the delete takes over.

        Raises:
            Conflict: it is locked.
        """
        await self._act(ctx, server_id, "delete", "delete", "server.delete")

    async def _act(
        self, ctx: RequestContext, server_id: str, rule: str, action: str, kind: str, **payload: Any
    ) -> None:
        order = _Order(
            task_id=self._parts.ids.uuid(),
            kind=kind,
            action=action,
            rule_name=rule,
            rule=RULES[rule],
            payload=payload,
            at=self._parts.clock.now(),
        )
        await self._store.run(_begin, ctx, server_id, self._scope(ctx), order)
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
    return [
        Detailed(
            server=server,
            ports=ports_of.get(server.id, []),
            zone=zones.get(server.host, default_zone) if server.host else (server.availability_zone or ""),
            host_status=statuses.get(server.host, "UNKNOWN") if server.host else "",
        )
        for server in found
    ]


def _actions(tx: Tx, server_id: str, project_id: str | None, page: dict[str, Any]) -> list[ServerAction]:
    servers.get(tx, server_id, project_id=project_id, deleted=True)
    return servers.actions_of(tx, server_id, **page)


def _action(tx: Tx, server_id: str, project_id: str | None, request_id: str) -> tuple[ServerAction, list[StepRecord]]:
    servers.get(tx, server_id, project_id=project_id, deleted=True)
    action = servers.action(tx, server_id, request_id)
    steps = tasks.steps_of(tx, [action.task_id])[action.task_id] if action.task_id else []
    return action, steps


# ---- transactions: create -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Everything of chance and time that a create needs, drawn before its transaction."""

    ids: list[str]
    task_ids: list[str]
    reservation_id: str
    admin_password: str
    at: datetime
    config_drive: bool
    default_zone: str


def _create(tx: Tx, ctx: RequestContext, request: ServerRequest, plan: _Plan) -> list[Server]:
    flavor = _flavor(tx, ctx, request)
    image = _image(tx, ctx, request, flavor)
    key = None
    if request.key_name is not None:
        key = _or_bad_request(partial(keypairs.get, tx, ctx.user_id, request.key_name), "Invalid key_name provided.")
    zone, force_host = _zone(tx, request, plan.default_zone)
    limit = quotas.limits(tx, ctx.project_id).get("metadata_items", quotas.UNLIMITED)
    if limit != quotas.UNLIMITED and len(request.metadata) > limit:
        raise QuotaExceeded(resource="metadata_items", limit=limit, used=0, asked=len(request.metadata))
    if request.requested_host is not None:
        _or_bad_request(partial(hosts.id_of, tx, request.requested_host), f"No host {request.requested_host}.")
    networks = ports.resolve_requested(tx, ctx.project_id, request.networks)
    security_groups.resolve(tx, ctx.project_id, request.security_groups, at=plan.at)
    group = _group(tx, ctx, request.scheduler_hints)
    count = _take_quota(tx, ctx.project_id, flavor, request)
    order = ServerOrder(
        networks=networks,
        availability_zone=zone,
        force_host=force_host,
        requested_host=request.requested_host,
        scheduler_hints=request.scheduler_hints,
        image_properties=_image_properties(image),
        security_groups=request.security_groups,
        personality=request.personality,
    )
    rows = []
    for index, server_id in enumerate(plan.ids[:count]):
        name = request.name if count == 1 else f"{request.name}-{index + 1}"
        rows.append(
            {
                "id": server_id,
                "project_id": ctx.project_id,
                "user_id": ctx.user_id,
                "name": name,
                "hostname": request.hostname or hostname_of(name, server_id),
                "description": request.description,
                "vm_state": VMState.BUILDING,
                "task_state": TaskState.SCHEDULING,
                "power_state": int(PowerState.NOSTATE),
                "availability_zone": zone,
                "image_id": request.image_id,
                "flavor": flavor,
                "key_name": key.name if key else None,
                "key_data": key.public_key if key else None,
                "user_data": request.user_data,
                "config_drive": plan.config_drive,
                "metadata": request.metadata,
                "tags": request.tags,
                "order": order,
                "reservation_id": plan.reservation_id,
                "launch_index": index,
                "access_ipv4": request.access_ipv4,
                "access_ipv6": request.access_ipv6,
                "disk_config": request.disk_config,
                "locked": False,
                "progress": 0,
                "created_at": plan.at,
                "updated_at": plan.at,
            }
        )
    servers.insert(tx, rows)
    if group is not None:
        _join(tx, ctx, group, plan.ids[:count])
    for server_id, task_id in zip(plan.ids[:count], plan.task_ids, strict=False):
        tasks.insert(
            tx,
            task_id=task_id,
            kind="server.boot",
            subject=server_id,
            payload={"admin_password": request.admin_password or ""},
            request_id=ctx.request_id,
            at=plan.at,
        )
        _record_action(tx, ctx, server_id, "create", task_id, plan.at)
    return [servers.get(tx, server_id) for server_id in plan.ids[:count]]


def _group(tx: Tx, ctx: RequestContext, hints: Mapping[str, Any]) -> ServerGroupRecord | None:
    """The server group that the hint ``group`` names."""
    group_id = hints.get("group")
    if group_id is None:
        return None
    group: ServerGroupRecord = _or_bad_request(
        partial(groups.get, tx, str(group_id), project_id=None if ctx.is_admin else ctx.project_id),
        f"Instance group {group_id} could not be found.",
    )
    return group


def _join(tx: Tx, ctx: RequestContext, group: ServerGroupRecord, server_ids: Sequence[str]) -> None:
    limit = quotas.limits(tx, ctx.project_id).get("server_group_members", quotas.UNLIMITED)
    if limit != quotas.UNLIMITED and len(group.members) + len(server_ids) > limit:
        raise QuotaExceeded(
            resource="server_group_members", limit=limit, used=len(group.members), asked=len(server_ids)
        )
    groups.add_members(tx, group.id, server_ids)


def _flavor(tx: Tx, ctx: RequestContext, request: ServerRequest) -> Flavor:
    visible_to = None if ctx.is_admin else ctx.project_id
    flavor: Flavor = _or_bad_request(
        partial(flavors.get, tx, request.flavor_id, project_id=visible_to),
        f"Flavor {request.flavor_id} could not be found.",
    )
    return flavor


def _image(tx: Tx, ctx: RequestContext, request: ServerRequest, flavor: Flavor) -> Image | None:
    if not request.image_id:
        raise BadRequest("Invalid imageRef provided: a server needs an image.")
    image: Image = _or_bad_request(
        partial(images.get_usable, tx, request.image_id, project_id=ctx.project_id, is_admin=ctx.is_admin),
        f"Image {request.image_id} could not be found.",
    )
    if image.status != "active":
        raise BadRequest(f"Image {image.id} is not active.")
    if image.min_ram > flavor.memory_mib:
        raise BadRequest("Flavor's memory is too small for requested image.")
    if flavor.root_gib:
        if image.min_disk > flavor.root_gib:
            raise BadRequest("The size of the flavor's disk is too small: the image's min_disk is larger.")
        size = max(image.size or 0, image.virtual_size or 0)
        if size > flavor.root_gib * 1024**3:
            raise BadRequest(
                f"Flavor's disk is too small for requested image. Flavor disk is {flavor.root_gib * 1024**3} "
                f"bytes, image is {size} bytes."
            )
    return image


def _image_properties(image: Image | None) -> dict[str, Any]:
    return {} if image is None else {**image.properties, "disk_format": image.disk_format}


def _or_bad_request(look: Callable[[], Any], message: str) -> Any:
    """What a body names and is not there is a bad request, as the Compute API has it, not a missing page."""
    try:
        return look()
    except NotFound:
        raise BadRequest(message) from None


def _zone(tx: Tx, request: ServerRequest, default_zone: str) -> tuple[str | None, str | None]:
    """The zone, and the host to force (``zone:host``)."""
    zone, _, rest = (request.availability_zone or "").partition(":")
    if zone not in ("", default_zone) and zone not in aggregates.zone_of_hosts(tx).values():
        raise BadRequest("The requested availability zone is not available")
    host = rest.partition(":")[0]
    if host:
        _or_bad_request(partial(hosts.id_of, tx, host), f"No host {host}.")
    return zone or None, host or None


def _take_quota(tx: Tx, project_id: str, flavor: Flavor, request: ServerRequest) -> int:
    """Take quota for as many servers as fit, between min_count and max_count; how many."""
    one = flavor.quota()
    limit_of, used = quotas.limits(tx, project_id), quotas.used(tx, project_id)
    fits = request.max_count
    for resource, amount in one.items():
        limit = limit_of.get(resource, quotas.UNLIMITED)
        if limit != quotas.UNLIMITED and amount:
            fits = min(fits, max(0, limit - used.get(resource, 0)) // amount)
    count = max(request.min_count, fits)
    quotas.take(tx, project_id, {resource: amount * count for resource, amount in one.items()})
    return count


def _record_action(tx: Tx, ctx: RequestContext, server_id: str, action: str, task_id: str | None, at: datetime) -> None:
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


def hostname_of(name: str, server_id: str) -> str:
    """A host name made of a server's name: letters, digits and hyphens, at most 63; else ``Server-<id>``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    label = re.sub(r"[^a-z0-9-]+", "-", re.sub(r"[ _.]+", "-", plain.lower())).strip("-")[:63].strip("-")
    return label or f"server-{server_id}"


# ---- transactions: changing -------------------------------------------------------------------------------


def _update(tx: Tx, server_id: str, project_id: str | None, changes: dict[str, Any], *, at: datetime) -> None:
    servers.get(tx, server_id, project_id=project_id)
    servers.update(tx, server_id, at=at, **changes)


def _set_metadata(
    tx: Tx, server_id: str, project_id: str | None, items: dict[str, str], *, replace: bool, at: datetime
) -> dict[str, str]:
    server = servers.get(tx, server_id, project_id=project_id)
    metadata = items if replace else {**server.metadata, **items}
    limit = quotas.limits(tx, server.project_id).get("metadata_items", quotas.UNLIMITED)
    if limit != quotas.UNLIMITED and len(metadata) > limit:
        raise QuotaExceeded(resource="metadata_items", limit=limit, used=len(server.metadata), asked=len(items))
    servers.update(tx, server_id, at=at, metadata=metadata)
    return metadata


def _delete_metadata(tx: Tx, server_id: str, project_id: str | None, key: str, *, at: datetime) -> None:
    server = servers.get(tx, server_id, project_id=project_id)
    if key not in server.metadata:
        raise NotFound(kind="Metadata item", id=key)
    left = {name: value for name, value in server.metadata.items() if name != key}
    servers.update(tx, server_id, at=at, metadata=left)


# ---- transactions: actions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """An action that is about to begin."""

    task_id: str
    kind: str
    action: str
    rule_name: str
    rule: Rule
    payload: dict[str, Any]
    at: datetime


def _begin(tx: Tx, ctx: RequestContext, server_id: str, project_id: str | None, order: _Order) -> None:
    """Check the state, write the new one with its task and its action: all or nothing."""
    server = servers.get(tx, server_id, project_id=project_id)
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
    _record_action(tx, ctx, server_id, order.action, order.task_id, order.at)
