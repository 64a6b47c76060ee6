"""Plans of networks and ports for tests of network drivers."""

import hashlib
import uuid
from typing import Any

from kilonova.model.guest import FixedIP, Nic
from kilonova.model.network_plans import NetworkPlan, PortPlan, SubnetPlan


def an_id(word: str) -> str:
    """The same id for the same word."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, word))


def mac_from(seed: str) -> str:
    """A card's address, the same for the same seed."""
    tail = hashlib.sha256(seed.encode()).digest()[:3]
    return f"fa:16:3e:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"


def a_network_plan(word: str = "blue", cidr: str = "10.91.7.0/24", **subnet: Any) -> NetworkPlan:
    """A network whose gateway, and host's address, is the first of its only subnet."""
    network_id = an_id(word)
    first = cidr.rpartition(".")[0] + ".1"
    values = {"id": an_id(f"{word}-v4"), "cidr": cidr, "gateway": first, "host_address": first, **subnet}
    return NetworkPlan(
        id=network_id,
        name=word,
        bridge=f"kb{network_id.replace('-', '')[:11]}",
        mtu=1400,
        subnets=(SubnetPlan(**values),),
    )


def a_port_plan(network: NetworkPlan, server: str = "one", last: int = 10, **nic: Any) -> PortPlan:
    """A port of `server` with the subnet's address that ends in `last`."""
    port_id = an_id(f"{network.name}/{server}/{last}")
    [subnet] = network.subnets
    fixed = FixedIP(
        address=f"{subnet.cidr.rpartition('.')[0]}.{last}",
        prefix_length=24,
        gateway=subnet.gateway,
        subnet_id=subnet.id,
    )
    values = {
        "port_id": port_id,
        "network_id": network.id,
        "network_name": network.name,
        "mac": mac_from(port_id),
        "tap": f"kn{port_id.replace('-', '')[:11]}",
        "bridge": network.bridge,
        "mtu": network.mtu,
        "fixed_ips": (fixed,),
    }
    return PortPlan(
        nic=Nic(**{**values, **nic}), server_id=an_id(server), project_id="project", hostname=f"{server}.example"
    )
