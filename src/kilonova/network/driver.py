"""What carries networks on a host: made with a network's first port, removed with its last.

Every method may be called again after a crash with the effect of once. A driver touches only what it made itself.
What it carries outlives the process: guests keep their bridge, their rules and their address server while the
agent is away.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar

import msgspec

from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `NetworkDriver.reconcile` found and mended: ids of ports."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether all was as it should be."""
        return not (self.missing or self.changed or self.stray)


class NetworkDriver(ABC):
    """Carries networks and ports on one host."""

    name: ClassVar[str]

    @abstractmethod
    async def start(self) -> None:
        """Take up again what a former life of this agent carried. Called once, before anything else.

        Raises:
            NetworkFailed: a tool is missing or refuses; the message says which.
        """

    @abstractmethod
    async def close(self, *, remove: bool = False) -> None:
        """Let go. What is carried stays for its guests; with `remove` it is all taken away."""

    @abstractmethod
    async def plug(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        """Be ready for these ports.

        After it the bridge of each network is up with the host's addresses on it, DHCP knows each port, rules stand for
        each port's device (which need not exist yet), and the metadata service answers it. Ports that are
        plugged already are changed to what is said now.

        Args:
            networks: a plan for the network of each port.

        Raises:
            NetworkFailed: something could not be made. What was made is removed by `unplug`.
        """

    @abstractmethod
    async def unplug(self, server_id: str) -> None:
        """Nothing of the server's ports remains, nor of networks on which no port is left.

        A server that has no port here is not an error.

        Raises:
            NetworkFailed
        """

    @abstractmethod
    def carried(self) -> HostNetworks:
        """All networks and ports that are plugged now."""

    @abstractmethod
    async def reconcile(self, wanted: HostNetworks, *, leave: Collection[str] = ()) -> Report:
        """Carry `wanted` and nothing else: make what is missing, change what differs, remove what is stray.

        Args:
            leave: servers whose ports are left as they are, because commands for them are newer than `wanted`.

        Raises:
            NetworkFailed
        """

    @abstractmethod
    async def repair(self) -> list[str]:
        """Make again what somebody took away behind our back; what that was, in words.

        Raises:
            NetworkFailed
        """
