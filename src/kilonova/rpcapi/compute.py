"""How the rest of the cloud talks to a compute agent.

1.0  spawn, destroy, power_on, power_off, reboot, console_log, ping
1.1  spawn: the guest has `flavor_name` (GuestSpec 1.1)
1.2  spawn: the guest has `cells` and `pci_devices` (GuestSpec 1.2)
1.3  spawn: the guest has `build` and `replaces`, for rebuilds, and `files` (GuestSpec 1.3)

A command goes out in the lowest version that says all of it, so that agents are upgraded one by one.
"""

from typing import ClassVar, Protocol

from kilonova.base.log import get_logger
from kilonova.model.errors import GuestRejected, NotSupported
from kilonova.model.guest import GuestSpec
from kilonova.rpc.client import Target
from kilonova.rpcapi.wire import downgrade

log = get_logger(__name__)


class ComputeAPI(Protocol):
    """Commands of one host. `epoch` is the task's: an agent refuses one older than it has seen for the server.

    All are idempotent but `reboot`. Errors are those of `kilonova.virt.driver.VirtDriver`, and `StaleEpoch`.
    """

    topic: ClassVar[str] = "compute"
    version: ClassVar[str] = "1.3"
    quiet: ClassVar[frozenset[str]] = frozenset({"ping"})

    async def spawn(self, guest: GuestSpec, *, epoch: int) -> None:
        """Claim room locally and run the guest; returns when it runs.

        An agent that is too old to replace the guest of an earlier build is not asked to: `NotSupported`.
        """
        ...

    async def destroy(self, server_id: str, *, epoch: int) -> None: ...

    async def power_on(self, server_id: str, *, epoch: int) -> None: ...

    async def power_off(self, server_id: str, *, epoch: int, grace_s: float = 60.0) -> None: ...

    async def reboot(self, server_id: str, *, epoch: int, hard: bool, grace_s: float = 60.0) -> None: ...

    async def console_log(self, server_id: str, *, max_bytes: int) -> str:
        """The tail of the serial log, decoded with replacement characters."""
        ...

    async def ping(self) -> str:
        """The host's name."""
        ...


class ComputeClient(ComputeAPI):
    """Sends to ``compute.<host>``."""

    def __init__(self, target: Target) -> None:
        self._newest = target
        self._target = target.at("1.0")

    async def spawn(self, guest: GuestSpec, *, epoch: int) -> None:
        # An agent that does not answer is not an old one: where older versions cannot say it, it is asked again later.
        if guest.replaces and not await self._newest.can("1.3"):
            raise NotSupported("The agent of this host is too old to rebuild guests: upgrade it first.")
        if (guest.cells or guest.pci_devices) and not await self._newest.can("1.2"):
            raise GuestRejected("The agent of this host is too old to give guests CPUs or devices of their own.")
        if await self._newest.takes("1.3"):
            await self._newest.at("1.3").call("spawn", guest=guest, epoch=epoch, deadline_s=600)
            return
        version = await self._older()
        log.info("guest is described in an older version", server=guest.server_id, version=version)
        older = downgrade(guest, version)
        await self._newest.at(version).call("spawn", guest=older, epoch=epoch, deadline_s=600)

    async def _older(self) -> str:
        for version in ("1.2", "1.1"):
            if await self._newest.takes(version):
                return version
        return "1.0"

    async def destroy(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("destroy", server_id=server_id, epoch=epoch, deadline_s=120)

    async def power_on(self, server_id: str, *, epoch: int) -> None:
        await self._target.call("power_on", server_id=server_id, epoch=epoch, deadline_s=120)

    async def power_off(self, server_id: str, *, epoch: int, grace_s: float = 60.0) -> None:
        await self._target.call(
            "power_off", server_id=server_id, epoch=epoch, grace_s=grace_s, deadline_s=120 + grace_s
        )

    async def reboot(self, server_id: str, *, epoch: int, hard: bool, grace_s: float = 60.0) -> None:
        await self._target.call(
            "reboot", server_id=server_id, epoch=epoch, hard=hard, grace_s=grace_s, deadline_s=120 + grace_s
        )

    async def console_log(self, server_id: str, *, max_bytes: int) -> str:
        text: str = await self._target.call("console_log", server_id=server_id, max_bytes=max_bytes, deadline_s=20)
        return text

    async def ping(self) -> str:
        name: str = await self._target.call("ping", deadline_s=5)
        return name
