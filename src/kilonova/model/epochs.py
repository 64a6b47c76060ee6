"""How an agent keeps commands for one server in order (law 4).

Every command carries the epoch of its task, which grows whenever another worker takes the task over.
`Epochs.enter` admits one command at a time for each server, refuses a smaller epoch than it has seen,
and ends an older command that is still under way when a newer one comes, because nobody waits for
the older one's result any more.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kilonova.model.errors import StaleEpoch


@dataclass
class _Inside:
    """The command that is being carried out."""

    task: asyncio.Task[Any]
    epoch: int
    superseded: bool = False


@dataclass
class _Seat:
    """One server's place: the highest epoch seen, and who sits there."""

    epoch: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: _Inside | None = None
    users: int = 0


class Epochs:
    """The epochs one agent has seen. For one event loop; one agent has one."""

    def __init__(
        self,
        *,
        remembered: int = 20_000,
        known: Mapping[str, int] | None = None,
        record: Callable[[str, int], None] | None = None,
    ) -> None:
        """
        Args:
            remembered: servers whose epoch is kept after the last command for them; the oldest go first.
            known: epochs that were seen before the agent was started again, oldest first.
            record: told each epoch that is higher than those before it, before its command is carried out.
        """
        self._remembered = remembered
        self._record = record
        self._seats: OrderedDict[str, _Seat] = OrderedDict(
            (server_id, _Seat(epoch)) for server_id, epoch in (known or {}).items()
        )
        self._forget_oldest()

    def seen(self, server_id: str) -> int:
        """The highest epoch seen for a server; 0 if none was."""
        seat = self._seats.get(server_id)
        return seat.epoch if seat else 0

    def learn(self, server_id: str, epoch: int) -> None:
        """Refuse commands below `epoch` from now on: what an agent is told when it starts."""
        self._raise(self._seat(server_id), server_id, epoch)
        self._forget_oldest()

    @asynccontextmanager
    async def enter(self, server_id: str, epoch: int) -> AsyncIterator[None]:
        """Hold the server for one command; not to be entered again from inside.

        An older command that is inside is cancelled, and waited for until it has cleaned up behind
        itself. Commands of the same epoch wait for one another.

        Raises:
            StaleEpoch: a newer command was seen before, or came while this one waited or worked.
        """
        seat = self._seat(server_id)
        if epoch < seat.epoch:
            raise StaleEpoch(server_id=server_id, epoch=epoch, seen=seat.epoch)
        self._raise(seat, server_id, epoch)
        if seat.inside is not None and seat.inside.epoch < epoch and not seat.inside.superseded:
            seat.inside.superseded = True
            seat.inside.task.cancel()
        seat.users += 1
        try:
            async with seat.lock:
                if epoch < seat.epoch:
                    raise StaleEpoch(server_id=server_id, epoch=epoch, seen=seat.epoch)
                async with _sitting(seat, server_id, epoch):
                    yield
        finally:
            seat.users -= 1
            self._forget_oldest()

    def _raise(self, seat: _Seat, server_id: str, epoch: int) -> None:
        if epoch > seat.epoch:
            if self._record is not None:
                self._record(server_id, epoch)
            seat.epoch = epoch

    def _seat(self, server_id: str) -> _Seat:
        seat = self._seats.get(server_id)
        if seat is None:
            seat = self._seats[server_id] = _Seat(0)
        self._seats.move_to_end(server_id)
        return seat

    def _forget_oldest(self) -> None:
        while len(self._seats) > self._remembered:
            oldest = next(iter(self._seats))
            if self._seats[oldest].users:
                break  # in use; it goes when it is idle
            del self._seats[oldest]


@asynccontextmanager
async def _sitting(seat: _Seat, server_id: str, epoch: int) -> AsyncIterator[None]:
    task = asyncio.current_task()
    assert task is not None, "a command runs in a task"
    inside = seat.inside = _Inside(task, epoch)
    cancelled_before = task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        # As asyncio.timeout does: take our own cancellation back, but not somebody else's.
        if inside.superseded and task.uncancel() <= cancelled_before:
            raise StaleEpoch(server_id=server_id, epoch=epoch, seen=seat.epoch) from None
        raise
    except BaseException:
        if inside.superseded:
            task.uncancel()  # it turned the cancellation into an error of its own
        raise
    finally:
        seat.inside = None
