"""Ports of Network v2.0."""

from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Network
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.api.network.api import api
from kilonova.api.network.collection import create, listed
from kilonova.api.network.fields import Project, Text, address, given, owner_of, stamp
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest, NotSupported
from kilonova.model.network import Port


class FixedIpFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``fixed_ips``."""

    subnet_id: Uuid | None = None
    ip_address: str | None = None


class AddressPair(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``allowed_address_pairs``."""

    ip_address: str
    mac_address: str | None = None


class PortFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """A port, as it is asked for."""

    network_id: Uuid | UnsetType = UNSET
    name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    mac_address: Annotated[str, Meta(max_length=32)] | UnsetType = UNSET
    fixed_ips: Annotated[list[FixedIpFields], Meta(max_length=20)] | UnsetType = UNSET
    device_id: Text | UnsetType = UNSET
    device_owner: Text | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    allowed_address_pairs: Annotated[list[AddressPair], Meta(max_length=20)] | UnsetType = UNSET
    project_id: Project | UnsetType = UNSET
    tenant_id: Project | UnsetType = UNSET
    host_id: Text | UnsetType | None = field(name="binding:host_id", default=UNSET)
    vnic_type: str | UnsetType = field(name="binding:vnic_type", default=UNSET)
    profile: dict[str, Any] | UnsetType | None = field(name="binding:profile", default=UNSET)
    security_groups: list[str] | UnsetType | None = UNSET
    dns_name: str | UnsetType = UNSET
    extra_dhcp_opts: list[dict[str, Any]] | UnsetType = UNSET
    qos_policy_id: str | UnsetType | None = UNSET


class PortBody(Struct, kw_only=True):
    """Body of ``POST /ports``."""

    port: PortFields | UnsetType = UNSET
    ports: Annotated[list[PortFields], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


PORT_COLUMNS = {
    "name": "name",
    "description": "description",
    "admin_state_up": "admin_state_up",
    "mac_address": "mac",
    "device_id": "device_id",
    "device_owner": "device_owner",
    "port_security_enabled": "port_security",
}


def port_view(port: Port, *, as_admin: bool) -> dict[str, Any]:
    """A port as clients see it."""
    view = {
        "id": port.id,
        "network_id": port.network_id,
        "name": port.name,
        "description": port.description,
        "admin_state_up": port.admin_state_up,
        "status": "ACTIVE" if port.host else "DOWN",
        "mac_address": port.mac,
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.address} for ip in port.fixed_ips],
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "port_security_enabled": port.port_security,
        "allowed_address_pairs": port.allowed_address_pairs,
        "security_groups": list(port.security_groups),
        "extra_dhcp_opts": [],
        "binding:vnic_type": "normal",
        "project_id": port.project_id,
        "tenant_id": port.project_id,
        "tags": [],
        "revision_number": 1,
        "created_at": stamp(port.created_at),
        "updated_at": stamp(port.updated_at),
    }
    if as_admin:
        view |= {
            "binding:host_id": port.host,
            "binding:vif_type": "bridge" if port.host else "unbound",
            "binding:vif_details": {"port_filter": True} if port.host else {},
            "binding:profile": {},
        }
    return view


def _port_values(fields: PortFields) -> tuple[dict[str, Any], list[dict[str, str]] | None]:
    if fields.vnic_type not in (UNSET, "normal"):
        raise NotSupported(f"binding:vnic_type '{fields.vnic_type}' is not supported; this cloud has 'normal'.")
    values = given(fields, PORT_COLUMNS)
    if isinstance(fields.security_groups, list):
        values["security_groups"] = fields.security_groups
    if isinstance(fields.host_id, str):
        values["host"] = fields.host_id
    if not isinstance(fields.allowed_address_pairs, UnsetType):
        values["allowed_address_pairs"] = [
            {"ip_address": _pair_address(pair.ip_address), "mac_address": pair.mac_address}
            for pair in fields.allowed_address_pairs
        ]
    if isinstance(fields.fixed_ips, UnsetType):
        return values, None
    wanted = []
    for fixed in fields.fixed_ips:
        one = {}
        if fixed.subnet_id is not None:
            one["subnet_id"] = fixed.subnet_id
        if fixed.ip_address is not None:
            one["ip_address"] = address("fixed_ips", fixed.ip_address)
        if not one:
            raise BadRequest("Invalid input for fixed_ips: give each a subnet_id or an ip_address.")
        wanted.append(one)
    return values, wanted


def _pair_address(text: str) -> str:
    """An address, or a block in its canonical form: it goes into the hosts' rules as it stands."""
    if "/" not in text:
        return address("allowed_address_pairs", text)
    try:
        if not text.isascii():
            raise ValueError
        return str(IPv4Network(text, strict=False))
    except ValueError:
        raise BadRequest(
            f"Invalid input for allowed_address_pairs. Reason: '{text[:60]}' is not a valid IP subnet."
        ) from None


@api.route("GET", "/ports")
async def list_ports(cloud: Cloud, req: Request) -> Reply:
    """Ports of the caller's project; an administrator sees all."""
    devices = [value for key, value in req.params if key == "device_id"]
    found = await cloud.networks.ports(req.ctx, device_id=devices[0] if len(devices) == 1 else None)
    return listed(req, "ports", [port_view(port, as_admin=req.ctx.is_admin) for port in found])


@api.route("GET", "/ports/{port_id}")
async def show_port(cloud: Cloud, req: Request, port_id: Uuid) -> Reply:
    """One port."""
    return Reply({"port": port_view(await cloud.networks.port(req.ctx, port_id), as_admin=req.ctx.is_admin)})


@api.route("POST", "/ports", status=201, once=True)
async def create_port(cloud: Cloud, req: Request, body: PortBody) -> Reply:
    """New ports."""

    def order(fields: PortFields) -> Callable[[], Awaitable[Port]]:
        if isinstance(fields.network_id, UnsetType):
            raise BadRequest("Failed to parse request. Required attribute 'network_id' not specified.")
        return partial(cloud.networks.create_port, req.ctx, owner_of(fields), fields.network_id, *_port_values(fields))

    return await create(req, "port", body, order, partial(port_view, as_admin=req.ctx.is_admin))


@api.route("PUT", "/ports/{port_id}", body_key="port")
async def update_port(cloud: Cloud, req: Request, port_id: Uuid, body: PortFields) -> Reply:
    """Change a port."""
    values, fixed_ips = _port_values(body)
    changed = await cloud.networks.update_port(req.ctx, port_id, values, fixed_ips)
    return Reply({"port": port_view(changed, as_admin=req.ctx.is_admin)})


@api.route("DELETE", "/ports/{port_id}", status=204)
async def delete_port(cloud: Cloud, req: Request, port_id: Uuid) -> Reply:
    """Remove a port."""
    await cloud.networks.delete_port(req.ctx, port_id)
    return Reply()
