"""What the rules of a host shall say besides the networks and ports that it carries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kilonova.model.network_plans import NetworkPlan

METADATA = "169.254.169.254"

ANY_BRIDGE = '"kb*"'
"""Bridges of any cloud on this machine."""

ANY_TAP = '"kn*"'
"""Guests' taps, of any cloud on this machine."""

KNOWN_MARK = "0x4b000000"
"""Set on a frame from a port that we know, on its short way from the bridge to the host's own stack, and taken off
there. A kernel without CONFIG_NFT_BRIDGE_META cannot tell otherwise which bridge a frame entered by which port."""


@dataclass(frozen=True, kw_only=True)
class Wants:
    """The facts of one host."""

    table: str
    """Name of our tables."""
    masquerade: bool = False
    serve_dns: bool = False
    host_ports: tuple[str, ...] = ()
    """TCP ports of this host that guests may reach; ``*``: all, at the address of their own network."""
    proxies: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Network id to address and port of its metadata proxy."""
    cards: Mapping[str, str] = field(default_factory=dict)
    """Network id to the card by which other hosts are reached."""


def quoted(names: Iterable[str]) -> str:
    """A set of names of links."""
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"


def host_addresses(network: NetworkPlan) -> list[str]:
    """The host's own addresses on a network."""
    return [subnet.host_address for subnet in network.subnets if subnet.host_address]
