"""What a user can do with networks, subnets and ports."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any, ClassVar

from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Conflict, Forbidden, NotFound
from kilonova.model.network import Network, Port, Subnet
from kilonova.store.queries import networks, ports, quotas, security_groups, servers
from kilonova.store.transactions import Tx

HOSTS_MACS = "fa:16:3f"
"""What the MACs of hosts' own bridges begin with; no guest may take a gateway's place."""

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

NOT_FOR_GUESTS = [IPv4Network(block) for block in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")]
"""This network, this host, a link's own (metadata's is there), multicast and what is reserved: RFC 6890."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """``[network]`` of kilonova.conf."""

    section: ClassVar[str] = "network"

    flat_network_name: str = "flat"
    """Name of the network that is made at first start, shared by all projects; empty: none is made."""

    flat_cidr: str = "192.168.233.0/24"
    """Its addresses; if this machine has a route to them already, the next free block of that size."""

    mtu: int = 1500
    """MTU of new networks, in bytes."""


class Networks:
    """Use cases of networks."""

    def __init__(self, parts: Parts, options: NetworkOptions) -> None:
        self._parts = parts
        self._store = parts.store
        self._options = options

    def _scope(self, ctx: RequestContext) -> str | None:
        return None if ctx.is_admin else ctx.project_id

    def _allow(self, ctx: RequestContext, rule: str, project_id: str) -> None:
        self._parts.policy.authorize(ctx, rule, {"project_id": project_id})

    def _owner(self, ctx: RequestContext, project_id: str | None) -> str:
        if project_id and project_id != ctx.project_id and not ctx.is_admin:
            raise Forbidden("Only administrators make things for other projects.")
        return project_id or ctx.project_id

    async def ensure_default(self, project_id: str, routes: Sequence[str]) -> None:
        """At first start: one network that every project can use, not overlapping `routes` of this machine."""
        known = await self._store.read(networks.list_all)
        if known or not self._options.flat_network_name:
            return
        cidr = IPv4Network(self._options.flat_cidr)
        taken = [IPv4Network(route, strict=False) for route in routes]
        while any(cidr.overlaps(other) for other in taken):
            cidr = IPv4Network((int(cidr.network_address) + cidr.num_addresses, cidr.prefixlen))
        ids, now = self._parts.ids, self._parts.clock.now()
        name = self._options.flat_network_name
        network = self._network_row(ids.uuid(), project_id, {"name": name, "shared": True}, now)
        subnet = subnet_row(ids.uuid(), network["id"], project_id, {"name": f"{name}-v4", "cidr": str(cidr)}, now)
        await self._store.run(_insert_first, network, subnet)

    def _network_row(self, id: str, project_id: str, values: dict[str, Any], now: datetime) -> dict[str, Any]:
        return {
            "id": id,
            "project_id": project_id,
            "name": "",
            "description": "",
            "admin_state_up": True,
            "shared": False,
            "external": False,
            "mtu": self._options.mtu,
            "port_security": True,
            **values,
            "created_at": now,
            "updated_at": now,
        }

    # ---- networks -----------------------------------------------------------------------------------

    async def networks(self, ctx: RequestContext) -> list[Network]:
        """Networks that the caller sees."""
        return await self._store.read(networks.list_all, project_id=self._scope(ctx))

    async def network(self, ctx: RequestContext, network_id: str) -> Network:
        """One of them."""
        return await self._store.read(networks.get, network_id, project_id=self._scope(ctx))

    async def create_network(self, ctx: RequestContext, project_id: str | None, values: dict[str, Any]) -> Network:
        """A new network; shared and external ones are made by administrators."""
        owner = self._owner(ctx, project_id)
        self._allow(ctx, "create_network", owner)
        for field, rule in (("shared", "create_network:shared"), ("external", "create_network:router:external")):
            if values.get(field):
                self._allow(ctx, rule, owner)
        row = self._network_row(self._parts.ids.uuid(), owner, values, self._parts.clock.now())
        return await self._store.run(once(ctx, self._parts.clock, _insert_network), row)

    async def update_network(self, ctx: RequestContext, network_id: str, values: dict[str, Any]) -> Network:
        """Change a network."""
        network = await self.network(ctx, network_id)
        self._allow(ctx, "update_network", network.project_id)
        if "shared" in values and values["shared"] != network.shared:
            self._allow(ctx, "update_network:shared", network.project_id)
        return await self._store.run(networks.update, network_id, values, at=self._parts.clock.now())

    async def delete_network(self, ctx: RequestContext, network_id: str) -> None:
        """Remove a network with its subnets."""
        network = await self.network(ctx, network_id)
        self._allow(ctx, "delete_network", network.project_id)
        await self._store.run(_delete_network, network)

    # ---- subnets ------------------------------------------------------------------------------------

    async def subnets(self, ctx: RequestContext) -> list[Subnet]:
        """Subnets that the caller sees."""
        return await self._store.read(networks.list_subnets, project_id=self._scope(ctx))

    async def subnet(self, ctx: RequestContext, subnet_id: str) -> Subnet:
        """One of them."""
        subnet = await self._store.read(networks.get_subnet, subnet_id)
        try:
            await self.network(ctx, subnet.network_id)
        except NotFound:
            raise NotFound(kind="Subnet", id=subnet_id) from None
        return subnet

    async def create_subnet(
        self, ctx: RequestContext, project_id: str | None, network_id: str, values: dict[str, Any]
    ) -> Subnet:
        """A new subnet of a network of the caller's."""
        network = await self.network(ctx, network_id)
        self._allow(ctx, "create_subnet", network.project_id)
        owner = self._owner(ctx, project_id or network.project_id)
        row = subnet_row(self._parts.ids.uuid(), network_id, owner, values, self._parts.clock.now())
        return await self._store.run(once(ctx, self._parts.clock, _insert_subnet), row)

    async def update_subnet(self, ctx: RequestContext, subnet_id: str, values: dict[str, Any]) -> Subnet:
        """Change a subnet's name, DNS servers, routes, pools or DHCP."""
        subnet = await self.subnet(ctx, subnet_id)
        self._allow(ctx, "update_subnet", subnet.project_id)
        if "pools" in values:
            values = {**values, "pools": check_pools(values["pools"], IPv4Network(subnet.cidr), subnet.host_address)}
        return await self._store.run(networks.update_subnet, subnet_id, values, at=self._parts.clock.now())

    async def delete_subnet(self, ctx: RequestContext, subnet_id: str) -> None:
        """Remove a subnet that no port has an address of."""
        subnet = await self.subnet(ctx, subnet_id)
        self._allow(ctx, "delete_subnet", subnet.project_id)
        await self._store.run(_delete_subnet, subnet)

    # ---- ports --------------------------------------------------------------------------------------

    async def ports(self, ctx: RequestContext, *, device_id: str | None = None) -> list[Port]:
        """Ports of the caller's project; an administrator sees all."""
        return await self._store.read(ports.list_all, project_id=self._scope(ctx), device_id=device_id)

    async def port(self, ctx: RequestContext, port_id: str) -> Port:
        """One of them."""
        return await self._store.read(ports.get, port_id, project_id=self._scope(ctx))

    async def create_port(
        self,
        ctx: RequestContext,
        project_id: str | None,
        network_id: str,
        values: dict[str, Any],
        fixed_ips: list[dict[str, str]] | None,
    ) -> Port:
        """A new port on a network that the caller sees."""
        network = await self.network(ctx, network_id)
        owner = self._owner(ctx, project_id)
        self._allow(ctx, "create_port", owner)
        self._check_fields(ctx, "create_port", network, owner, values)
        now = self._parts.clock.now()
        row = {
            "id": self._parts.ids.uuid(),
            "network_id": network_id,
            "project_id": owner,
            "name": "",
            "description": "",
            "mac": ports.new_mac(self._parts.ids),
            "admin_state_up": True,
            "device_id": "",
            "device_owner": "",
            "host": "",
            "hostname": "",
            "auto": False,
            "port_security": network.port_security,
            "allowed_address_pairs": [],
            **values,
            "created_at": now,
            "updated_at": now,
        }
        row["mac"] = check_mac(row["mac"])
        row["allowed_address_pairs"] = check_pairs(row["allowed_address_pairs"])
        groups = row.pop("security_groups", None)
        return await self._store.run(once(ctx, self._parts.clock, _insert_port), row, fixed_ips, groups, ctx.is_admin)

    def _check_fields(
        self, ctx: RequestContext, action: str, network: Network, owner: str, values: dict[str, Any]
    ) -> None:
        """Raise unless the caller may set these fields.

        On a shared network, a port that may speak with others' addresses could take a neighbour's place: only
        the network's owner and administrators may loosen what guards it.
        """
        if values.get("host"):
            self._allow(ctx, f"{action}:binding:host_id", owner)
        if values.get("allowed_address_pairs"):
            self._allow(ctx, f"{action}:allowed_address_pairs", network.project_id)
        if values.get("port_security") is False:
            self._allow(ctx, f"{action}:port_security_enabled", network.project_id)

    async def update_port(
        self, ctx: RequestContext, port_id: str, values: dict[str, Any], fixed_ips: list[dict[str, str]] | None
    ) -> Port:
        """Change a port; its addresses only while no server has it."""
        port = await self.port(ctx, port_id)
        self._allow(ctx, "update_port", port.project_id)
        network = await self._store.read(networks.get, port.network_id)
        self._check_fields(ctx, "update_port", network, port.project_id, values)
        if fixed_ips is not None and port.device_id:
            raise Conflict(f"Port {port_id} is in use by {port.device_id}; its addresses cannot be changed now.")
        if "mac" in values:
            values = {**values, "mac": check_mac(values["mac"])}
        if "allowed_address_pairs" in values:
            values = {**values, "allowed_address_pairs": check_pairs(values["allowed_address_pairs"])}
        changed = await self._store.run(update_port, port, values, fixed_ips, ctx.is_admin, at=self._parts.clock.now())
        await tell_hosts(self._parts, [port.network_id])
        return changed

    async def delete_port(self, ctx: RequestContext, port_id: str) -> None:
        """Remove a port that no server has."""
        port = await self.port(ctx, port_id)
        self._allow(ctx, "delete_port", port.project_id)
        if port.device_owner.startswith("compute:") and port.device_id:
            raise Conflict(f"Port {port_id} is in use by server {port.device_id}; delete the server.")
        await self._store.run(ports.delete, port)


# ---- checks -------------------------------------------------------------------------------------------------


def check_mac(text: str) -> str:
    """A unicast MAC, in lower case.

    Raises:
        BadRequest
    """
    mac = text.lower()
    if not MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
        raise BadRequest(f"Invalid input for mac_address. Reason: '{text[:40]}' is not a valid MAC address.")
    if mac.startswith(HOSTS_MACS):
        raise BadRequest(f"Invalid input for mac_address. Reason: {HOSTS_MACS}:… are the hosts' own.")
    return mac


def check_pairs(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of an address or block and the MAC that goes with it (None: the port's own).

    Raises:
        BadRequest
    """
    return [
        {**pair, "mac_address": check_mac(mac) if (mac := pair.get("mac_address")) is not None else None}
        for pair in pairs
    ]


def subnet_row(id: str, network_id: str, project_id: str, values: dict[str, Any], now: datetime) -> dict[str, Any]:
    """A subnet's columns, checked and completed: gateway, pools, the hosts' own address.

    ``gateway_ip`` absent: the first address; None: no gateway.

    Raises:
        BadRequest
    """
    try:
        cidr = IPv4Network(values["cidr"])
    except ValueError as error:
        raise BadRequest(f"Invalid input for cidr. Reason: {error}.") from None
    if cidr.prefixlen > 29 or cidr.prefixlen < 8:
        raise BadRequest("Invalid input for cidr. Reason: a subnet has between 8 and 16777216 addresses.")
    if any(cidr.overlaps(block) for block in NOT_FOR_GUESTS):
        raise BadRequest(f"Invalid input for cidr. Reason: {cidr} has addresses that no machine can have on a network.")
    first, last = cidr.network_address + 1, cidr.broadcast_address - 1
    gateway = values.get("gateway_ip", str(first))
    if gateway is not None:
        try:
            inside = IPv4Address(gateway) in cidr
        except ValueError:
            inside = False
        if not inside:
            raise BadRequest(f"Invalid input for gateway_ip. Reason: {gateway} is not in {cidr}.")
    host_address = gateway or str(last)
    pools = values.get("pools")
    if pools is None:
        # The default pools: all but the host's own address.
        own = IPv4Address(host_address)
        parts = [(first, own - 1), (own + 1, last)]
        pools = [(str(low), str(high)) for low, high in parts if low <= high]
    return {
        "id": id,
        "network_id": network_id,
        "project_id": project_id,
        "name": "",
        "description": "",
        "enable_dhcp": True,
        "dns": [],
        "host_routes": [],
        **values,
        "cidr": str(cidr),
        "gateway_ip": gateway,
        "host_address": host_address,
        "pools": check_pools(pools, cidr, host_address),
        "created_at": now,
        "updated_at": now,
    }


def check_pools(pools: Sequence[Sequence[str]], cidr: IPv4Network, host_address: str) -> list[list[str]]:
    """Pools as pairs, inside the subnet, not overlapping, without the host's own address.

    Raises:
        BadRequest, Conflict
    """
    ranges: list[tuple[IPv4Address, IPv4Address]] = []
    for low_text, high_text in pools:
        try:
            low, high = IPv4Address(low_text), IPv4Address(high_text)
        except ValueError:
            raise BadRequest(
                f"Invalid input for allocation_pools. Reason: {low_text}-{high_text} are no addresses."
            ) from None
        if low > high or low not in cidr or high not in cidr or low == cidr.network_address:
            raise BadRequest(f"Invalid input for allocation_pools. Reason: {low}-{high} is not a range in {cidr}.")
        if low <= IPv4Address(host_address) <= high:
            raise Conflict(f"Gateway ip {host_address} conflicts with allocation pool {low}-{high}.")
        if any(low <= other_high and high >= other_low for other_low, other_high in ranges):
            raise Conflict(f"Found overlapping allocation pools: {low}-{high}.")
        ranges.append((low, high))
    return [[str(low), str(high)] for low, high in sorted(ranges)]


# ---- transactions -------------------------------------------------------------------------------------------


def _insert_first(tx: Tx, network: dict[str, Any], subnet: dict[str, Any]) -> None:
    """Make the network that a new cloud has, unless another process that starts has done so."""
    if not networks.mark_made(tx):
        return
    _insert_network(tx, network)
    _insert_subnet(tx, subnet)


def _insert_network(tx: Tx, row: dict[str, Any]) -> Network:
    quotas.take(tx, row["project_id"], {"network": 1})
    return networks.insert(tx, row)


def _delete_network(tx: Tx, network: Network) -> None:
    gone = networks.delete(tx, network.id)
    quotas.give_back(tx, network.project_id, {"network": 1, "subnet": gone})


def _insert_subnet(tx: Tx, row: dict[str, Any]) -> Subnet:
    quotas.take(tx, row["project_id"], {"subnet": 1})
    return networks.insert_subnet(tx, row)


def _delete_subnet(tx: Tx, subnet: Subnet) -> None:
    networks.delete_subnet(tx, subnet.id)
    quotas.give_back(tx, subnet.project_id, {"subnet": 1})


def _check_device(tx: Tx, values: dict[str, Any], project_id: str, is_admin: bool) -> None:
    """A port of one project is no card of another project's server: whoever had it would speak as that server."""
    if is_admin or not values.get("device_id"):
        return
    server = servers.find(tx, values["device_id"])
    if server is not None and server.project_id != project_id:
        raise NotFound(kind="Device", id=values["device_id"])


def _insert_port(
    tx: Tx, row: dict[str, Any], fixed_ips: list[dict[str, str]] | None, groups: list[str] | None, is_admin: bool
) -> Port:
    _check_device(tx, row, row["project_id"], is_admin)
    there = networks.subnets_of(tx, [row["network_id"]]).get(row["network_id"], [])
    # Nothing said is the default group; none is none, and nothing passes.
    ids = (
        []
        if groups == [] or not row["port_security"]
        else security_groups.resolve(tx, row["project_id"], groups or [], at=row["created_at"])
    )
    if groups and not row["port_security"]:
        raise BadRequest("Port Security must be enabled in order to have security groups on a port.")
    return ports.insert(tx, row, fixed_ips, there, ids)


def update_port(
    tx: Tx,
    port: Port,
    values: dict[str, Any],
    fixed_ips: list[dict[str, str]] | None,
    is_admin: bool,
    *,
    at: datetime,
) -> Port:
    """Change a port, its security groups (names or ids) and its addresses. Afterwards the hosts want to be told.

    Raises:
        NotFound: the device is somebody else's server. Conflict: an address is taken.
        BadRequest: there is no such group, or the port can have none; an address is of no subnet.
    """
    _check_device(tx, values, port.project_id, is_admin)
    values = dict(values)
    groups = values.pop("security_groups", None)
    if groups and not values.get("port_security", port.port_security):
        raise BadRequest("Port Security must be enabled in order to have security groups on a port.")
    # The port's own row first: who changes the same port at the same time waits here.
    changed = ports.update(tx, port.id, values, at=at)
    if groups is None and fixed_ips is None:
        return changed
    if groups is not None:
        security_groups.set_of_port(
            tx, port.id, security_groups.resolve(tx, port.project_id, groups, at=at) if groups else []
        )
    if fixed_ips is not None:
        ports.set_addresses(tx, port.id, fixed_ips, networks.subnets_of(tx, [port.network_id]).get(port.network_id, []))
    return ports.get(tx, port.id)


async def tell_hosts(parts: Parts, network_ids: Collection[str]) -> None:
    """Ring every host of some networks: what it lets through may have changed, and who is in which group."""
    for host in await parts.store.read(security_groups.hosts_of_networks, network_ids):
        parts.bell.ring(f"network.{host}")
