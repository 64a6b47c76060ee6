"""One host's agent: start, report, reconcile, stop.

On start it asks what belongs here before it takes commands. It reports and compares by timer; both can be
missed any number of times.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger, set_service
from kilonova.compute.inventory import completed, cpu_set, custom_resources, custom_traits
from kilonova.compute.monitors import monitors
from kilonova.compute.options import ComputeOptions
from kilonova.compute.reconcile import reconcile
from kilonova.compute.tracker import Tracker
from kilonova.model.epochs import Epochs
from kilonova.model.errors import CloudError
from kilonova.model.host import HostReport
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.virt.driver import VirtDriver, capabilities

log = get_logger(__name__)

_SLOWEST = 4
"""Work that fails again and again comes at this many times its interval."""


class ComputeAgent:
    """Keeps one host and the conductor in agreement. Commands come in through `ComputeEndpoint`."""

    def __init__(
        self,
        host: str,
        agent_id: str,
        driver: VirtDriver,
        conductor: ConductorAPI,
        tracker: Tracker,
        epochs: Epochs,
        clock: Clock,
        options: ComputeOptions,
    ) -> None:
        """
        Raises:
            InventoryError: an option about what this host has cannot be read.
        """
        self.host = host
        self._agent_id = agent_id
        self._driver = driver
        self._conductor = conductor
        self._tracker = tracker
        self._epochs = epochs
        self._clock = clock
        self._options = options
        self._loops: list[asyncio.Task[None]] = []
        self._dedicated = cpu_set(options.cpu_dedicated_set)
        self._resources = custom_resources(options.resources)
        self._traits = custom_traits(options.traits)
        self._monitors = monitors(options.compute_monitors)

    async def start(self) -> None:
        """Bring up the hypervisor, report the host, remove what does not belong here.

        Raises:
            HypervisorUnavailable
            Conflict: another agent owns this host's name.
        """
        await self._driver.start()
        await self.report()
        await self.reconcile()

    def run(self) -> None:
        """Begin the periodic work."""
        options = self._options
        self._loops = [
            self._every(options.report_interval, self._heartbeat, "heartbeat", slowest=1),
            self._every(options.update_resources_interval, self.report, "report"),
            self._every(options.sync_power_state_interval, self.reconcile, "reconcile"),
        ]

    async def stop(self) -> None:
        """End the periodic work and let go of the hypervisor; guests run on."""
        for loop in self._loops:
            loop.cancel()
        for loop in self._loops:
            with contextlib.suppress(asyncio.CancelledError):
                await loop
        await self._driver.close()

    async def report(self) -> None:
        """Tell the conductor what this host has and holds."""
        await self._conductor.report_host(self._complete(await self._driver.report()), agent_id=self._agent_id)

    async def reconcile(self) -> None:
        """Compare guests with records, see `kilonova.compute.reconcile`."""
        await reconcile(self.host, self._conductor, self._driver, self._tracker, self._epochs)

    async def _heartbeat(self) -> None:
        answer = await self._conductor.heartbeat("compute", self.host, agent_id=self._agent_id)
        if not answer.known:
            await self.report()

    def _complete(self, report: HostReport) -> HostReport:
        options, usage = self._options, self._tracker.usage
        known = completed(report, dedicated=self._dedicated, resources=self._resources, traits=self._traits)
        whole = msgspec.structs.replace(
            known,
            host=self.host,
            vcpus_ratio=options.cpu_allocation_ratio,
            memory_ratio=options.ram_allocation_ratio,
            disk_ratio=options.disk_allocation_ratio,
            reserved_vcpus=options.reserved_host_cpus,
            reserved_memory_mib=min(options.reserved_host_memory_mb, report.memory_mib),
            reserved_disk_gib=min(-(-options.reserved_host_disk_mb // 1024), report.disk_gib),
            running_vms=usage.guests,
            roles=tuple(sorted(capabilities(self._driver))),
            metrics={**known.metrics, **{name: value for one in self._monitors for name, value in one().items()}},
        )
        self._tracker.set_capacity(whole)
        return whole

    def _every(
        self, seconds: float, work: Callable[[], Awaitable[None]], name: str, slowest: int = _SLOWEST
    ) -> asyncio.Task[None]:
        async def forever() -> None:
            set_service("compute", host=self.host)
            failures = 0
            while True:
                await self._clock.sleep(seconds * min(2 ** min(failures, 8), slowest))
                failures += 1
                try:
                    await work()
                    failures = 0
                except CloudError as error:
                    log.warning("periodic work failed", work=name, cause=error.message, failures=failures)
                except Exception:
                    log.exception("periodic work failed", work=name, failures=failures)

        return asyncio.create_task(forever(), name=f"compute.{name}.{self.host}")
