"""One host's network agent: what is plugged here has its bridge, its address and its rules; the rest is gone.

Commands come from tasks, with their epochs. What a host should carry is also asked of the conductor, on start and by
timer: a lost command costs time, and a change that no command tells (a port's allowed addresses, a subnet's name
servers) arrives that way at the latest.
"""

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger, set_service
from kilonova.base.metrics import CollectorRegistry, Counter
from kilonova.model.epochs import Epochs
from kilonova.model.errors import CloudError, NetworkFailed, Unavailable
from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.driver import NetworkDriver
from kilonova.network.flat import Flat
from kilonova.network.flat_dhcp import FlatDHCP
from kilonova.network.metadata_proxy import MetadataService
from kilonova.network.options import NetworkAgentOptions
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.rpcapi.network import NetworkAPI

log = get_logger(__name__)

_ASK_AFTER_S = 0.2
"""Seconds between a port that came and the question for its groups."""

_BELIEVED_AFTER_S = 600.0
"""Seconds after which a conductor that still names unplugged ports is believed: their task ended otherwise."""


class NetworkAgent(NetworkAPI):
    """Keeps one host's networks and the conductor in agreement."""

    def __init__(
        self,
        host: str,
        directory: Path,
        conductor: ConductorAPI,
        options: NetworkAgentOptions,
        clock: Clock,
        metrics: CollectorRegistry,
        *,
        table: str,
        api_url: str,
        secret: str,
        driver: NetworkDriver | None = None,
    ) -> None:
        """
        Args:
            directory: where the address servers' files and the agent's records live.
            table: name of this cloud's nftables tables on this host, and the mark of its bridges.
            api_url: root of the APIs, below which the metadata service is.
            secret: shared with the metadata service.
            driver: instead of the one that the options name.
        """
        self._host = host
        self._conductor = conductor
        self._clock = clock
        self._options = options
        self._mended = Counter(
            "kilonova_network_repairs", "Parts of networks that were made again after somebody took them away",
            ["part"], registry=metrics,
        )  # fmt: skip
        self._failed = Counter(
            "kilonova_network_failures", "Rounds of repair or comparison that failed", ["work"], registry=metrics
        )
        service = MetadataService(url=f"{api_url}/metadata", secret=secret)
        self.driver = driver or choose_driver(self._options, directory, table, service, self._clock)
        self._epochs = Epochs()
        self._inside: collections.Counter[str] = collections.Counter()
        """Servers for which commands are under way."""
        self._touched: set[str] = set()
        """Servers for which commands came since the conductor was asked last."""
        self._unplugged: dict[str, float] = {}
        """Servers whose ports a command took away, and when. The conductor may name them until their task has written
        that down."""
        self._comparing = asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what was carried before, make what belongs here, remove what does not any more.

        Raises:
            NetworkFailed: a tool is missing or refuses.
        """
        await self.driver.start()
        try:
            await self.refresh()
        except Unavailable as error:
            # What was carried before goes on; the timer asks again.
            log.warning("the conductor does not say what belongs here", cause=error.message)
        except NetworkFailed as error:
            # One network that cannot be here keeps no other's guests waiting.
            log.error("not all that belongs here could be made; it is tried again", cause=error.message)
        self._loops = [
            self._every(self._options.repair_interval, self.repair, "repair"),
            self._every(self._options.reconcile_interval, self.refresh, "reconcile"),
        ]

    async def close(self, *, remove: bool = False) -> None:
        """End the periodic work; networks stay for their guests unless they shall be removed."""
        loops, self._loops = self._loops, []
        if self._asking is not None:
            loops.append(self._asking)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self.driver.close(remove=remove)

    async def plug(self, server_id: str, networks: list[NetworkPlan], ports: list[PortPlan], *, epoch: int) -> None:
        with self._commanded(server_id):
            async with self._epochs.enter(server_id, epoch):
                self._unplugged.pop(server_id, None)
                await self.driver.plug(networks, ports)
        if any(rule.remote_group for port in ports for rule in port.rules or ()):
            self._ask_soon()
        log.info("ports are ready", server=server_id, ports=len(ports), bridges=[n.bridge for n in networks])

    async def unplug(self, server_id: str, *, epoch: int) -> None:
        with self._commanded(server_id):
            async with self._epochs.enter(server_id, epoch):
                self._unplugged[server_id] = self._clock.monotonic()
                await self.driver.unplug(server_id)
        log.info("ports are gone", server=server_id)

    async def refresh(self) -> None:
        """Ask the conductor what belongs here, and make it so.

        The answer may be older than commands that come while it is on its way: their servers are left as they are.
        Ports that a command took away come back by a command, or if the conductor names them for long.
        """
        async with self._comparing:
            self._touched = set(self._inside)
            before = dict(self._unplugged)
            answer = await self._conductor.networks_of(self._host)
            named = {port.server_id for port in answer.ports}
            for server_id, since in before.items():
                is_over = server_id not in named or self._clock.monotonic() - since > _BELIEVED_AFTER_S
                if is_over and self._unplugged.get(server_id) == since:
                    del self._unplugged[server_id]
            ports = tuple(port for port in answer.ports if port.server_id not in self._unplugged)
            wanted = msgspec.structs.replace(answer, ports=ports)
            # Read when the driver's turn for it comes, so that commands that come until then count, too.
            report = await self.driver.reconcile(wanted, leave=self._touched)
        if not report.is_clean:
            log.info(
                "networks are as the conductor says again",
                missing=report.missing,
                changed=report.changed,
                stray=report.stray,
            )

    def _ask_soon(self) -> None:
        """Who is in the groups of new ports only the conductor knows. Asked once for all that come meanwhile."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name=f"network.ask.{self._host}")

    async def _ask(self) -> None:
        await self._clock.sleep(_ASK_AFTER_S)
        try:
            await self.refresh()
        except CloudError as error:
            log.warning("who is in which security group is not known yet; it is asked again", cause=error.message)

    async def repair(self) -> list[str]:
        """Look once whether all that is carried is as it was made, and mend it; what was mended, in words."""
        mended = await self.driver.repair()
        for what in mended:
            # The kind of thing alone: names of bridges would make a series each.
            self._mended.labels(part=what.partition(":")[0]).inc()
        return mended

    @contextlib.contextmanager
    def _commanded(self, server_id: str) -> Iterator[None]:
        self._inside[server_id] += 1
        self._touched.add(server_id)
        try:
            yield
        finally:
            self._inside[server_id] -= 1
            if not self._inside[server_id]:
                del self._inside[server_id]

    def _every(self, seconds: float, work: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
        async def forever() -> None:
            set_service("network", host=self._host)
            while True:
                await self._clock.sleep(seconds)
                try:
                    await work()
                except CloudError as error:
                    self._failed.labels(work=name).inc()
                    log.warning("periodic work failed", work=name, cause=error.message)
                except Exception:
                    self._failed.labels(work=name).inc()
                    log.exception("periodic work failed", work=name)

        return asyncio.create_task(forever(), name=f"network.{name}.{self._host}")


def choose_driver(
    options: NetworkAgentOptions, directory: Path, mark: str, metadata: MetadataService, clock: Clock
) -> NetworkDriver:
    """The driver that the options name."""
    if options.network_driver == "flat":
        return Flat(directory, mark=mark, metadata=metadata, options=options)
    return FlatDHCP(directory, mark=mark, metadata=metadata, options=options, clock=clock)
