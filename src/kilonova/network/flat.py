"""Flat networks: a bridge for each network, the host's address on it, rules, and the way to metadata."""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from kilonova.base.log import get_logger
from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network import bridges, nftables
from kilonova.network.carried import Carried
from kilonova.network.driver import NetworkDriver, Report
from kilonova.network.metadata_proxy import MetadataProxy, MetadataService
from kilonova.network.options import NetworkAgentOptions
from kilonova.network.wants import Wants

log = get_logger(__name__)

T = TypeVar("T")


class Flat(NetworkDriver):
    """Bridges without an address server: guests take their addresses from the config drive."""

    name: ClassVar[str] = "flat"
    tools: ClassVar[tuple[str, ...]] = ("ip", "nft")

    def __init__(
        self, directory: Path, *, mark: str, metadata: MetadataService | None, options: NetworkAgentOptions
    ) -> None:
        """
        Args:
            directory: this driver's own; a network's files are in a directory in it.
            mark: names this cloud on this host: its nftables tables are called so, its bridges carry it as alias.
                Letters, digits and underscores.
            metadata: where guests' questions go; None: there is no metadata service.
        """
        self._carried = Carried(directory)
        self._mark = mark
        self._metadata = metadata
        self._options = options
        self._lock = asyncio.Lock()
        self._proxies: dict[str, MetadataProxy] = {}
        self._leaving: dict[str, str] = {}
        """Networks that are not carried any more but not removed yet, a tool having failed, and their bridges."""
        self._is_owing = False
        """Whether the last change did not come to its end."""
        self._written = ""
        """The rules that were written last."""
        self._standing = ""
        """Our tables as the kernel showed them right after that."""

    # ---- the driver's interface --------------------------------------------------------------------------------

    async def start(self) -> None:
        for tool in self.tools:
            if shutil.which(tool) is None:
                raise NetworkFailed(f"{tool} is not on this host; install it.")
        for port in self._options.host_ports_for_guests:
            if port != "*" and not (port.isdigit() and 0 < int(port) < 65536):
                raise NetworkFailed(f"[network] host_ports_for_guests: '{port}' is neither a port nor '*'.")
        self._carried.load()
        await self._whole(self._restore)

    async def close(self, *, remove: bool = False) -> None:
        if remove:
            await self._whole(self._carry_nothing)
        proxies, self._proxies = self._proxies, {}
        await asyncio.gather(*(proxy.close() for proxy in proxies.values()))

    async def plug(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        async def work() -> None:
            carried = self._carried
            asked = {network.id: network for network in networks}
            failures = await self._become(
                {**carried.networks, **asked}.values(),
                {**carried.ports, **{port.nic.port_id: port for port in ports}}.values(),
                also=asked,
            )
            _raise_first({network_id: error for network_id, error in failures.items() if network_id in asked})

        await self._whole(work)

    async def unplug(self, server_id: str) -> None:
        async def work() -> None:
            mine = {port.nic.network_id for port in self._carried.of_server(server_id)}
            if mine or self._is_owing:
                left = [port for port in self._carried.ports.values() if port.server_id != server_id]
                failures = await self._become(self._carried.networks.values(), left)
                # Who asks again has no ports any more: it is told of whatever is still owed.
                _raise_first({key: error for key, error in failures.items() if key in mine or not mine})

        await self._whole(work)

    def carried(self) -> HostNetworks:
        return self._carried.snapshot()

    async def reconcile(self, wanted: HostNetworks, *, leave: Collection[str] = ()) -> Report:
        return await self._whole(lambda: self._compare(wanted, leave))

    async def repair(self) -> list[str]:
        return await self._whole(self._repair)

    # ---- changes ------------------------------------------------------------------------------------------------

    async def _whole(self, change: Callable[[], Awaitable[T]]) -> T:
        """Run one change alone, and to its end: a caller that is cancelled goes when it is done.

        So nothing is left half made by a newer command that supersedes an older one.
        """

        async def alone() -> T:
            async with self._lock:
                return await change()

        task = asyncio.ensure_future(alone())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("a change that nobody waits for failed", cause=str(error))
            raise

    async def _become(
        self, networks: Iterable[NetworkPlan], ports: Iterable[PortPlan], *, also: Iterable[str] = ()
    ) -> dict[str, NetworkFailed]:
        """Carry these ports and the networks that they are on; why some networks could not be made, or not removed.

        Args:
            also: networks to make sure of, changed or not.

        Raises:
            NetworkFailed: nothing could be made, because the rules could not.
        """
        self._is_owing = True
        before = list(self._carried.networks.values())
        touched = self._carried.replace(networks, ports) | {one for one in also if one in self._carried.networks}
        kept = [self._carried.networks[network_id] for network_id in touched if network_id in self._carried.networks]
        bridges_before = self._leaving | {network.id: network.bridge for network in before}
        self._leaving = {key: name for key, name in bridges_before.items() if key not in self._carried.networks}
        for network_id in self._leaving:
            self._carried.strike_out(network_id)  # an agent that starts now shall not make it again
        # Written down before it is made: what is made and not written down would be found by its mark alone.
        for network in kept:
            self._carried.save(network.id)
        failures = await self._remove_leaving()
        failures |= (await self._ensure_bridges(kept))[1]
        await self._apply_rules()
        for network in kept:
            if network.id not in failures:
                try:
                    # Rules first: a tap that is there already carries nothing before they stand.
                    await self._join(network)
                    await self._serve(network, self._carried.ports_of(network.id))
                except NetworkFailed as error:
                    failures[network.id] = error
        self._is_owing = bool(failures)
        return failures

    async def _carry_nothing(self) -> None:
        _raise_first(await self._become((), ()))

    async def _remove_leaving(self) -> dict[str, NetworkFailed]:
        failures: dict[str, NetworkFailed] = {}
        for network_id, bridge in list(self._leaving.items()):
            try:
                await self._remove(network_id, bridge)
                del self._leaving[network_id]
            except NetworkFailed as error:
                failures[network_id] = error
        return failures

    async def _remove(self, network_id: str, bridge: str | None) -> None:
        await self._stop_proxy(network_id)
        await self._stop_serving(network_id)
        if bridge is not None:
            await bridges.remove(bridge)
        self._carried.forget(network_id)

    async def _serve(self, network: NetworkPlan, ports: Sequence[PortPlan]) -> None:
        """Give guests their addresses: for drivers that do."""

    async def _stop_serving(self, network_id: str) -> None:
        """The end of it."""

    async def _ensure_proxy(self, network: NetworkPlan) -> None:
        address = next((subnet.host_address for subnet in network.subnets if subnet.host_address), None)
        proxy = self._proxies.get(network.id)
        if proxy is not None and (proxy.address != address or not proxy.is_up):
            await self._stop_proxy(network.id)
            proxy = None
        if proxy is None and address is not None and self._metadata is not None:
            proxy = MetadataProxy(
                address, network.bridge, lambda source: self._carried.sender(network.id, source), self._metadata
            )
            await proxy.start(self._options.metadata_proxy_port)
            self._proxies[network.id] = proxy

    async def _stop_proxy(self, network_id: str) -> None:
        proxy = self._proxies.pop(network_id, None)
        if proxy is not None:
            await proxy.close()

    async def _ensure_bridges(self, networks: Iterable[NetworkPlan]) -> tuple[list[str], dict[str, NetworkFailed]]:
        """Bridges and metadata proxies: which of them were not as they should be; the networks where it failed."""
        changed: list[str] = []
        failures: dict[str, NetworkFailed] = {}
        for network in networks:
            try:
                did = await bridges.ensure(network, self._mark, reserved=self._options.reserved_blocks)
                if did.is_changed:
                    changed.append(f"bridge: {network.bridge}")
                if did.is_new:
                    # They listened on a bridge that is gone.
                    await self._stop_serving(network.id)
                    await self._stop_proxy(network.id)
                before = self._proxies.get(network.id)
                await self._ensure_proxy(network)
                if before is not self._proxies.get(network.id):
                    changed.append(f"metadata proxy: {network.bridge}")
            except NetworkFailed as error:
                failures[network.id] = error
        return changed, failures

    async def _join(self, network: NetworkPlan) -> bool:
        taps = [port.nic.tap for port in self._carried.ports_of(network.id)]
        return await bridges.join(network, card=self._card_of(network), taps=taps)

    def _card_of(self, network: NetworkPlan) -> str:
        return self._options.flat_interface if network.name == self._options.flat_network_name else ""

    async def _apply_rules(self) -> bool:
        """Whether anything had to be written."""
        networks = list(self._carried.networks.values())
        carried = self._carried.snapshot()
        rules = nftables.Ruleset(self._wants(), networks, carried.ports, carried.members)
        if rules.text == self._written and await nftables.standing(self._mark) == self._standing:
            return False
        # A failure leaves it open what stands.
        self._written = ""
        await nftables.apply(self._mark, rules)
        self._written, self._standing = rules.text, await nftables.standing(self._mark)
        has_way_out = any(subnet.gateway for network in networks for subnet in network.subnets)
        if has_way_out and self._options.masquerade:
            bridges.allow_forwarding()
        return True

    def _wants(self) -> Wants:
        networks = self._carried.networks.values()
        return Wants(
            table=self._mark,
            masquerade=self._options.masquerade,
            serve_dns=self._options.serve_dns,
            host_ports=self._options.host_ports_for_guests,
            proxies={network_id: (proxy.address, proxy.port) for network_id, proxy in self._proxies.items()},
            cards={network.id: card for network in networks if (card := self._card_of(network))},
        )

    # ---- looking after what there is --------------------------------------------------------------------------------

    async def _restore(self) -> None:
        # What is not written down stays until the conductor has been asked: it may be a guest's all the same.
        networks = dict(self._carried.networks)
        if networks:
            failures = await self._become(networks.values(), self._carried.ports.values(), also=networks)
            for network_id, error in failures.items():
                # The others' guests shall not wait for it; comparison and repair try again.
                log.error("a network is not as it should be", network=network_id, cause=error.message)

    async def _remove_unknown(self) -> list[str]:
        """Take away bridges with our mark, and directories, of networks that are not carried."""
        names = {network.bridge for network in self._carried.networks.values()} | set(self._leaving.values())
        strays = sorted(await bridges.marked(self._mark) - names)
        for name in strays:
            await bridges.remove(name)
        for directory in list(self._carried.directories()):
            if directory.name not in self._carried.networks and directory.name not in self._leaving:
                await self._remove(directory.name, None)
                strays.append(directory.name)
        if strays:
            log.info("strays are removed", strays=strays)
        return strays

    async def _compare(self, wanted: HostNetworks, leave: Collection[str]) -> Report:
        becoming, report = self._carried.compare(wanted, leave=leave)
        self._carried.learn(wanted.members)
        # Unchanged networks are made sure of, too: a change before may have failed half way.
        failures = await self._become(
            becoming.networks, becoming.ports, also=[network.id for network in becoming.networks]
        )
        await self._remove_unknown()
        _raise_first(failures)
        return report

    async def _repair(self) -> list[str]:
        networks = list(self._carried.networks.values())
        mended, failures = await self._ensure_bridges(networks)
        if await self._apply_rules():
            mended.append("rules")
        for network in networks:
            if network.id not in failures:
                try:
                    if await self._join(network):
                        mended.append(f"port: {network.bridge}")
                    mended += await self._repair_serving(network)
                except NetworkFailed as error:
                    failures[network.id] = error
        if mended:
            log.warning("something was taken away behind our back and is made again", mended=mended)
        _raise_first(failures)
        return mended

    async def _repair_serving(self, network: NetworkPlan) -> list[str]:
        return []


def _raise_first(failures: Mapping[str, NetworkFailed]) -> None:
    for error in failures.values():
        raise error
