"""Everything about one server that its guest is told."""

from ipaddress import IPv4Network

from kilonova.model.metadata import FactNetwork, InstanceFacts
from kilonova.model.server import Server
from kilonova.store.queries import networks, ports, servers
from kilonova.store.transactions import Tx


def of_server(tx: Tx, server_id: str) -> tuple[Server, InstanceFacts]:
    """A server and its facts.

    Raises:
        NotFound
    """
    server = servers.get(tx, server_id)
    cards = ports.of_servers(tx, [server_id]).get(server_id, [])
    subnets = networks.subnets_of(tx, list({card.network_id for card in cards})) if cards else {}
    by_id = {subnet.id: subnet for group in subnets.values() for subnet in group}
    found = [
        FactNetwork(
            port_id=card.id,
            network_id=card.network_id,
            mac=card.mac,
            mtu=1500,
            tap=card.tap,
            address=fixed.address,
            netmask=str(IPv4Network(by_id[fixed.subnet_id].cidr).netmask),
            gateway=by_id[fixed.subnet_id].gateway_ip,
            dns=tuple(by_id[fixed.subnet_id].dns),
        )
        for card in cards
        for fixed in card.fixed_ips
    ]
    return server, InstanceFacts.of(server, cards, found)
