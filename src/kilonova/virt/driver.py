"""What every hypervisor driver does: a small core, and roles for the rest.

What a driver can do is read off the roles it plays (`capabilities`), so it cannot promise what it
lacks. Every method may be called again after a crash, with the effect of once. A driver touches only
guests that it made itself; others on the same hypervisor are not seen and never changed.

Lifetimes: `start` is called once before anything else, `close` once at the end; guests keep running
across both, and across a kill of the process between them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from kilonova.model.guest import GuestSpec, GuestState, ImageRef
from kilonova.model.host import HostReport


class ImageSource(Protocol):
    """Where a driver that boots from disk images gets them: the agent's per-host cache."""

    async def path_of(self, image: ImageRef) -> str:
        """Path of a complete, checksummed local file with the image's bytes, fetched at most once per host.

        Raises:
            ImageUnusable: not there, wrong checksum, or larger than declared.
        """
        ...


class VirtDriver(ABC):
    """Lifecycle of guests on one host."""

    name: ClassVar[str]

    @abstractmethod
    async def start(self) -> None:
        """Connect to the hypervisor, starting it where that is this driver's business.

        After it, every other method works.

        Raises:
            HypervisorUnavailable: it cannot be reached; the message says what to install or start.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the hypervisor. Guests go on running."""

    @abstractmethod
    async def report(self) -> HostReport:
        """Capacity, identity and abilities of this host, as they are now."""

    @abstractmethod
    async def list_guests(self) -> Mapping[str, GuestState]:
        """All guests that this driver made here, running or not, by server id.

        A guest whose `spawn` was cut off by a crash is listed too, as long as anything of it exists
        (a definition, a disk, a directory), so that the caller can destroy the remains.
        """

    @abstractmethod
    async def spawn(self, spec: GuestSpec) -> None:
        """Define and start the guest, and return when its virtual CPUs run.

        Before: the bridges named in `spec.nics` exist. The caller allows one call at a time per server.
        Idempotent: a guest with `spec.server_id` that already runs is left as it is; one that is
        defined but stopped is started; half-made remains are completed or made anew. With
        `spec.power_on` false the guest is defined and left off. On error or cancellation nothing that this call
        made remains on the host; what was there before (a stopped guest, a disk) is left as it was.

        With `spec.replaces`, a guest of another `spec.build` is destroyed and this one made in its place. The image is
        there and proven before that: after `ImageUnusable` the older guest is as it was, after any other error there
        may be none.

        Raises:
            InsufficientResources: the hypervisor has less free memory or disk, or fewer CPUs in all, than `spec`
                wants. Another host may do.
            HypervisorUnavailable: no answer within the driver's own time limit (default 30 s).
                The same call may be tried again.
            ImageUnusable: the image cannot be fetched, or its bytes are not what it says.
            GuestRejected: the hypervisor refuses this guest for good (message as it gave it).
        """

    @abstractmethod
    async def destroy(self, server_id: str) -> None:
        """Stop the guest at once, undefine it and remove its disks and all that was made for it.

        A guest that is not there is not an error. After it, `list_guests` does not show the guest.

        Raises:
            HypervisorUnavailable: nothing is promised about the guest; call again.
        """

    @abstractmethod
    async def power_on(self, server_id: str) -> None:
        """Start the stopped guest, as `spawn` defined it. Running already is not an error.

        Raises:
            GuestNotFound: it was never spawned here.
            HypervisorUnavailable, InsufficientResources: as in `spawn`.
        """

    @abstractmethod
    async def power_off(self, server_id: str, *, grace_s: float = 0.0) -> None:
        """Bring the guest to a stop: ask it to shut down, and after `grace_s` seconds pull the plug.

        0 pulls at once. Stopped already is not an error. Disks stay. A cancelled call leaves the guest on or off,
        never in between.

        Raises:
            GuestNotFound, HypervisorUnavailable
        """

    @abstractmethod
    async def reboot(self, server_id: str, *, hard: bool, grace_s: float = 60.0) -> None:
        """Restart the guest: soft asks the guest's system and turns hard after `grace_s`; hard resets it.

        A hard reboot of a stopped guest starts it. After it the guest runs. Calling it again reboots again: the
        caller decides whether a repeated reboot is harmless.

        Raises:
            GuestNotFound, HypervisorUnavailable
        """


class ConsoleLog(ABC):
    """Role: what the guest wrote to its serial console."""

    @abstractmethod
    async def console_log(self, server_id: str, *, max_bytes: int) -> bytes:
        """The last `max_bytes` bytes at the most. Empty before the guest has written anything.

        Raises:
            GuestNotFound
        """


class Remains(ABC):
    """Role: can tell what a whole host still holds, for leak checks in tests and by `kilonova doctor`."""

    @abstractmethod
    async def remains(self) -> list[str]:
        """Everything this driver made that exists now: ``domain:NAME``, ``disk:PATH``, ``tap:NAME`` …"""


class ImageUse(ABC):
    """Role: guests' disks lie on top of images in the agent's cache, which must keep these."""

    @abstractmethod
    async def images_in_use(self) -> frozenset[str]:
        """Ids of all images that a guest here needs or is about to need, running or not."""


ROLES: Final[tuple[type, ...]] = (ConsoleLog, ImageUse, Remains)


def capabilities(driver: VirtDriver) -> frozenset[str]:
    """Names of the roles that `driver` plays, as shown by the hypervisors API."""
    return frozenset(role.__name__ for role in ROLES if isinstance(driver, role))
