"""What is used on this host, and what is about to be.

The conductor's claim (a conditional write) decides who may come; the tracker checks it once more against
this host's own hypervisor, so that a host whose memory has shrunk since its last report, or that runs guests
nobody knows of, refuses instead of failing half-way. It counts guests, and claims of guests in the
making; a claim is given back when the driver fails.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kilonova.model.errors import InsufficientResources
from kilonova.model.guest import GuestSpec, GuestState
from kilonova.model.host import HostReport


@dataclass(frozen=True)
class Usage:
    """What guests take: virtual CPUs, MiB, GiB, and how many they are."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    guests: int = 0


@dataclass(frozen=True)
class _Held:
    vcpus: int
    memory_mib: int
    disk_gib: int


class Tracker:
    """One host's books. For one event loop."""

    def __init__(self) -> None:
        self._capacity: HostReport | None = None
        self._held: dict[str, _Held] = {}
        self._claims: dict[str, int] = {}
        self._moment = 0
        self._changed: dict[str, int] = {}
        self._observed = 0

    def set_capacity(self, report: HostReport) -> None:
        """The host is as large as `report` says."""
        self._capacity = report

    def moment(self) -> int:
        """Now, by these books: taken before the hypervisor is looked at, and given to `observe` with what was seen."""
        return self._moment

    def observe(self, guests: Iterable[GuestState], *, since: int) -> None:
        """These guests existed at some time after the moment `since`.

        The books win over the look for guests in the making, and for those made or removed since: the
        look may have been before or after. A look older than one that is in the books already is dropped.
        """
        if since < self._observed:
            return
        held = {g.server_id: _Held(g.vcpus, g.memory_mib, g.root_gib) for g in guests}
        self._changed = {server_id: moment for server_id, moment in self._changed.items() if moment > since}
        for server_id in (*self._claims, *self._changed):
            if server_id in self._held:
                held[server_id] = self._held[server_id]
            else:
                held.pop(server_id, None)
        self._held = held
        self._observed = since

    @asynccontextmanager
    async def claim(self, guest: GuestSpec) -> AsyncIterator[None]:
        """Hold room for `guest` while it is made; it keeps the room if the body succeeds, else all is as before.

        Raises:
            InsufficientResources
        """
        before = self._held.get(guest.server_id)
        wanted = _Held(guest.vcpus, guest.memory_mib, guest.root_gib + guest.ephemeral_gib)
        if before is None:
            self._test(wanted)
        self._held[guest.server_id] = wanted
        self._claims[guest.server_id] = self._claims.get(guest.server_id, 0) + 1
        try:
            yield
        except BaseException:
            if before is None:
                self._held.pop(guest.server_id, None)
            else:
                self._held[guest.server_id] = before
            raise
        finally:
            self._claims[guest.server_id] -= 1
            if not self._claims[guest.server_id]:
                del self._claims[guest.server_id]
            self._touch(guest.server_id)

    def release(self, server_id: str) -> None:
        """The guest is gone."""
        self._held.pop(server_id, None)
        self._touch(server_id)

    @property
    def usage(self) -> Usage:
        """What is taken, claims included."""
        held = self._held.values()
        return Usage(
            vcpus=sum(h.vcpus for h in held),
            memory_mib=sum(h.memory_mib for h in held),
            disk_gib=sum(h.disk_gib for h in held),
            guests=len(held),
        )

    def _touch(self, server_id: str) -> None:
        self._moment += 1
        self._changed[server_id] = self._moment

    def _test(self, wanted: _Held) -> None:
        size = self._capacity
        if size is None:
            return
        used = self.usage
        for what, unit, need, taken, total, ratio in (
            ("memory", "MiB", wanted.memory_mib, used.memory_mib, size.memory_mib, size.memory_ratio),
            ("CPUs", "", wanted.vcpus, used.vcpus, size.vcpus, size.vcpus_ratio),
            ("disk", "GiB", wanted.disk_gib, used.disk_gib, size.disk_gib, size.disk_ratio),
        ):
            room = total * ratio
            if need and taken + need > room:
                raise InsufficientResources(
                    f"The guest needs {need} {unit} of {what}; {taken} of {room:g} are taken on this host."
                )
