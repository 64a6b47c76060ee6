"""``/servers`` of the Compute API v2.1: create, list, show, update, delete, and their metadata and addresses."""

import ipaddress
import re
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.compute.api import api
from kilonova.api.compute.server_views import BRIEF, Shown, detail, plain_addresses, power_state, sees_admin_fields
from kilonova.api.compute.shared import MetadataKey, MetadataValue, Name, Text, boolean, links, moment
from kilonova.api.http.microversions import Version
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Since, Until
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.server_creation import Created, ServerRequest
from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.server import Page, RequestedNetwork, ServerFilter
from kilonova.model.states import STATUSES, VMState

UuidText = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Tag = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[^,/]*$")]
Hostname = Annotated[str, Meta(min_length=2, max_length=63, pattern=r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$")]
ServerMetadata = dict[MetadataKey, MetadataValue]
Reference = Annotated[str, Meta(max_length=1024)]


NETWORKS_REQUIRED = Version(2, 37)


class NetworkWish(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``networks``."""

    uuid: UuidText | None = None
    port: UuidText | None = None
    fixed_ip: Annotated[str, Meta(max_length=64)] | None = None
    tag: Annotated[Tag | None, Since("2.32")] = None


class BlockDevice(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``block_device_mapping_v2``. Here the image on a local disk is the only one that can be had."""

    source_type: str
    destination_type: str = "local"
    uuid: UuidText | None = None
    boot_index: int | str | None = None
    delete_on_termination: bool | str = True
    volume_size: int | str | None = None
    device_name: str | None = None
    device_type: str | None = None
    disk_bus: str | None = None
    guest_format: str | None = None
    no_device: bool | str | None = None
    tag: Annotated[Tag | None, Since("2.32")] = None
    volume_type: Annotated[str | None, Since("2.67")] = None


class SecurityGroup(Struct, forbid_unknown_fields=True):
    """One of ``security_groups``."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]


class File(Struct, forbid_unknown_fields=True):
    """One of ``personality``: a file for the guest, contents in base64."""

    path: Annotated[str, Meta(min_length=1, max_length=255)]
    contents: Annotated[str, Meta(max_length=16384)]


class ServerCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """``server`` in the body of ``POST /servers``. A field newer than the request's microversion is unknown."""

    name: Name
    flavor_ref: Annotated[str, Meta(min_length=1, max_length=1024)] | int = field(name="flavorRef")
    image_ref: Reference = field(name="imageRef", default="")
    admin_pass: Annotated[str, Meta(min_length=1, max_length=255)] | None = field(name="adminPass", default=None)
    metadata: ServerMetadata = {}
    networks: Annotated[list[NetworkWish], Meta(max_length=32)] | str | UnsetType = UNSET
    key_name: Name | None = None
    user_data: str | None = None
    availability_zone: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    config_drive: bool | str | None = None
    security_groups: Annotated[list[SecurityGroup], Meta(max_length=64)] = []
    block_device_mapping_v2: Annotated[list[BlockDevice], Meta(max_length=64)] = []
    personality: Annotated[Annotated[list[File], Meta(max_length=5)], Until("2.56")] = []
    min_count: int | str = 1
    max_count: int | str | UnsetType = UNSET
    return_reservation_id: bool | str = False
    access_ipv4: Annotated[str, Meta(max_length=64)] = field(name="accessIPv4", default="")
    access_ipv6: Annotated[str, Meta(max_length=64)] = field(name="accessIPv6", default="")
    disk_config: str = field(name="OS-DCF:diskConfig", default="MANUAL")
    description: Annotated[Text | None, Since("2.19")] = None
    tags: Annotated[Annotated[list[Tag], Meta(max_length=50)], Since("2.52")] = []
    trusted_image_certificates: Annotated[list[str] | None, Since("2.63")] = None
    host: Annotated[str | None, Since("2.74")] = None
    hypervisor_hostname: Annotated[str | None, Since("2.74")] = None
    hostname: Annotated[Hostname | None, Since("2.90")] = None


class CreateBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /servers``. Scheduler hints have two spellings, both in use."""

    server: ServerCreate
    hints: dict[str, Any] | UnsetType = field(name="os:scheduler_hints", default=UNSET)
    old_hints: dict[str, Any] | UnsetType = field(name="OS-SCH-HNT:scheduler_hints", default=UNSET)


class ServerUpdate(Struct, forbid_unknown_fields=True, kw_only=True):
    """``server`` in the body of ``PUT /servers/{id}``."""

    name: Name | UnsetType = UNSET
    access_ipv4: Annotated[str, Meta(max_length=64)] | UnsetType = field(name="accessIPv4", default=UNSET)
    access_ipv6: Annotated[str, Meta(max_length=64)] | UnsetType = field(name="accessIPv6", default=UNSET)
    disk_config: str | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)
    description: Annotated[Text | UnsetType | None, Since("2.19")] = UNSET
    hostname: Annotated[Hostname | UnsetType, Since("2.90")] = UNSET


class MetadataBody(Struct, forbid_unknown_fields=True):
    """Body of ``POST`` and ``PUT /servers/{id}/metadata``."""

    metadata: ServerMetadata


class MetaBody(Struct, forbid_unknown_fields=True):
    """Body of ``PUT /servers/{id}/metadata/{key}``."""

    meta: ServerMetadata


class ServerQuery(Struct, kw_only=True):
    """Query of the lists of servers."""

    limit: str | None = None
    marker: str | None = None
    sort_key: list[str] = []
    sort_dir: list[str] = []
    all_tenants: str | None = None
    deleted: str | None = None
    changes_since: str | None = field(name="changes-since", default=None)
    changes_before: Annotated[str | None, Since("2.66")] = field(name="changes-before", default=None)
    name: str | None = None
    status: list[str] = []
    image: str | None = None
    flavor: str | None = None
    host: str | None = None
    ip: str | None = None
    ip6: str | None = None
    uuid: str | None = None
    project_id: str | None = None
    tenant_id: str | None = None
    user_id: str | None = None
    reservation_id: str | None = None
    availability_zone: str | None = None
    key_name: str | None = None
    vm_state: str | None = None
    task_state: str | None = None
    power_state: str | None = None
    locked: Annotated[str | None, Since("2.73")] = None
    tags: Annotated[str | None, Since("2.26")] = None
    tags_any: Annotated[str | None, Since("2.26")] = field(name="tags-any", default=None)
    not_tags: Annotated[str | None, Since("2.26")] = field(name="not-tags", default=None)
    not_tags_any: Annotated[str | None, Since("2.26")] = field(name="not-tags-any", default=None)


# ---- create -------------------------------------------------------------------------------------------------


@api.route("POST", "/servers", policy="os_compute_api:servers:create", status=202, once=True)
async def create_server(cloud: Cloud, req: Request, body: CreateBody) -> Reply:
    """Accept one server or several equal ones. The build goes on as a task; the client polls the Location."""
    request = _request(body.server, body, networks_required=req.microversion >= NETWORKS_REQUIRED)
    by_reservation = bool(boolean("return_reservation_id", str(body.server.return_reservation_id)))
    render = partial(_created, req, by_reservation)
    req.answers_with(render)
    return render(await cloud.servers.create(req.ctx, request))


def _created(req: Request, by_reservation: bool, made: Created) -> Reply:
    if by_reservation:
        return Reply({"reservation_id": made.reservation_id})
    first = made.servers[0]
    view = {
        "id": first.id,
        "links": links(req, "servers", first.id),
        "OS-DCF:diskConfig": first.disk_config,
        "security_groups": [{"name": name} for name in first.order.security_groups or ["default"]],
        "adminPass": made.admin_password,
    }
    return Reply({"server": view}, {"Location": req.url("servers", first.id)})


def _request(wanted: ServerCreate, body: CreateBody, *, networks_required: bool) -> ServerRequest:
    if wanted.networks is UNSET and networks_required:
        raise BadRequest(
            "Invalid input for field/attribute server. 'networks' is a required property: a list, 'auto' or 'none'."
        )
    if wanted.trusted_image_certificates:
        raise BadRequest("trusted_image_certificates: image signatures are not verified by this cloud.")
    least = _count("min_count", wanted.min_count)
    most = least if isinstance(wanted.max_count, UnsetType) else _count("max_count", wanted.max_count)
    return ServerRequest(
        name=wanted.name.strip(),
        flavor_id=_last(str(wanted.flavor_ref)),
        image_id=_image_of(wanted),
        description=wanted.description,
        key_name=wanted.key_name,
        user_data=wanted.user_data,
        metadata=wanted.metadata,
        tags=list(dict.fromkeys(wanted.tags)),
        networks=_networks(wanted, networks_required),
        availability_zone=wanted.availability_zone,
        requested_host=_same_host(wanted),
        scheduler_hints=_hints(body),
        config_drive=_drive(wanted.config_drive),
        min_count=least,
        max_count=most,
        hostname=wanted.hostname,
        admin_password=wanted.admin_pass,
        access_ipv4=checked_address("accessIPv4", wanted.access_ipv4, version=4),
        access_ipv6=checked_address("accessIPv6", wanted.access_ipv6, version=6),
        disk_config=checked_disk_config(wanted.disk_config),
        personality=[{"path": file.path, "contents": file.contents} for file in wanted.personality],
        security_groups=[group.name for group in wanted.security_groups],
    )


def _last(reference: str) -> str:
    """An id, also where a URL was given that ends in it."""
    return reference.rstrip("/").rsplit("/", 1)[-1]


def _count(name: str, value: int | str) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value):
        value = int(value)
    if isinstance(value, (str, bool)) or not 1 <= value <= MAX_SERVERS:
        raise BadRequest(
            f"Invalid input for field/attribute {name}. Value: {value}. It must be between 1 and {MAX_SERVERS}."
        )
    return value


MAX_SERVERS = 1000
"""Servers that one request can ask for."""


def _image_of(wanted: ServerCreate) -> str:
    """The image, said by imageRef or by the one block device that can be had."""
    image_id = _last(wanted.image_ref)
    for device in wanted.block_device_mapping_v2:
        if device.source_type != "image" or device.destination_type != "local" or str(device.boot_index) != "0":
            raise BadRequest(
                "block_device_mapping_v2: this cloud has no volumes; the only device is the image itself "
                "(source_type image, destination_type local, boot_index 0)."
            )
        if device.uuid is None or (image_id and device.uuid != image_id):
            raise BadRequest("block_device_mapping_v2 and imageRef must name the same image.")
        image_id = device.uuid
    return image_id_of(image_id)


def image_id_of(reference: str) -> str:
    """The image's id, also where a URL was given that ends in it.

    Raises:
        BadRequest
    """
    image_id = _last(reference)
    if not image_id:
        raise BadRequest("Invalid imageRef provided: a server needs an image.")
    if not re.fullmatch(r"[0-9a-fA-F-]{36}", image_id):
        raise BadRequest("Invalid imageRef provided.")
    return image_id


def _networks(wanted: ServerCreate, words_allowed: bool) -> list[RequestedNetwork] | str:
    networks = wanted.networks
    if isinstance(networks, UnsetType):
        return "default"
    if isinstance(networks, str):
        if networks not in ("auto", "none") or not words_allowed:
            raise BadRequest(
                f"Invalid input for field/attribute networks. Value: {networks}. Use a list, 'auto' or 'none'."
            )
        return networks
    for network in networks:
        if (network.uuid is None) == (network.port is None):
            raise BadRequest("Invalid input for field/attribute networks: each needs either a 'uuid' or a 'port'.")
        if network.port is not None and network.fixed_ip is not None:
            raise BadRequest(
                f"Specified Fixed IP '{network.fixed_ip}' cannot be used with port '{network.port}': "
                "port already has a Fixed IP allocated."
            )
        if network.fixed_ip is not None:
            checked_address("fixed_ip", network.fixed_ip, version=4)
    asked = [RequestedNetwork(network_id=n.uuid, port_id=n.port, fixed_ip=n.fixed_ip, tag=n.tag) for n in networks]
    return asked or "default"


def _same_host(wanted: ServerCreate) -> str | None:
    if wanted.host and wanted.hypervisor_hostname and wanted.host != wanted.hypervisor_hostname:
        raise BadRequest("host and hypervisor_hostname name different hosts.")
    return wanted.host or wanted.hypervisor_hostname


def _hints(body: CreateBody) -> dict[str, Any]:
    for hints in (body.hints, body.old_hints):
        if not isinstance(hints, UnsetType):
            return hints
    return {}


def _drive(value: bool | str | None) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return boolean("config_drive", value) if value else None


def checked_address(name: str, text: str, *, version: int) -> str:
    """`text`, if it is empty or an address of IP `version`.

    Raises:
        BadRequest
    """
    if text == "":
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise BadRequest(f"Invalid input for field/attribute {name}. Value: {text}. '{text}' is not a 'ipv{version}'")
    return text


def checked_disk_config(value: str) -> str:
    """`value`, if it is AUTO or MANUAL.

    Raises:
        BadRequest
    """
    if value not in ("AUTO", "MANUAL"):
        raise BadRequest(
            f"Invalid input for field/attribute OS-DCF:diskConfig. Value: {value}. Use 'AUTO' or 'MANUAL'."
        )
    return value


# ---- list and show ------------------------------------------------------------------------------------------


@api.route("GET", "/servers", policy="os_compute_api:servers:index")
async def list_servers(cloud: Cloud, req: Request, query: ServerQuery) -> Reply:
    """Names and ids of servers, newest first."""
    return await _list(cloud, req, query, in_detail=False)


@api.route("GET", "/servers/detail", policy="os_compute_api:servers:detail")
async def list_servers_detail(cloud: Cloud, req: Request, query: ServerQuery) -> Reply:
    """Servers with everything, newest first."""
    return await _list(cloud, req, query, in_detail=True)


async def _list(cloud: Cloud, req: Request, query: ServerQuery, *, in_detail: bool) -> Reply:
    everyone = bool(boolean("all_tenants", query.all_tenants)) if query.all_tenants else query.all_tenants == ""
    wanted = _filter(req, query, everyone)
    limit = page_size(query.limit)
    page = Page(limit=limit, marker=query.marker or None, sort=_sort(query))
    if wanted is None:
        return Reply({"servers": []})
    if in_detail:
        detailed = await cloud.servers.page(req.ctx, wanted, page, all_projects=everyone)
        as_admin = sees_admin_fields(cloud, req)
        shown = [detail(Shown.of(d, req), with_admin_fields=as_admin) for d in detailed]
        ids = [d.server.id for d in detailed]
    else:
        found = await cloud.servers.brief_page(req.ctx, wanted, page, all_projects=everyone)
        shown = [BRIEF.render(Shown(server, [], "", "", [], req), req.microversion) for server in found]
        ids = [server.id for server in found]
    body: dict[str, Any] = {"servers": shown}
    further = next_links(req, limit, ids)
    if further:
        body["servers_links"] = further
    return Reply(body)


def _filter(req: Request, query: ServerQuery, everyone: bool) -> ServerFilter | None:
    """What the query means; None if nothing can match."""
    as_admin = req.ctx.is_admin
    states: tuple[VMState, ...] | None = None
    if query.status:
        by_status = {status: state for state, status in STATUSES.items()}
        states = tuple(by_status[s.upper()] for s in query.status if s.upper() in by_status)
        if not states:
            return None
    power = None
    if query.power_state is not None:
        power = power_state(query.power_state)
        if power is None:
            return None
    if query.name is not None:
        try:
            re.compile(query.name)
        except re.error:
            raise BadRequest(f"Invalid input for query parameters name: '{query.name}' is no pattern.") from None
    since, before = moment("changes-since", query.changes_since), moment("changes-before", query.changes_before)
    if since is not None and before is not None and since > before:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    return ServerFilter(
        project_id=(query.project_id or query.tenant_id) if everyone else None,
        user_id=query.user_id if as_admin else None,
        name=query.name,
        status=states,
        vm_state=query.vm_state if as_admin else None,
        task_state=query.task_state if as_admin else None,
        power_state=None if power is None else int(power),
        host=query.host if as_admin else None,
        image_id=_last(query.image) if query.image else None,
        flavor_id=_last(query.flavor) if query.flavor else None,
        availability_zone=query.availability_zone,
        key_name=query.key_name,
        reservation_id=query.reservation_id,
        ids=(query.uuid,) if query.uuid else None,
        ip=query.ip or query.ip6,
        changed_since=since,
        changed_before=before,
        tags_all=_tags(query.tags),
        tags_any=_tags(query.tags_any),
        not_tags_all=_tags(query.not_tags),
        not_tags_any=_tags(query.not_tags_any),
        locked=boolean("locked", query.locked),
        deleted=as_admin and bool(boolean("deleted", query.deleted)),
    )


def _tags(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _sort(query: ServerQuery) -> tuple[tuple[str, str], ...]:
    if not query.sort_key:
        if query.sort_dir and query.sort_dir[0] in ("asc", "desc"):
            return (("created_at", query.sort_dir[0]),)
        return (("created_at", "desc"),)
    directions = [*query.sort_dir, *["desc"] * len(query.sort_key)]
    if any(direction not in ("asc", "desc") for direction in directions):
        raise BadRequest("Unknown sort direction, must be 'desc' or 'asc'.")
    return tuple(zip(query.sort_key, directions, strict=False))


@api.route("GET", "/servers/{server_id}", policy="os_compute_api:servers:show")
async def show_server(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """One server."""
    detailed = await cloud.servers.get(req.ctx, server_id)
    view = detail(Shown.of(detailed, req), with_admin_fields=sees_admin_fields(cloud, req))
    return Reply({"server": view})


# ---- update and delete --------------------------------------------------------------------------------------


@api.route("PUT", "/servers/{server_id}", policy="os_compute_api:servers:update", body_key="server")
async def update_server(cloud: Cloud, req: Request, server_id: str, body: ServerUpdate) -> Reply:
    """Change a server's name, description, access addresses or host name."""
    changes: dict[str, Any] = {
        name: value
        for name in ("name", "access_ipv4", "access_ipv6", "disk_config", "description", "hostname")
        if (value := getattr(body, name)) is not UNSET
    }
    if "disk_config" in changes:
        checked_disk_config(changes["disk_config"])
    if "access_ipv4" in changes:
        checked_address("accessIPv4", changes["access_ipv4"], version=4)
    if "access_ipv6" in changes:
        checked_address("accessIPv6", changes["access_ipv6"], version=6)
    detailed = await cloud.servers.update(req.ctx, server_id, changes)
    view = detail(Shown.of(detailed, req), with_admin_fields=sees_admin_fields(cloud, req))
    return Reply({"server": view})


@api.route("DELETE", "/servers/{server_id}", policy="os_compute_api:servers:delete", status=204)
async def delete_server(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """Delete a server, whatever state it is in."""
    await cloud.servers.delete(req.ctx, server_id)
    return Reply()


# ---- metadata -----------------------------------------------------------------------------------------------


@api.route("GET", "/servers/{server_id}/metadata", policy="os_compute_api:server-metadata:index")
async def list_metadata(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """A server's metadata."""
    return Reply({"metadata": await cloud.servers.metadata(req.ctx, server_id)})


@api.route("POST", "/servers/{server_id}/metadata", policy="os_compute_api:server-metadata:create")
async def add_metadata(cloud: Cloud, req: Request, server_id: str, body: MetadataBody) -> Reply:
    """Add metadata, or change some."""
    return Reply({"metadata": await cloud.servers.set_metadata(req.ctx, server_id, body.metadata, replace=False)})


@api.route("PUT", "/servers/{server_id}/metadata", policy="os_compute_api:server-metadata:update_all")
async def replace_metadata(cloud: Cloud, req: Request, server_id: str, body: MetadataBody) -> Reply:
    """Put other metadata in place of all."""
    return Reply({"metadata": await cloud.servers.set_metadata(req.ctx, server_id, body.metadata, replace=True)})


@api.route("GET", "/servers/{server_id}/metadata/{key}", policy="os_compute_api:server-metadata:show")
async def show_metadata_item(cloud: Cloud, req: Request, server_id: str, key: str) -> Reply:
    """One item."""
    metadata = await cloud.servers.metadata(req.ctx, server_id)
    if key not in metadata:
        raise NotFound(kind="Metadata item", id=key)
    return Reply({"meta": {key: metadata[key]}})


@api.route("PUT", "/servers/{server_id}/metadata/{key}", policy="os_compute_api:server-metadata:update")
async def set_metadata_item(cloud: Cloud, req: Request, server_id: str, key: str, body: MetaBody) -> Reply:
    """Set one item."""
    if list(body.meta) != [key]:
        raise BadRequest("Request body and URI mismatch: the body must have exactly the key in the URL.")
    await cloud.servers.set_metadata(req.ctx, server_id, body.meta, replace=False)
    return Reply({"meta": body.meta})


@api.route("DELETE", "/servers/{server_id}/metadata/{key}", policy="os_compute_api:server-metadata:delete", status=204)
async def delete_metadata_item(cloud: Cloud, req: Request, server_id: str, key: str) -> Reply:
    """Remove one item."""
    await cloud.servers.delete_metadata(req.ctx, server_id, key)
    return Reply()


# ---- addresses ----------------------------------------------------------------------------------------------


@api.route("GET", "/servers/{server_id}/ips", policy="os_compute_api:ips:index")
async def list_addresses(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """A server's addresses, by network."""
    return Reply({"addresses": plain_addresses((await cloud.servers.get(req.ctx, server_id)).ports)})


@api.route("GET", "/servers/{server_id}/ips/{network}", policy="os_compute_api:ips:show")
async def show_addresses(cloud: Cloud, req: Request, server_id: str, network: str) -> Reply:
    """A server's addresses on one network."""
    found = plain_addresses((await cloud.servers.get(req.ctx, server_id)).ports)
    if network not in found:
        raise NotFound(kind="Network", id=network)
    return Reply({network: found[network]})
