"""Subnets of Network v2.0."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.api.network.api import api
from kilonova.api.network.collection import create, listed
from kilonova.api.network.fields import Project, Text, address, given, owner_of, stamp
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest
from kilonova.model.network import Subnet


class Pool(Struct, forbid_unknown_fields=True):
    """One of ``allocation_pools``."""

    start: str
    end: str


class HostRoute(Struct, forbid_unknown_fields=True):
    """One of ``host_routes``."""

    destination: str
    nexthop: str


class SubnetFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """A subnet, as it is asked for."""

    network_id: Uuid | UnsetType = UNSET
    cidr: str | UnsetType = UNSET
    ip_version: int = 4
    name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    gateway_ip: str | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: Annotated[list[str], Meta(max_length=20)] | UnsetType = UNSET
    host_routes: Annotated[list[HostRoute], Meta(max_length=20)] | UnsetType = UNSET
    allocation_pools: Annotated[list[Pool], Meta(max_length=20)] | UnsetType = UNSET
    project_id: Project | UnsetType = UNSET
    tenant_id: Project | UnsetType = UNSET
    ipv6_ra_mode: str | UnsetType | None = UNSET
    ipv6_address_mode: str | UnsetType | None = UNSET
    subnetpool_id: str | UnsetType | None = UNSET
    use_default_subnetpool: bool | UnsetType = UNSET
    segment_id: str | UnsetType | None = UNSET
    service_types: list[str] | UnsetType = UNSET
    dns_publish_fixed_ip: bool | UnsetType = UNSET


class SubnetBody(Struct, kw_only=True):
    """Body of ``POST /subnets``."""

    subnet: SubnetFields | UnsetType = UNSET
    subnets: Annotated[list[SubnetFields], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


def subnet_view(subnet: Subnet) -> dict[str, Any]:
    """A subnet as clients see it."""
    return {
        "id": subnet.id,
        "network_id": subnet.network_id,
        "name": subnet.name,
        "description": subnet.description,
        "ip_version": 4,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "enable_dhcp": subnet.enable_dhcp,
        "dns_nameservers": subnet.dns,
        "host_routes": subnet.host_routes,
        "allocation_pools": [{"start": low, "end": high} for low, high in subnet.pools],
        "project_id": subnet.project_id,
        "tenant_id": subnet.project_id,
        "ipv6_ra_mode": None,
        "ipv6_address_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        "tags": [],
        "revision_number": 1,
        "created_at": stamp(subnet.created_at),
        "updated_at": stamp(subnet.updated_at),
    }


def _subnet_values(fields: SubnetFields) -> dict[str, Any]:
    if fields.ip_version != 4:
        raise BadRequest("Invalid input for ip_version. Reason: this cloud has IPv4 only.")
    if isinstance(fields.subnetpool_id, str) or fields.use_default_subnetpool is True:
        raise BadRequest("Subnet pools are not supported: give a cidr.")
    plain = {name: name for name in ("cidr", "name", "description", "gateway_ip", "enable_dhcp")}
    values = given(fields, plain)
    if not isinstance(fields.dns_nameservers, UnsetType):
        values["dns"] = [address("dns_nameservers", text) for text in fields.dns_nameservers]
    if not isinstance(fields.host_routes, UnsetType):
        values["host_routes"] = [
            {"destination": r.destination, "nexthop": address("host_routes", r.nexthop)} for r in fields.host_routes
        ]
    if not isinstance(fields.allocation_pools, UnsetType):
        values["pools"] = [(pool.start, pool.end) for pool in fields.allocation_pools]
    return values


@api.route("GET", "/subnets")
async def list_subnets(cloud: Cloud, req: Request) -> Reply:
    """Subnets that the caller sees."""
    return listed(req, "subnets", [subnet_view(subnet) for subnet in await cloud.networks.subnets(req.ctx)])


@api.route("GET", "/subnets/{subnet_id}")
async def show_subnet(cloud: Cloud, req: Request, subnet_id: Uuid) -> Reply:
    """One subnet."""
    return Reply({"subnet": subnet_view(await cloud.networks.subnet(req.ctx, subnet_id))})


@api.route("POST", "/subnets", status=201, once=True)
async def create_subnet(cloud: Cloud, req: Request, body: SubnetBody) -> Reply:
    """New subnets."""

    def order(fields: SubnetFields) -> Callable[[], Awaitable[Subnet]]:
        if isinstance(fields.network_id, UnsetType):
            raise BadRequest("Failed to parse request. Required attribute 'network_id' not specified.")
        values = _subnet_values(fields)
        if "cidr" not in values:
            raise BadRequest("Failed to parse request. Required attribute 'cidr' not specified.")
        return partial(cloud.networks.create_subnet, req.ctx, owner_of(fields), fields.network_id, values)

    return await create(req, "subnet", body, order, subnet_view)


@api.route("PUT", "/subnets/{subnet_id}", body_key="subnet")
async def update_subnet(cloud: Cloud, req: Request, subnet_id: Uuid, body: SubnetFields) -> Reply:
    """Change a subnet."""
    values = _subnet_values(body)
    for name in ("cidr", "gateway_ip"):
        if name in values:
            raise BadRequest(f"Cannot update read-only attribute {name}.")
    return Reply({"subnet": subnet_view(await cloud.networks.update_subnet(req.ctx, subnet_id, values))})


@api.route("DELETE", "/subnets/{subnet_id}", status=204)
async def delete_subnet(cloud: Cloud, req: Request, subnet_id: Uuid) -> Reply:
    """Remove a subnet."""
    await cloud.networks.delete_subnet(req.ctx, subnet_id)
    return Reply()
