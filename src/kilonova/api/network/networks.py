"""Networks of Network v2.0."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.api.network.api import api
from kilonova.api.network.collection import create, listed
from kilonova.api.network.fields import Project, Text, given, owner_of, stamp
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import NotSupported
from kilonova.model.network import Network


class NetworkFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """A network, as it is asked for."""

    name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = field(name="router:external", default=UNSET)
    mtu: Annotated[int, Meta(ge=68, le=9000)] | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    project_id: Project | UnsetType = UNSET
    tenant_id: Project | UnsetType = UNSET
    network_type: str | UnsetType = field(name="provider:network_type", default=UNSET)
    physical_network: str | UnsetType | None = field(name="provider:physical_network", default=UNSET)
    segmentation_id: int | UnsetType | None = field(name="provider:segmentation_id", default=UNSET)
    is_default: bool | UnsetType = UNSET
    availability_zone_hints: list[str] | UnsetType = UNSET
    dns_domain: str | UnsetType = UNSET
    qos_policy_id: str | UnsetType | None = UNSET


class NetworkBody(Struct, kw_only=True):
    """Body of ``POST /networks``."""

    network: NetworkFields | UnsetType = UNSET
    networks: Annotated[list[NetworkFields], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


NETWORK_COLUMNS = {
    "name": "name",
    "description": "description",
    "admin_state_up": "admin_state_up",
    "shared": "shared",
    "external": "external",
    "mtu": "mtu",
    "port_security_enabled": "port_security",
}


def network_view(network: Network, *, as_admin: bool) -> dict[str, Any]:
    """A network as clients see it."""
    view = {
        "id": network.id,
        "name": network.name,
        "description": network.description,
        "admin_state_up": network.admin_state_up,
        "status": "ACTIVE",
        "subnets": list(network.subnet_ids),
        "shared": network.shared,
        "router:external": network.external,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security,
        "project_id": network.project_id,
        "tenant_id": network.project_id,
        "availability_zones": [],
        "availability_zone_hints": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "tags": [],
        "revision_number": 1,
        "created_at": stamp(network.created_at),
        "updated_at": stamp(network.updated_at),
    }
    if as_admin:
        view |= {
            "provider:network_type": "flat",
            "provider:physical_network": None,
            "provider:segmentation_id": None,
        }
    return view


def _check_provider(fields: NetworkFields) -> None:
    if fields.network_type not in (UNSET, "flat"):
        raise NotSupported(f"provider:network_type '{fields.network_type}' is not supported; this cloud has 'flat'.")


@api.route("GET", "/networks")
async def list_networks(cloud: Cloud, req: Request) -> Reply:
    """Networks that the caller sees."""
    found = await cloud.networks.networks(req.ctx)
    return listed(req, "networks", [network_view(network, as_admin=req.ctx.is_admin) for network in found])


@api.route("GET", "/networks/{network_id}")
async def show_network(cloud: Cloud, req: Request, network_id: Uuid) -> Reply:
    """One network."""
    network = await cloud.networks.network(req.ctx, network_id)
    return Reply({"network": network_view(network, as_admin=req.ctx.is_admin)})


@api.route("POST", "/networks", status=201, once=True)
async def create_network(cloud: Cloud, req: Request, body: NetworkBody) -> Reply:
    """New networks."""

    def order(fields: NetworkFields) -> Callable[[], Awaitable[Network]]:
        _check_provider(fields)
        values = given(fields, NETWORK_COLUMNS)
        return partial(cloud.networks.create_network, req.ctx, owner_of(fields), values)

    return await create(req, "network", body, order, partial(network_view, as_admin=req.ctx.is_admin))


@api.route("PUT", "/networks/{network_id}", body_key="network")
async def update_network(cloud: Cloud, req: Request, network_id: Uuid, body: NetworkFields) -> Reply:
    """Change a network."""
    _check_provider(body)
    changed = await cloud.networks.update_network(req.ctx, network_id, given(body, NETWORK_COLUMNS))
    return Reply({"network": network_view(changed, as_admin=req.ctx.is_admin)})


@api.route("DELETE", "/networks/{network_id}", status=204)
async def delete_network(cloud: Cloud, req: Request, network_id: Uuid) -> Reply:
    """Remove a network."""
    await cloud.networks.delete_network(req.ctx, network_id)
    return Reply()
