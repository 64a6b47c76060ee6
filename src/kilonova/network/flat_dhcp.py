"""Flat networks on which guests get their addresses by DHCP, from an address server a network on each host."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from kilonova.base.clock import Clock
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.dnsmasq import AddressServer, DhcpOptions
from kilonova.network.flat import Flat
from kilonova.network.metadata_proxy import MetadataService
from kilonova.network.options import NetworkAgentOptions


class FlatDHCP(Flat):
    """`Flat`, with dnsmasq."""

    name: ClassVar[str] = "flat_dhcp"
    tools: ClassVar[tuple[str, ...]] = (*Flat.tools, "dnsmasq")

    def __init__(
        self,
        directory: Path,
        *,
        mark: str,
        metadata: MetadataService | None,
        options: NetworkAgentOptions,
        clock: Clock,
    ) -> None:
        super().__init__(directory, mark=mark, metadata=metadata, options=options)
        self._clock = clock
        self._dhcp = DhcpOptions(
            lease_s=options.dhcp_lease_time, domain=options.dhcp_domain, serve_dns=options.serve_dns
        )

    def _server(self, network_id: str) -> AddressServer:
        return AddressServer(self._carried.directory_of(network_id), self._dhcp, self._clock)

    async def _serve(self, network: NetworkPlan, ports: Sequence[PortPlan]) -> None:
        await self._server(network.id).ensure(network, ports)

    async def _stop_serving(self, network_id: str) -> None:
        await self._server(network_id).stop()

    async def _repair_serving(self, network: NetworkPlan) -> list[str]:
        started = await self._server(network.id).ensure(network, self._carried.ports_of(network.id))
        return [f"address server: {network.bridge}"] if started else []
