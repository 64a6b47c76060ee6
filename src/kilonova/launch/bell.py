"""The bell: tells a service that there is work, without waiting and without being heard for sure."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from kilonova.base.log import get_logger
from kilonova.model.errors import CloudError

log = get_logger(__name__)


class RpcBell:
    """Rings by RPC. Rings that come while one is on its way are one ring."""

    def __init__(
        self,
        ropes: Mapping[str, Callable[[], Awaitable[None]]],
        *,
        of_host: Mapping[str, Callable[[str], Awaitable[None]]] | None = None,
    ) -> None:
        """
        Args:
            ropes: topic to the call that wakes it.
            of_host: for topics ``NAME.HOST``: the name to the call that wakes that host's.
        """
        self._ropes = ropes
        self._of_host = of_host or {}
        self._ringing: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def ring(self, topic: str) -> None:
        """Wake `topic` soon. Never raises, never waits."""
        if topic in self._ringing:
            self._again.add(topic)
            return
        self._ringing[topic] = asyncio.create_task(self._ring(topic), name=f"bell.{topic}")

    def _rope(self, topic: str) -> Callable[[], Awaitable[None]]:
        name, _, host = topic.partition(".")
        return partial(self._of_host[name], host) if host else self._ropes[topic]

    async def _ring(self, topic: str) -> None:
        try:
            while True:
                self._again.discard(topic)
                await self._rope(topic)()
                if topic not in self._again:
                    return
        except CloudError as error:
            log.debug("the bell was not heard", topic=topic, cause=error.message)
        finally:
            del self._ringing[topic]
