"""How every process notices at once that a token may stand for something else now.

Each transaction that revokes a token, disables or deletes something, changes a password, a role or a membership also
adds one to a number in the database (`store.queries.identity.changed`). A process may believe what it remembers of a
token as long as that number is the one it was read under; so each authenticated request reads the number, and
nothing else. That read is one row by its key (`Store.glance`), and costs 0.1 ms of CPU on SQLite. Requests that come
while one is under way wait for the next and share it: there is never more than one under way in a process, however
many requests there are.

Chosen over a fan-out message, which is faster by that one read, but can be lost with the broker, and then leaves a
revoked token good until a time-out. Here what was revoked is refused by every process from the moment that the
revocation is answered.
"""

import asyncio

from kilonova.store.engine import Store
from kilonova.store.queries import identity as rows


class Epoch:
    """The number, as it was at some moment after one asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: asyncio.Future[None] | None = None
        self._next: asyncio.Task[int] | None = None
        self.reads = 0
        """How often it was read so far."""

    async def current(self) -> int:
        """The number. What was committed before the call is in it.

        Raises:
            Unavailable: the database does not answer.
        """
        if self._next is None:
            if self._under_way is None:
                return await self._read()
            # That one may have read already: its answer is too old for who comes now.
            self._next = asyncio.create_task(self._read_after(self._under_way), name="identity epoch")
        # Who gives up must not take the answer from the others.
        return await asyncio.shield(self._next)

    async def _read_after(self, before: asyncio.Future[None]) -> int:
        await before
        self._next = None
        return await self._read()

    async def _read(self) -> int:
        self._under_way = done = asyncio.get_running_loop().create_future()
        self.reads += 1
        try:
            return await self._store.glance(rows.epoch)
        finally:
            self._under_way = None
            done.set_result(None)
