"""Tells hosts that something on their networks has changed elsewhere: who is in which security group, above all.

Only a hint, gathered for a second so that many boots make few messages; a host that misses it asks by its own timer.
Each host that is told asks for all that it carries, so only some are told in each second, however many share a network:
what the news cost does not grow with the cloud, and where there are many hosts each hears of several changes at once.
"""

from collections.abc import Callable, Iterable

from kilonova.base.log import get_logger
from kilonova.model.errors import CloudError
from kilonova.rpcapi.network import NetworkAPI
from kilonova.store.engine import Store
from kilonova.store.queries import security_groups

log = get_logger(__name__)

EVERY_S = 1.0

TOLD_AT_ONCE = 10
"""Hosts that are told in each round; the others wait for the next."""


class NetworkNews:
    """Networks that changed since hosts were told last."""

    def __init__(self, store: Store, network: Callable[[str], NetworkAPI]) -> None:
        self._store = store
        self._network = network
        self._changed: set[str] = set()
        self._waiting: dict[str, None] = {}
        """Hosts that are to be told, who waits longest first."""

    def changed(self, network_ids: Iterable[str]) -> None:
        """Ports on these networks came or went."""
        self._changed.update(network_ids)

    async def tell(self) -> None:
        """Tell the hosts that have ports on networks that changed."""
        if self._changed:
            changed, self._changed = self._changed, set()
            self._waiting |= dict.fromkeys(await self._store.read(security_groups.hosts_of_networks, changed))
        for host in list(self._waiting)[:TOLD_AT_ONCE]:
            # First, so that what changes from now on is told again.
            del self._waiting[host]
            try:
                await self._network(host).refresh()
            except CloudError as error:
                log.debug("a host was not told of its networks' news", host=host, cause=error.message)
