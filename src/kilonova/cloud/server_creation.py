"""The making of servers: what a request may ask for, and the one transaction that writes all of it or nothing."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from kilonova.cloud.server_actions import record_action
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, NotFound, QuotaExceeded
from kilonova.model.flavor import Flavor
from kilonova.model.image import Image
from kilonova.model.keypair import KeyPair
from kilonova.model.server import RequestedNetwork, Server, ServerOrder
from kilonova.model.server_group import ServerGroupRecord
from kilonova.model.states import PowerState, TaskState, VMState
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

MAX_USER_DATA = 65535
"""Bytes of user data, base64 included, as the Compute API has it."""

MAX_FILE = 10240
"""Bytes of one file of ``personality``, as the default quota of the Compute API has it."""


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


def check(request: ServerRequest) -> None:
    """What can be said of a request without looking anything up.

    Raises:
        BadRequest
    """
    if request.min_count > request.max_count:
        raise BadRequest("min_count must be <= max_count")
    check_user_data(request.user_data)
    check_files(request.personality)
    if isinstance(request.networks, list) and request.max_count > 1:
        for network in request.networks:
            if network.port_id:
                raise BadRequest("A port can be given to one server only: ask for one server (max_count 1).")
            if network.fixed_ip:
                raise BadRequest("An address can be given to one server only: ask for one server (max_count 1).")


def check_files(files: Sequence[Mapping[str, str]]) -> None:
    """Whether `files` can be given to a guest: base64, and each at most `MAX_FILE` bytes.

    Raises:
        BadRequest
    """
    for file in files:
        try:
            contents = base64.b64decode(file["contents"], validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest(f"Personality content for {file['path']} cannot be decoded: it is not base64.") from None
        if len(contents) > MAX_FILE:
            raise BadRequest(f"personality: {file['path']} has {len(contents)} bytes; the limit is {MAX_FILE}.")


def check_user_data(text: str | None) -> None:
    """Whether `text` is base64 and not too long.

    Raises:
        BadRequest
    """
    if text is None:
        return
    if len(text) > MAX_USER_DATA:
        raise BadRequest(f"user_data is longer than {MAX_USER_DATA} characters.")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("user_data is not valid base64.") from None


@dataclass(frozen=True)
class Plan:
    """Everything of chance and time that a create needs, drawn before its transaction."""

    ids: list[str]
    task_ids: list[str]
    reservation_id: str
    admin_password: str
    at: datetime
    config_drive: bool
    default_zone: str


def create(tx: Tx, ctx: RequestContext, request: ServerRequest, plan: Plan) -> list[Server]:
    flavor = _flavor(tx, ctx, request)
    image = usable_image(tx, ctx, request.image_id, flavor)
    key = key_of(tx, ctx, request.key_name)
    zone, force_host = _zone(tx, request, plan.default_zone)
    check_metadata(tx, ctx.project_id, request.metadata)
    if request.requested_host is not None:
        or_bad_request(partial(hosts.id_of, tx, request.requested_host), f"No host {request.requested_host}.")
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
        image_properties=image_properties(image),
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
        record_action(tx, ctx, server_id, "create", task_id, plan.at)
    return [servers.get(tx, server_id) for server_id in plan.ids[:count]]


def _group(tx: Tx, ctx: RequestContext, hints: Mapping[str, Any]) -> ServerGroupRecord | None:
    """The server group that the hint ``group`` names."""
    group_id = hints.get("group")
    if group_id is None:
        return None
    group: ServerGroupRecord = or_bad_request(
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
    flavor: Flavor = or_bad_request(
        partial(flavors.get, tx, request.flavor_id, project_id=visible_to),
        f"Flavor {request.flavor_id} could not be found.",
    )
    return flavor


def key_of(tx: Tx, ctx: RequestContext, name: str | None) -> KeyPair | None:
    """The caller's key pair of that name; None for none.

    Raises:
        BadRequest
    """
    if name is None:
        return None
    key: KeyPair = or_bad_request(partial(keypairs.get, tx, ctx.user_id, name), "Invalid key_name provided.")
    return key


def check_metadata(tx: Tx, project_id: str, metadata: Mapping[str, str], *, used: int = 0) -> None:
    """Whether a server may have all of `metadata`; `used`: how many items it has now.

    Raises:
        QuotaExceeded
    """
    if not metadata:
        return
    limit = quotas.limits(tx, project_id).get("metadata_items", quotas.UNLIMITED)
    if limit != quotas.UNLIMITED and len(metadata) > limit:
        raise QuotaExceeded(resource="metadata_items", limit=limit, used=used, asked=len(metadata))


def usable_image(tx: Tx, ctx: RequestContext, image_id: str, flavor: Flavor) -> Image:
    """The image, if the caller may boot from it and a server of `flavor` can hold it.

    Raises:
        BadRequest
    """
    if not image_id:
        raise BadRequest("Invalid imageRef provided: a server needs an image.")
    image: Image = or_bad_request(
        partial(images.get_usable, tx, image_id, project_id=ctx.project_id, is_admin=ctx.is_admin),
        f"Image {image_id} could not be found.",
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


def image_properties(image: Image) -> dict[str, Any]:
    """What of an image the scheduler and the guest's layout go by."""
    return {**image.properties, "disk_format": image.disk_format}


def or_bad_request(look: Callable[[], Any], message: str) -> Any:
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
        or_bad_request(partial(hosts.id_of, tx, host), f"No host {host}.")
    return zone or None, host or None


def _take_quota(tx: Tx, project_id: str, flavor: Flavor, request: ServerRequest) -> int:
    """Take quota for as many servers as fit, between min_count and max_count; how many."""
    one = flavor.quota()
    count = request.min_count
    if request.max_count > count:
        count = max(count, _how_many_fit(tx, project_id, one, request.max_count))
    quotas.take(tx, project_id, {resource: amount * count for resource, amount in one.items()})
    return count


def _how_many_fit(tx: Tx, project_id: str, one: Mapping[str, int], most: int) -> int:
    limit_of, used = quotas.limits(tx, project_id), quotas.used(tx, project_id)
    for resource, amount in one.items():
        limit = limit_of.get(resource, quotas.UNLIMITED)
        if limit != quotas.UNLIMITED and amount:
            most = min(most, max(0, limit - used.get(resource, 0)) // amount)
    return most


def hostname_of(name: str, server_id: str) -> str:
    """A host name made of a server's name: letters, digits and hyphens, at most 63; else ``Server-<id>``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    label = re.sub(r"[^a-z0-9-]+", "-", re.sub(r"[ _.]+", "-", plain.lower())).strip("-")[:63].strip("-")
    return label or f"server-{server_id}"
