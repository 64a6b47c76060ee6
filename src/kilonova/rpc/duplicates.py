"""A service's memory of the messages it has handled, so that one that comes twice has one effect.

A broker may deliver a message again: its connection broke before the acknowledgement, or somebody
replays what he captured. The memory is bounded by number, and the replies that it keeps for callers
who may have missed theirs by bytes.
"""

import asyncio
import enum
from collections import deque


class Verdict(enum.Enum):
    """What is known of a message."""

    NEW = enum.auto()
    """Never seen, or begun and given up: it is the asker's to handle now."""
    UNDER_WAY = enum.auto()
    """Somebody works on it now."""
    DONE = enum.auto()
    """It has had its effect."""


class Handled:
    """Remembers message ids. Workers of one process that serve the same queue may share one."""

    def __init__(self, max_messages: int, *, max_reply_bytes: int = 4 * 1024 * 1024) -> None:
        self._max_messages = max_messages
        self._max_reply_bytes = max_reply_bytes
        self._under_way: dict[str, asyncio.Event | None] = {}
        self._done: dict[str, bytes | None] = {}
        self._with_reply: deque[str] = deque()
        self._reply_bytes = 0

    def begin(self, msg_id: str) -> Verdict:
        """Ask about a message; if it is new, it counts as under way from now on."""
        if msg_id in self._done:
            return Verdict.DONE
        if msg_id in self._under_way:
            return Verdict.UNDER_WAY
        self._under_way[msg_id] = None
        return Verdict.NEW

    def finish(self, msg_id: str, reply: bytes | None) -> None:
        """It has had its effect and was answered with `reply`."""
        self._wake(msg_id)
        self._done[msg_id] = None
        if reply is not None and len(reply) * 64 <= self._max_reply_bytes:
            self._keep(msg_id, reply)
        while len(self._done) > self._max_messages:
            self._drop_reply(oldest := next(iter(self._done)))
            del self._done[oldest]

    def give_up(self, msg_id: str) -> None:
        """It was begun and did not finish; whoever gets it next handles it."""
        self._wake(msg_id)

    def reply_of(self, msg_id: str) -> bytes | None:
        """The reply it was given, if it is still kept."""
        return self._done.get(msg_id)

    async def settled(self, msg_id: str) -> None:
        """Wait until it is no longer under way."""
        if msg_id not in self._under_way:
            return
        event = self._under_way[msg_id]
        if event is None:
            event = self._under_way[msg_id] = asyncio.Event()
        await event.wait()

    def _wake(self, msg_id: str) -> None:
        event = self._under_way.pop(msg_id, None)
        if event is not None:
            event.set()

    def _keep(self, msg_id: str, reply: bytes) -> None:
        self._done[msg_id] = reply
        self._with_reply.append(msg_id)
        self._reply_bytes += len(reply)
        while self._reply_bytes > self._max_reply_bytes:
            self._drop_reply(self._with_reply.popleft())

    def _drop_reply(self, msg_id: str) -> None:
        reply = self._done.get(msg_id)
        if reply is not None:
            self._done[msg_id] = None
            self._reply_bytes -= len(reply)
