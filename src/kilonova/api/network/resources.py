"""Networks, subnets and ports of Network v2.0, and the small things that clients look at."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.http.errors import NEUTRON_ERRORS
from kilonova.api.http.paging import neutron_links, page_size
from kilonova.api.http.routing import Api, Extension, Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest, NotSupported
from kilonova.model.network import Network, Port, Subnet

api = Api(
    "network",
    root="/network/v2.0",
    errors=NEUTRON_ERRORS,
    extensions=(
        Extension("binding", "Port Binding"),
        Extension("external-net", "Neutron external network"),
        Extension("net-mtu", "Network MTU"),
        Extension("port-security", "Port Security"),
        Extension("allowed-address-pairs", "Allowed Address Pairs"),
        Extension("standard-attr-description", "standard-attr-description"),
        Extension("standard-attr-timestamp", "Resource timestamps"),
        Extension("project-id", "project_id field enabled"),
        Extension("pagination", "Pagination support"),
        Extension("sorting", "Sorting support"),
        Extension("quotas", "Quota management support"),
        Extension("security-group", "security-group"),
        Extension("agent", "agent"),
    ),
)

Text = Annotated[str, Meta(max_length=255)]
Project = Annotated[str, Meta(max_length=64)]


def stamp(at: Any) -> str:
    """A time as Network v2.0 writes it."""
    return str(at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _set(body: Struct, names: dict[str, str]) -> dict[str, Any]:
    """Columns that the body gives: `names` maps a field to its column."""
    found = {column: getattr(body, name) for name, column in names.items()}
    return {column: value for column, value in found.items() if value is not UNSET}


def owner_of(body: Any) -> str | None:
    """The project that a create body names."""
    for name in ("project_id", "tenant_id"):
        if isinstance(getattr(body, name), str):
            return str(getattr(body, name))
    return None


# ---- lists --------------------------------------------------------------------------------------------------

_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir", "fields", "page_reverse"})


def listed(req: Request, name: str, rows: list[dict[str, Any]]) -> Reply:
    """A collection as the query wants it: filtered (a repeated parameter is any of), sorted, paged, cut to fields."""
    wanted: dict[str, list[str]] = {}
    keys, directions, fields = [], [], set()
    limit = marker = None
    for key, value in req.params:
        if key == "limit":
            limit = value
        elif key == "marker":
            marker = value
        elif key == "sort_key":
            keys.append(value)
        elif key == "sort_dir":
            directions.append(value)
        elif key == "fields":
            fields.add(value)
        elif key not in _PAGING:
            wanted.setdefault("project_id" if key == "tenant_id" else key, []).append(value)
    found = [row for row in rows if all(_matches(row, key, values) for key, values in wanted.items())]
    for key, direction in reversed(list(zip(keys, directions + ["asc"] * len(keys), strict=False))):
        found.sort(key=lambda row, key=key: str(row.get(key, "")), reverse=direction == "desc")  # type: ignore[misc]
    if marker is not None:
        places = [index for index, row in enumerate(found) if row["id"] == marker]
        if not places:
            raise BadRequest(f"Invalid input for marker: {marker} is not in this list.")
        found = found[places[0] + 1 :]
    body: dict[str, Any] = {}
    if limit is not None:
        size = page_size(limit)
        found = found[:size]
        body[f"{name}_links"] = neutron_links(req, size, [row["id"] for row in found])
    if fields:
        found = [{key: value for key, value in row.items() if key in fields} for row in found]
    return Reply({name: found, **body})


def _matches(row: dict[str, Any], key: str, values: list[str]) -> bool:
    if key == "fixed_ips":
        pairs = [value.partition("=")[::2] for value in values]
        return all(any(fixed.get(k) == v for fixed in row["fixed_ips"]) for k, v in pairs)
    if key not in row:
        return True  # a filter of an extension that is not here: nothing to hold against the row
    have = row[key]
    if isinstance(have, bool):
        return any(have == (value.lower() in ("true", "1")) for value in values)
    return str(have) in values


def items_of(body: Any, one: str) -> tuple[list[Any], bool]:
    """What a create body asks for: one thing, or many at once."""
    many = getattr(body, f"{one}s")
    single = getattr(body, one)
    if (many is UNSET) == (single is UNSET):
        raise BadRequest(f"The body needs either '{one}' or '{one}s'.")
    return ([single], False) if many is UNSET else (list(many), True)


def made_reply(one: str, views: list[dict[str, Any]], many: bool) -> Reply:
    return Reply({f"{one}s": views} if many else {one: views[0]})


def last_made(one: str, views: list[dict[str, Any]], count: int, many: bool) -> Reply | None:
    return made_reply(one, views, many) if len(views) == count else None


# ---- networks -----------------------------------------------------------------------------------------------


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
    items, many = items_of(body, "network")
    views: list[dict[str, Any]] = []
    req.answers_with(
        lambda made: last_made("network", [*views, network_view(made, as_admin=req.ctx.is_admin)], len(items), many)
    )
    for fields in items:
        _check_provider(fields)
        made = await cloud.networks.create_network(req.ctx, owner_of(fields), _set(fields, NETWORK_COLUMNS))
        views.append(network_view(made, as_admin=req.ctx.is_admin))
    return made_reply("network", views, many)


@api.route("PUT", "/networks/{network_id}", body_key="network")
async def update_network(cloud: Cloud, req: Request, network_id: Uuid, body: NetworkFields) -> Reply:
    """Change a network."""
    _check_provider(body)
    changed = await cloud.networks.update_network(req.ctx, network_id, _set(body, NETWORK_COLUMNS))
    return Reply({"network": network_view(changed, as_admin=req.ctx.is_admin)})


@api.route("DELETE", "/networks/{network_id}", status=204)
async def delete_network(cloud: Cloud, req: Request, network_id: Uuid) -> Reply:
    """Remove a network."""
    await cloud.networks.delete_network(req.ctx, network_id)
    return Reply()


# ---- subnets ------------------------------------------------------------------------------------------------


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
    values = _set(fields, plain)
    if not isinstance(fields.dns_nameservers, UnsetType):
        values["dns"] = [_ip("dns_nameservers", text) for text in fields.dns_nameservers]
    if not isinstance(fields.host_routes, UnsetType):
        values["host_routes"] = [
            {"destination": r.destination, "nexthop": _ip("host_routes", r.nexthop)} for r in fields.host_routes
        ]
    if not isinstance(fields.allocation_pools, UnsetType):
        values["pools"] = [(pool.start, pool.end) for pool in fields.allocation_pools]
    return values


def _ip(name: str, text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise BadRequest(f"Invalid input for {name}. Reason: '{text[:60]}' is not a valid IP address.") from None


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
    items, many = items_of(body, "subnet")
    views: list[dict[str, Any]] = []
    req.answers_with(lambda made: last_made("subnet", [*views, subnet_view(made)], len(items), many))
    for fields in items:
        if isinstance(fields.network_id, UnsetType):
            raise BadRequest("Failed to parse request. Required attribute 'network_id' not specified.")
        values = _subnet_values(fields)
        if "cidr" not in values:
            raise BadRequest("Failed to parse request. Required attribute 'cidr' not specified.")
        made = await cloud.networks.create_subnet(req.ctx, owner_of(fields), fields.network_id, values)
        views.append(subnet_view(made))
    return made_reply("subnet", views, many)


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


# ---- ports --------------------------------------------------------------------------------------------------


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
    values = _set(fields, PORT_COLUMNS)
    if isinstance(fields.security_groups, list):
        values["security_groups"] = fields.security_groups
    if isinstance(fields.host_id, str):
        values["host"] = fields.host_id
    if not isinstance(fields.allowed_address_pairs, UnsetType):
        values["allowed_address_pairs"] = [
            {"ip_address": _pair_ip(pair.ip_address), "mac_address": pair.mac_address}
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
            one["ip_address"] = _ip("fixed_ips", fixed.ip_address)
        if not one:
            raise BadRequest("Invalid input for fixed_ips: give each a subnet_id or an ip_address.")
        wanted.append(one)
    return values, wanted


def _pair_ip(text: str) -> str:
    """An address, or a block in its canonical form: it goes into the hosts' rules as it stands."""
    if "/" not in text:
        return _ip("allowed_address_pairs", text)
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
    items, many = items_of(body, "port")
    views: list[dict[str, Any]] = []
    req.answers_with(
        lambda made: last_made("port", [*views, port_view(made, as_admin=req.ctx.is_admin)], len(items), many)
    )
    for fields in items:
        if isinstance(fields.network_id, UnsetType):
            raise BadRequest("Failed to parse request. Required attribute 'network_id' not specified.")
        values, fixed_ips = _port_values(fields)
        made = await cloud.networks.create_port(req.ctx, owner_of(fields), fields.network_id, values, fixed_ips)
        views.append(port_view(made, as_admin=req.ctx.is_admin))
    return made_reply("port", views, many)


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


# ---- what clients look at besides -----------------------------------------------------------------------------

QUOTAS = ("network", "subnet", "port", "security_group", "security_group_rule")


@api.route("GET", "/quotas/{project_id}")
async def show_quota(cloud: Cloud, req: Request, project_id: str) -> Reply:
    """A project's limits."""
    if project_id != req.ctx.project_id:
        cloud.parts.policy.authorize(req.ctx, "create_network:shared", {"project_id": project_id})
    quota = await cloud.hosts.quota(project_id)
    return Reply({"quota": {name: quota[name][0] for name in QUOTAS if name in quota}})


def _empty(name: str) -> Callable[..., Any]:
    async def nothing(cloud: Cloud, req: Request) -> Reply:
        return Reply({name.replace("-", "_"): []})

    nothing.__doc__ = f"This cloud has no {name} yet; clients ask all the same."
    return nothing


for _name in ("floatingips", "routers"):
    api.route("GET", f"/{_name}")(_empty(_name))
