"""Ports: of users, of servers, of hosts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import sqlalchemy as sa

from kilonova.base.ids import Ids
from kilonova.model.errors import AlreadyExists, BadRequest, Conflict, NotFound
from kilonova.model.guest import FixedIP, Nic
from kilonova.model.network import Network, Port, PortAddress, Subnet
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan, RulePlan, SubnetPlan
from kilonova.model.server import RequestedNetwork
from kilonova.store.queries import networks, quotas, security_groups
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.networks import networks as network_table
from kilonova.store.transactions import Tx, insert_row, update_rows

_p = ports.c


# What every boot and delete asks is built once: building a statement costs more than running it.
_PORTS = (
    sa.select(ports, network_table.c.name.label("network_name"))
    .select_from(ports.join(network_table, network_table.c.id == _p.network_id))
    .order_by(_p.created_at, _p.id)
)
_ONE = _PORTS.where(_p.id == sa.bindparam("port"))
_OF_DEVICES = _PORTS.where(_p.device_id.in_(sa.bindparam("devices", expanding=True)))
_OF_HOST = _PORTS.where(_p.host == sa.bindparam("host"), _p.device_id != "")
_ALL_ADDRESSES = sa.select(addresses).order_by(addresses.c.subnet_id, addresses.c.address)
_ADDRESSES = _ALL_ADDRESSES.where(addresses.c.port_id.in_(sa.bindparam("ports", expanding=True)))
_MAC = sa.select(_p.id).where(_p.network_id == sa.bindparam("network"), _p.mac == sa.bindparam("mac"))
_FREE_ADDRESSES = sa.delete(addresses).where(addresses.c.port_id == sa.bindparam("port"))
_FORGET = sa.delete(ports).where(_p.id == sa.bindparam("port"))


def _read(tx: Tx, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> list[Port]:
    rows = tx.execute(query, parameters).all()
    if not rows:
        return []
    found: dict[str, list[PortAddress]] = {}
    if len(rows) < 500:
        of_ports = tx.execute(_ADDRESSES, {"ports": [row.id for row in rows]})
    else:
        of_ports = tx.execute(_ALL_ADDRESSES)
    for row in of_ports:
        fixed = PortAddress(address=str(IPv4Address(row.address)), subnet_id=row.subnet_id)
        found.setdefault(row.port_id, []).append(fixed)
    groups = security_groups.of_ports(tx, [row.id for row in rows])
    return [
        Port(**row._mapping, fixed_ips=tuple(found.get(row.id, ())), security_groups=groups.get(row.id, ()))
        for row in rows
    ]


def get(tx: Tx, port_id: str, *, project_id: str | None = None) -> Port:
    """One port; with `project_id`, only of that project.

    Raises:
        NotFound
    """
    found = _read(tx, _ONE, {"port": port_id})
    if not found or (project_id is not None and found[0].project_id != project_id):
        raise NotFound(kind="Port", id=port_id)
    return found[0]


def list_all(tx: Tx, *, project_id: str | None = None, device_id: str | None = None) -> list[Port]:
    """Ports of a project (None: all)."""
    where: list[sa.ColumnElement[bool]] = [sa.true()]
    if project_id is not None:
        where.append(_p.project_id == project_id)
    if device_id is not None:
        where.append(_p.device_id == device_id)
    return _read(tx, _PORTS.where(*where))


def insert(
    tx: Tx,
    values: Mapping[str, Any],
    wanted: Sequence[Mapping[str, str]] | None,
    subnets: Sequence[Subnet],
    groups: Sequence[str],
) -> Port:
    """Add a port with its addresses. `wanted` are ``fixed_ips``; None: one of the first subnet.

    Args:
        groups: ids of its security groups.

    Raises:
        AlreadyExists: the MAC is taken. Conflict: an address is. BadRequest: an address is of no subnet.
    """
    _add(tx, values, wanted, subnets, groups)
    return get(tx, values["id"])


def _add(
    tx: Tx,
    values: Mapping[str, Any],
    wanted: Sequence[Mapping[str, str]] | None,
    subnets: Sequence[Subnet],
    groups: Sequence[str],
) -> None:
    if tx.execute(_MAC, {"network": values["network_id"], "mac": values["mac"]}).first():
        raise AlreadyExists(detail=f"Mac address {values['mac']} is in use on network {values['network_id']}.")
    quotas.take(tx, values["project_id"], {"port": 1})
    insert_row(tx, ports, values)
    security_groups.add_port(tx, values["id"], groups)
    _take_addresses(tx, values["id"], wanted, subnets)


def set_addresses(tx: Tx, port_id: str, wanted: Sequence[Mapping[str, str]] | None, subnets: Sequence[Subnet]) -> None:
    """Give a port its addresses, in place of those that it has."""
    tx.execute(_FREE_ADDRESSES, {"port": port_id})
    _take_addresses(tx, port_id, wanted, subnets)


def _take_addresses(
    tx: Tx, port_id: str, wanted: Sequence[Mapping[str, str]] | None, subnets: Sequence[Subnet]
) -> None:
    if wanted is None:
        wanted = [{"subnet_id": subnets[0].id}] if subnets else []
    by_id = {subnet.id: subnet for subnet in subnets}
    for fixed in wanted:
        address = fixed.get("ip_address")
        subnet = by_id.get(fixed.get("subnet_id", ""))
        if subnet is None and fixed.get("subnet_id"):
            raise BadRequest(f"Invalid input for fixed_ips: subnet {fixed['subnet_id']} is not on this network.")
        if subnet is None:
            subnet = next((s for s in subnets if address and IPv4Address(address) in IPv4Network(s.cidr)), None)
        if subnet is None or (address and IPv4Address(address) not in IPv4Network(subnet.cidr)):
            raise BadRequest(f"Invalid input for fixed_ips: {address} is in no subnet of this network.")
        networks.take_address(tx, subnet, port_id, address)


def update(tx: Tx, port_id: str, values: Mapping[str, Any], *, at: datetime) -> Port:
    """Change a port."""
    update_rows(tx, ports, {"id": port_id}, {**values, "updated_at": at})
    return get(tx, port_id)


def delete(tx: Tx, port: Port) -> None:
    """Remove a port; its addresses are free."""
    tx.execute(_FREE_ADDRESSES, {"port": port.id})
    security_groups.set_of_port(tx, port.id, ())
    tx.execute(_FORGET, {"port": port.id})
    quotas.give_back(tx, port.project_id, {"port": 1})


# ---- servers ------------------------------------------------------------------------------------------------


def resolve_requested(tx: Tx, project_id: str, requested: list[RequestedNetwork] | str) -> list[RequestedNetwork]:
    """What a new server's networks are, checked: words become networks.

    ``auto`` takes the project's own network, else the shared one; ``default`` (nothing was said) does so too if there
    is one at all; ``none`` is none.

    Raises:
        BadRequest: no such network or port, or none to take. Conflict: several to choose from, or a port in use.
    """
    if isinstance(requested, str):
        return _by_word(tx, project_id, requested)
    for wish in requested:
        if wish.port_id is not None:
            try:
                port = get(tx, wish.port_id, project_id=project_id)
            except NotFound:
                raise BadRequest(f"Port {wish.port_id} could not be found.") from None
            if port.device_id:
                raise Conflict(f"Port {port.id} is still in use.")
            if not port.fixed_ips:
                raise BadRequest(f"Port {port.id} requires a FixedIP in order to be used.")
            continue
        try:
            network = networks.get(tx, wish.network_id or "", project_id=project_id)
        except NotFound:
            raise BadRequest(f"Network {wish.network_id} could not be found.") from None
        if not network.subnet_ids:
            raise BadRequest(f"Network {network.id} requires a subnet in order to boot instances on.")
        if wish.fixed_ip is not None:
            _check_fixed(tx, network, wish.fixed_ip)
    return requested


def _check_fixed(tx: Tx, network: Network, address: str) -> None:
    for subnet in networks.subnets_of(tx, [network.id]).get(network.id, []):
        if IPv4Address(address) in IPv4Network(subnet.cidr):
            networks.check_for_ports(subnet, address)
            taken = sa.select(addresses.c.port_id).where(
                addresses.c.subnet_id == subnet.id, addresses.c.address == int(IPv4Address(address))
            )
            if tx.execute(taken).first():
                raise BadRequest(f"Fixed IP address {address} is already in use on network {network.id}.")
            return
    raise BadRequest(f"Fixed IP address {address} is not a valid ip address for network {network.id}.")


def _by_word(tx: Tx, project_id: str, word: str) -> list[RequestedNetwork]:
    if word == "none":
        return []
    seen = [n for n in networks.list_all(tx, project_id=project_id) if n.subnet_ids and not n.external]
    own = [n for n in seen if n.project_id == project_id and not n.shared]
    usable = own or [n for n in seen if n.shared]
    if len(usable) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    if not usable:
        if word == "auto":
            raise BadRequest("Unable to automatically allocate a network: the project has none and none is shared.")
        return []
    return [RequestedNetwork(network_id=usable[0].id)]


def allocate_for_server(
    tx: Tx,
    *,
    server_id: str,
    project_id: str,
    host: str,
    requested: list[RequestedNetwork],
    hostname: str,
    ids: Ids,
    at: datetime,
    groups: Sequence[str] = (),
) -> None:
    """Give a server its ports and bind them to its host. Again: the same ports, bound anew.

    Args:
        groups: names or ids of the security groups of ports that are made; empty: the project's default.

    Raises:
        Conflict: no address is free, or a port is in use. BadRequest: there is no such group any more.
    """
    binding = {"device_id": server_id, "device_owner": "compute:nova", "host": host, "hostname": hostname}
    made = [port for port in of_servers(tx, [server_id]).get(server_id, []) if port.auto]
    for wish in requested:
        if wish.port_id is not None:
            port = get(tx, wish.port_id)
            if port.device_id not in ("", server_id):
                raise Conflict(f"Port {port.id} is still in use.")
            update(tx, port.id, binding, at=at)
        elif any(port.network_id == wish.network_id for port in made):
            port = next(port for port in made if port.network_id == wish.network_id)
            made.remove(port)
            update(tx, port.id, binding, at=at)
        else:
            in_groups = security_groups.resolve(tx, project_id, groups, at=at)
            _make(tx, wish, project_id, binding, in_groups, ids, at)


def _make(
    tx: Tx,
    wish: RequestedNetwork,
    project_id: str,
    binding: Mapping[str, Any],
    groups: Sequence[str],
    ids: Ids,
    at: datetime,
) -> None:
    found = networks.with_subnets_of(tx, [wish.network_id or ""])
    if not found:
        raise NotFound(kind="Network", id=wish.network_id or "")
    [(network, subnets)] = found.values()
    values = {
        "id": ids.uuid(),
        "network_id": network.id,
        "project_id": project_id,
        "name": "",
        "description": "",
        "mac": new_mac(ids),
        "admin_state_up": True,
        "auto": True,
        "port_security": network.port_security,
        "allowed_address_pairs": [],
        "created_at": at,
        "updated_at": at,
        **binding,
    }
    wanted = [{"ip_address": wish.fixed_ip}] if wish.fixed_ip else None
    _add(tx, values, wanted, subnets, groups)


def new_mac(ids: Ids) -> str:
    """A random MAC with the prefix that clouds of this kind use."""
    tail = ids.uuid().replace("-", "")[-6:]
    return f"fa:16:3e:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


def unbind_for_server(tx: Tx, server_id: str) -> None:
    """The server has no host any more; it keeps its ports."""
    update_rows(tx, ports, {"device_id": server_id}, {"host": ""})


def release_for_server(tx: Tx, server_id: str) -> None:
    """The server is gone: ports made for it go with it, others are free for the next."""
    for port in of_servers(tx, [server_id]).get(server_id, []):
        if port.auto:
            delete(tx, port)
        else:
            update_rows(tx, ports, {"id": port.id}, {"device_id": "", "device_owner": "", "host": "", "hostname": ""})


def of_servers(tx: Tx, server_ids: Sequence[str]) -> dict[str, list[Port]]:
    """Ports of some servers, in the order in which they were made; two statements for any number."""
    if not server_ids:
        return {}
    found: dict[str, list[Port]] = {}
    for port in _read(tx, _OF_DEVICES, {"devices": list(server_ids)}):
        found.setdefault(port.device_id, []).append(port)
    return found


# ---- what hosts are told ------------------------------------------------------------------------------------


def plans_for_server(tx: Tx, server_id: str) -> tuple[list[NetworkPlan], list[PortPlan]]:
    """What a host must make ready for a server's cards."""
    return _plans(tx, of_servers(tx, [server_id]).get(server_id, []))


def networks_of_host(tx: Tx, host: str) -> HostNetworks:
    """All that a host carries."""
    network_plans, port_plans = _plans(tx, _read(tx, _OF_HOST, {"host": host}))
    named = {rule.remote_group for port in port_plans for rule in port.rules or ()} - {""}
    members = security_groups.members_on(tx, [network.id for network in network_plans], named)
    return HostNetworks(networks=tuple(network_plans), ports=tuple(port_plans), members=members)


def _plans(tx: Tx, found: Sequence[Port]) -> tuple[list[NetworkPlan], list[PortPlan]]:
    ids = list(dict.fromkeys(port.network_id for port in found))
    if not ids:
        return [], []
    known = networks.with_subnets_of(tx, ids)
    by_id = {subnet.id: subnet for _, subnets in known.values() for subnet in subnets}
    rules = security_groups.plans_of(tx, {group for port in found for group in port.security_groups})
    network_plans = [_network_plan(*known[network_id]) for network_id in ids]
    port_plans = [
        PortPlan(
            nic=_nic(port, known[port.network_id][0], by_id),
            server_id=port.device_id,
            project_id=port.project_id,
            hostname=port.hostname,
            admin_up=port.admin_state_up,
            allowed_macs=tuple((block, mac) for block, mac in _pairs(port) if mac != port.mac),
            rules=_rules(port, rules),
        )
        for port in found
    ]
    return network_plans, port_plans


def _rules(port: Port, of_group: Mapping[str, tuple[RulePlan, ...]]) -> tuple[RulePlan, ...] | None:
    if not port.port_security:
        return None
    return tuple(dict.fromkeys(rule for group in port.security_groups for rule in of_group.get(group, ())))


def _network_plan(network: Network, subnets: Sequence[Subnet]) -> NetworkPlan:
    return NetworkPlan(
        id=network.id,
        name=network.name,
        bridge=network.bridge,
        mtu=network.mtu,
        subnets=tuple(
            SubnetPlan(
                id=subnet.id,
                cidr=subnet.cidr,
                gateway=subnet.gateway_ip,
                host_address=subnet.host_address,
                enable_dhcp=subnet.enable_dhcp,
                dns=tuple(subnet.dns),
                host_routes=tuple((route["destination"], route["nexthop"]) for route in subnet.host_routes),
            )
            for subnet in subnets
        ),
    )


def _pairs(port: Port) -> list[tuple[str, str]]:
    """Address or block, and the MAC that goes with it."""
    return [(pair["ip_address"], pair.get("mac_address") or port.mac) for pair in port.allowed_address_pairs]


def _nic(port: Port, network: Network, subnets: Mapping[str, Subnet]) -> Nic:
    return Nic(
        port_id=port.id,
        network_id=port.network_id,
        network_name=port.network_name,
        mac=port.mac,
        tap=port.tap,
        bridge=network.bridge,
        mtu=network.mtu,
        fixed_ips=tuple(
            FixedIP(
                address=fixed.address,
                prefix_length=IPv4Network(subnets[fixed.subnet_id].cidr).prefixlen,
                gateway=subnets[fixed.subnet_id].gateway_ip,
                dns=tuple(subnets[fixed.subnet_id].dns),
                subnet_id=fixed.subnet_id,
            )
            for fixed in port.fixed_ips
        ),
        port_security=port.port_security,
        allowed_address_pairs=tuple(block for block, mac in _pairs(port) if mac == port.mac),
    )
