"""One host's network agent: what is plugged here has its bridge, its address and its rules; the rest is gone.

All of a network is made with its first port and removed with its last. Address servers and rules outlive this
process; on start it compares with what the conductor says belongs here.
"""

import asyncio
from pathlib import Path

from kilonova.base.log import get_logger
from kilonova.model.epochs import Epochs
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network import bridge, nftables
from kilonova.network.dnsmasq import AddressServer
from kilonova.network.metadata_proxy import MetadataProxy
from kilonova.network.options import NetworkAgentOptions
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.rpcapi.network import NetworkAPI

log = get_logger(__name__)


class NetworkAgent(NetworkAPI):
    """Flat networks with DHCP on Linux bridges."""

    def __init__(
        self,
        host: str,
        directory: Path,
        conductor: ConductorAPI,
        options: NetworkAgentOptions,
        *,
        table: str,
        api_url: str,
        secret: str,
    ) -> None:
        """
        Args:
            directory: where the address servers' files live.
            table: name of this cloud's nftables tables on this host.
            secret: shared with the metadata service.
        """
        self._host = host
        self._directory = directory
        self._conductor = conductor
        self._options = options
        self._table = table
        self._api_url = api_url
        self._secret = secret
        self._epochs = Epochs()
        self._lock = asyncio.Lock()
        self._networks: dict[str, NetworkPlan] = {}
        self._ports: dict[str, PortPlan] = {}
        self._proxies: dict[str, MetadataProxy] = {}

    async def start(self) -> None:
        """Make what belongs here, remove what does not any more."""
        wanted = await self._conductor.networks_of(self._host)
        self._directory.mkdir(parents=True, exist_ok=True)
        async with self._lock:
            self._networks = {network.id: network for network in wanted.networks}
            self._ports = {port.nic.port_id: port for port in wanted.ports}
            for path in list(self._directory.iterdir()):
                if path.name not in self._networks:
                    await self._remove(path.name, (path / "bridge").read_text() if (path / "bridge").exists() else "")
            for network_id in list(self._networks):
                await self._ensure(network_id)
            await self._rules()

    async def close(self) -> None:
        """Stop the proxies; networks stay for their guests."""
        for proxy in self._proxies.values():
            await proxy.close()

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch), self._lock:
            self._networks |= {network.id: network for network in networks}
            self._ports |= {port.nic.port_id: port for port in ports}
            for network in networks:
                await self._ensure(network.id)
            await self._rules()
        log.info("ports are ready", server=server_id, ports=len(ports), bridges=[n.bridge for n in networks])

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        async with self._epochs.enter(server_id, epoch), self._lock:
            gone = [port_id for port_id, port in self._ports.items() if port.server_id == server_id]
            touched = {self._ports.pop(port_id).nic.network_id for port_id in gone}
            for network_id in touched:
                if self._ports_of(network_id):
                    await self._ensure(network_id)
            await self._rules()
            for network_id in touched:
                if not self._ports_of(network_id):
                    network = self._networks.pop(network_id)
                    await self._remove(network_id, network.bridge)
        if gone:
            log.info("ports are gone", server=server_id, ports=len(gone))

    def _ports_of(self, network_id: str) -> list[PortPlan]:
        return [port for port in self._ports.values() if port.nic.network_id == network_id]

    async def _ensure(self, network_id: str) -> None:
        network = self._networks[network_id]
        directory = self._directory / network_id
        directory.mkdir(exist_ok=True)
        (directory / "bridge").write_text(network.bridge)
        await bridge.ensure(network, card=self._card_of(network))
        if any(subnet.enable_dhcp for subnet in network.subnets):
            await AddressServer(directory).ensure(network, self._ports_of(network_id))
        address = next((subnet.host_address for subnet in network.subnets if subnet.host_address), None)
        if address is not None and network_id not in self._proxies:
            proxy = MetadataProxy(address, lambda source: self._who(network_id, source), self._api_url, self._secret)
            await proxy.start()
            self._proxies[network_id] = proxy

    async def _remove(self, network_id: str, bridge_name: str) -> None:
        proxy = self._proxies.pop(network_id, None)
        if proxy is not None:
            await proxy.close()
        await AddressServer(self._directory / network_id).remove()
        if bridge_name:
            await bridge.remove(bridge_name)

    async def _rules(self) -> None:
        proxies = {network_id: (proxy.address, proxy.port) for network_id, proxy in self._proxies.items()}
        networks = list(self._networks.values())
        cards = {network.id: card for network in networks if (card := self._card_of(network))}
        await nftables.apply(self._table, networks, list(self._ports.values()), proxies, cards)

    def _card_of(self, network: NetworkPlan) -> str:
        return self._options.flat_interface if network.name == self._options.flat_network_name else ""

    def _who(self, network_id: str, source: str) -> tuple[str, str] | None:
        for port in self._ports_of(network_id):
            if any(ip.address == source for ip in port.nic.fixed_ips):
                return port.server_id, port.project_id
        return None
