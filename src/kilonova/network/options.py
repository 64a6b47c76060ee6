"""What an operator can tell the network agent."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class NetworkAgentOptions:
    """``[network]`` of kilonova.conf, on each host."""

    section: ClassVar[str] = "network"

    flat_interface: str = ""
    """The card on the segment that all hosts share: `flat_network_name` goes over it from host to host. It has no
    address of its own. Empty: the network of each host is by itself."""

    flat_network_name: str = "flat"
    """Name of the network that goes over `flat_interface`."""

    network_driver: Literal["flat_dhcp", "flat"] = "flat_dhcp"
    """``flat_dhcp``: a bridge for each network, with an address server; ``flat``: the bridge and its rules alone."""

    dhcp_lease_time: int = 86400
    """Seconds for which a guest keeps its address without asking again."""

    dhcp_domain: str = ""
    """Domain that guests are told; empty: none."""

    serve_dns: bool = False
    """Whether the address server also answers names, as this host resolves them, on subnets without name servers."""

    masquerade: bool = False
    """Whether guests on subnets with a gateway reach the world in this host's name. Switches IP forwarding on."""

    host_ports_for_guests: tuple[str, ...] = ()
    """TCP ports of this host that guests may reach at their gateway's address, besides DHCP, names, metadata and
    ping; ``*`` is all."""

    reserved_blocks: tuple[str, ...] = ()
    """Blocks that no guests' network may overlap on this host: where the broker, the database and others are that the
    host reaches by its default route. Blocks that it has a route to, or an address in, are refused anyway."""

    metadata_proxy_port: int = 9697
    """Port of the metadata proxies, on the bridges' addresses; if another program has it, any free one."""

    repair_interval: float = 15.0
    """Seconds between two looks whether bridges, rules and address servers are still as they were made."""

    reconcile_interval: float = 60.0
    """Seconds between two comparisons with what the conductor says belongs here."""
