"""What a guest is told about itself, in the OpenStack and the EC2 form: plain rendering of plain values.

Sources of the forms: the Compute user guide's metadata chapter, and the EC2 instance metadata categories.
"""

from collections.abc import Sequence
from typing import Any, Self

import msgspec

from kilonova.model.guest import GuestFile
from kilonova.model.network import Port
from kilonova.model.server import Server

OPENSTACK_VERSIONS = (
    "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
    "2020-10-14", "latest",
)  # fmt: skip
EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
)


class FactNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one card."""

    port_id: str
    network_id: str
    mac: str
    mtu: int
    tap: str
    address: str
    netmask: str
    gateway: str | None
    dns: tuple[str, ...]


class InstanceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server as its guest sees it."""

    id: str
    number: int
    name: str
    hostname: str
    project_id: str
    availability_zone: str
    launch_index: int
    reservation_id: str
    flavor_name: str
    metadata: dict[str, str]
    keys: dict[str, str]
    image_id: str
    networks: tuple[FactNetwork, ...]
    addresses: tuple[str, ...]
    files: tuple[GuestFile, ...] = ()

    @classmethod
    def of(
        cls, server: Server, ports: Sequence[Port], networks: Sequence[FactNetwork] = (), zone: str = "nova"
    ) -> Self:
        """The facts of a server."""
        return cls(
            id=server.id,
            number=server.number,
            name=server.name,
            hostname=server.hostname,
            project_id=server.project_id,
            availability_zone=server.availability_zone or zone,
            launch_index=server.launch_index,
            reservation_id=server.reservation_id,
            flavor_name=server.flavor.name,
            metadata=server.metadata,
            keys={server.key_name: server.key_data} if server.key_name and server.key_data else {},
            image_id=server.image_id,
            networks=tuple(networks),
            addresses=tuple(ip.address for port in ports for ip in port.fixed_ips),
            files=tuple(msgspec.convert(server.order.personality, list[GuestFile])),
        )


def meta_data_json(facts: InstanceFacts) -> dict[str, object]:
    """``meta_data.json``."""
    told: dict[str, object] = {
        "uuid": facts.id,
        "name": facts.name,
        "hostname": facts.hostname,
        "project_id": facts.project_id,
        "availability_zone": facts.availability_zone,
        "launch_index": facts.launch_index,
        "meta": facts.metadata,
        "public_keys": facts.keys,
        "keys": [{"name": name, "type": "ssh", "data": data} for name, data in facts.keys.items()],
        "devices": [],
        "dedicated_cpus": [],
    }
    if facts.files:
        told["files"] = [
            {"path": file.path, "content_path": content_path(number)} for number, file in enumerate(facts.files)
        ]
    return told


def content_path(number: int) -> str:
    """Where the contents of a server's file of that number lie, below ``openstack``."""
    return f"/content/{number:04d}"


def network_data_json(facts: InstanceFacts) -> dict[str, object]:
    """``network_data.json``."""
    links = {
        n.port_id: {"id": n.tap, "vif_id": n.port_id, "type": "bridge", "mtu": n.mtu, "ethernet_mac_address": n.mac}
        for n in facts.networks
    }
    networks = [
        {
            "id": f"network{index}",
            "type": "ipv4_dhcp",
            "link": n.tap,
            "network_id": n.network_id,
        }
        for index, n in enumerate(facts.networks)
    ]
    dns = dict.fromkeys(address for n in facts.networks for address in n.dns)
    return {
        "links": list(links.values()),
        "networks": networks,
        "services": [{"type": "dns", "address": address} for address in dns],
    }


def ec2_tree(facts: InstanceFacts) -> dict[str, Any]:
    """``meta-data/`` as nested directories; a leaf is a text."""
    address = facts.addresses[0] if facts.addresses else ""
    tree: dict[str, Any] = {
        "ami-id": f"ami-{facts.image_id[:8]}" if facts.image_id else "",
        "ami-launch-index": str(facts.launch_index),
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": facts.hostname,
        "instance-action": "none",
        "instance-id": f"i-{facts.number:08x}",
        "instance-type": facts.flavor_name,
        "local-hostname": facts.hostname,
        "local-ipv4": address,
        "placement": {"availability-zone": facts.availability_zone},
        "public-hostname": facts.hostname,
        "public-ipv4": "",
        "reservation-id": facts.reservation_id,
        "security-groups": "default",
    }
    if facts.keys:
        tree["public-keys"] = {
            f"{index}={name}": {"openssh-key": data} for index, (name, data) in enumerate(facts.keys.items())
        }
    return tree
