"""Networks and subnets."""

from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import BadRequest, Conflict, NotFound
from kilonova.model.network import Network, Subnet
from kilonova.store.tables.flavors import versions
from kilonova.store.tables.networks import addresses, networks, ports, subnets
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows, update_rows

_n = networks.c
_s = subnets.c


def _network(row: Any, subnet_ids: tuple[str, ...]) -> Network:
    return Network(**row._mapping, subnet_ids=subnet_ids)


def _subnet(row: Any) -> Subnet:
    values = dict(row._mapping)
    del values["next_address"]
    return Subnet(**values)


_ONE = sa.select(networks).where(_n.id == sa.bindparam("network"))
_SOME = sa.select(networks).where(_n.id.in_(sa.bindparam("networks", expanding=True)))
_ALL_SUBNET_IDS = sa.select(_s.id, _s.network_id).order_by(_s.created_at)
_SUBNET_IDS = _ALL_SUBNET_IDS.where(_s.network_id.in_(sa.bindparam("networks", expanding=True)))
_SUBNETS = (
    sa.select(subnets).where(_s.network_id.in_(sa.bindparam("networks", expanding=True))).order_by(_s.created_at, _s.id)
)


def _with_subnets(tx: Tx, rows: list[Any]) -> list[Network]:
    ids: dict[str, list[str]] = {}
    if len(rows) < 200:
        found = tx.execute(_SUBNET_IDS, {"networks": [row.id for row in rows]})
    else:
        found = tx.execute(_ALL_SUBNET_IDS)
    for row in found:
        ids.setdefault(row.network_id, []).append(row.id)
    return [_network(row, tuple(ids.get(row.id, ()))) for row in rows]


def mark_made(tx: Tx) -> bool:
    """Note that the network of a new cloud is made; whether this is the first note."""
    return insert_if_absent(tx, versions, {"name": "first-network", "value": 1})


def visible_to(project_id: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Networks that a project sees."""
    return sa.or_(_n.project_id == project_id, _n.shared, _n.external)


_ALL = sa.select(networks).order_by(_n.id)
_ALL_SEEN = _ALL.where(visible_to(sa.bindparam("project", type_=sa.String)))


def get(tx: Tx, network_id: str, *, project_id: str | None = None) -> Network:
    """One network; with `project_id`, only if that project sees it.

    Raises:
        NotFound
    """
    query = _ONE if project_id is None else _ONE.where(visible_to(project_id))
    row = tx.execute(query, {"network": network_id}).first()
    if row is None:
        raise NotFound(kind="Network", id=network_id)
    return _with_subnets(tx, [row])[0]


def with_subnets_of(tx: Tx, network_ids: list[str]) -> dict[str, tuple[Network, list[Subnet]]]:
    """Some networks by id, of those that are there, and the subnets of each, oldest first."""
    subnets = subnets_of(tx, network_ids)
    return {
        row.id: (_network(row, tuple(subnet.id for subnet in subnets.get(row.id, ()))), subnets.get(row.id, []))
        for row in tx.execute(_SOME, {"networks": network_ids})
    }


def list_all(tx: Tx, *, project_id: str | None = None) -> list[Network]:
    """Networks that a project sees (None: all), by id."""
    found = tx.execute(_ALL) if project_id is None else tx.execute(_ALL_SEEN, {"project": project_id})
    return _with_subnets(tx, list(found))


def insert(tx: Tx, values: Mapping[str, Any]) -> Network:
    """Add a network."""
    insert_row(tx, networks, values)
    return get(tx, values["id"])


def update(tx: Tx, network_id: str, values: Mapping[str, Any], *, at: datetime) -> Network:
    """Change a network."""
    update_rows(tx, networks, {"id": network_id}, {**values, "updated_at": at})
    return get(tx, network_id)


def delete(tx: Tx, network_id: str) -> int:
    """Remove a network with its subnets; how many subnets.

    Raises:
        Conflict: it has ports.
    """
    if tx.execute(sa.select(ports.c.id).where(ports.c.network_id == network_id).limit(1)).first():
        raise Conflict(
            f"Unable to complete operation on network {network_id}. There are one or more ports still in use."
        )
    gone = tx.execute(sa.delete(subnets).where(_s.network_id == network_id)).rowcount
    tx.execute(sa.delete(networks).where(_n.id == network_id))
    return gone


# ---- subnets ------------------------------------------------------------------------------------------------


def get_subnet(tx: Tx, subnet_id: str) -> Subnet:
    """One subnet.

    Raises:
        NotFound
    """
    row = select_rows(tx, subnets, {"id": subnet_id}).first()
    if row is None:
        raise NotFound(kind="Subnet", id=subnet_id)
    return _subnet(row)


def subnets_of(tx: Tx, network_ids: list[str]) -> dict[str, list[Subnet]]:
    """Subnets of some networks, oldest first."""
    found: dict[str, list[Subnet]] = {}
    for row in tx.execute(_SUBNETS, {"networks": list(network_ids)}):
        found.setdefault(row.network_id, []).append(_subnet(row))
    return found


def list_subnets(tx: Tx, *, project_id: str | None = None) -> list[Subnet]:
    """Subnets of the networks that a project sees (None: all), by id."""
    query = sa.select(subnets).order_by(_s.id)
    if project_id is not None:
        query = query.where(_s.network_id.in_(sa.select(_n.id).where(visible_to(project_id))))
    return [_subnet(row) for row in tx.execute(query)]


def insert_subnet(tx: Tx, values: Mapping[str, Any]) -> Subnet:
    """Add a subnet.

    Raises:
        Conflict: it overlaps another of the network.
    """
    cidr = IPv4Network(values["cidr"])
    for other in subnets_of(tx, [values["network_id"]]).get(values["network_id"], []):
        if cidr.overlaps(IPv4Network(other.cidr)):
            raise Conflict(f"Requested subnet with cidr: {cidr} overlaps with subnet {other.id} of the same network.")
    first = int(IPv4Address(values["pools"][0][0])) if values["pools"] else 0
    insert_row(tx, subnets, {**values, "next_address": first})
    return get_subnet(tx, values["id"])


def update_subnet(tx: Tx, subnet_id: str, values: Mapping[str, Any], *, at: datetime) -> Subnet:
    """Change a subnet."""
    update_rows(tx, subnets, {"id": subnet_id}, {**values, "updated_at": at})
    return get_subnet(tx, subnet_id)


def delete_subnet(tx: Tx, subnet_id: str) -> None:
    """Remove a subnet.

    Raises:
        Conflict: ports have addresses of it.
    """
    if tx.execute(sa.select(addresses.c.port_id).where(addresses.c.subnet_id == subnet_id).limit(1)).first():
        raise Conflict(f"Unable to complete operation on subnet {subnet_id}: One or more ports have an IP allocation.")
    tx.execute(sa.delete(subnets).where(_s.id == subnet_id))


# ---- addresses ----------------------------------------------------------------------------------------------


_NEXT = sa.select(_s.next_address).where(_s.id == sa.bindparam("subnet"))


def take_address(tx: Tx, subnet: Subnet, port_id: str, wanted: str | None = None) -> str:
    """Give a port an address of a subnet: `wanted`, or the next free one of its pools.

    The primary key decides the race. The search begins after the last one given, so that it is one step as a rule
    and an address is not used again at once.

    Raises:
        BadRequest: no port can have it. Conflict: it is taken, or no address is free.
    """
    if wanted is not None:
        check_for_ports(subnet, wanted)
        number = int(IPv4Address(wanted))
        if not _take(tx, subnet, number, port_id):
            raise Conflict(f"IP address {wanted} already allocated in subnet {subnet.id}")
        return wanted
    start = tx.execute(_NEXT, {"subnet": subnet.id}).scalar_one()
    for number in _from(subnet, start, limit=64):
        if _take(tx, subnet, number, port_id):
            update_rows(tx, subnets, {"id": subnet.id}, {"next_address": number + 1})
            return str(IPv4Address(number))
    taken = set(tx.execute(sa.select(addresses.c.address).where(addresses.c.subnet_id == subnet.id)).scalars())
    for number in _from(subnet, start, limit=1 << 20):
        if number not in taken and _take(tx, subnet, number, port_id):
            update_rows(tx, subnets, {"id": subnet.id}, {"next_address": number + 1})
            return str(IPv4Address(number))
    raise Conflict(f"No more IP addresses available on network {subnet.network_id}.")


def check_for_ports(subnet: Subnet, address: str) -> None:
    """Raise unless a port may have this address: a guest with the gateway's would take the place of its host.

    Raises:
        BadRequest
    """
    cidr = IPv4Network(subnet.cidr)
    ends = (str(cidr.network_address), str(cidr.broadcast_address))
    if address in (subnet.host_address, subnet.gateway_ip, *ends):
        raise BadRequest(f"IP address {address} is not a valid IP for subnet {subnet.id}: it is no port's.")


def _from(subnet: Subnet, start: int, *, limit: int) -> Any:
    """Addresses of the pools, beginning at `start` and going round once."""
    ranges = [(int(IPv4Address(low)), int(IPv4Address(high))) for low, high in subnet.pools]
    later = [(max(low, start), high) for low, high in ranges if high >= start]
    count = 0
    for low, high in [*later, *ranges]:
        for number in range(low, high + 1):
            yield number
            count += 1
            if count >= limit:
                return


def _take(tx: Tx, subnet: Subnet, number: int, port_id: str) -> bool:
    return insert_if_absent(tx, addresses, {"subnet_id": subnet.id, "address": number, "port_id": port_id})
