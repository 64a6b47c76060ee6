"""What an operator can tell the network agent."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class NetworkAgentOptions:
    """``[network]`` of kilonova.conf, on each host."""

    section: ClassVar[str] = "network"

    flat_interface: str = ""
    """The card on the segment that all hosts share: `flat_network_name` goes over it from host to host. It has no
    address of its own. Empty: the network of each host is by itself."""

    flat_network_name: str = "flat"
    """Name of the network that goes over `flat_interface`."""
