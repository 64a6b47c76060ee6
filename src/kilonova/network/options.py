"""What an operator can say to a host's network agent."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class NetworkAgentOptions:
    """``[network_agent]`` of kilonova.conf."""

    section: ClassVar[str] = "network_agent"

    driver: Literal["flat_dhcp", "flat"] = "flat_dhcp"
    """``flat_dhcp``: a bridge for each network, with an address server; ``flat``: the bridge and its rules alone."""

    dhcp_lease_time: int = 86400
    """Seconds for which a guest keeps its address without asking again."""

    dhcp_domain: str = ""
    """Domain that guests are told; empty: none."""

    serve_dns: bool = True
    """Whether the address server also answers names, as this host resolves them, on subnets without name servers."""

    masquerade: bool = True
    """Whether guests on subnets with a gateway reach the world in this host's name. Switches IP forwarding on."""

    host_ports_for_guests: tuple[str, ...] = ()
    """TCP ports of this host that guests may reach besides DHCP, names, metadata and ping; ``*`` is all."""

    metadata_proxy_port: int = 8776
    """Port of the metadata proxies, on the bridges' addresses; if another program has it, any free one."""

    repair_interval: float = 30.0
    """Seconds between two looks whether bridges, rules and address servers are still there."""

    reconcile_interval: float = 300.0
    """Seconds between two comparisons with what the conductor says belongs here."""
