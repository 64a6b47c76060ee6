"""What the scheduler reads from the store: changed hosts, aggregates, and which of its choices became claims."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kilonova.model.host import AggregateState, HostState
from kilonova.store.engine import Store
from kilonova.store.queries import aggregates, allocations, hosts, tasks
from kilonova.store.transactions import Tx


@dataclass(frozen=True)
class FeedPage:
    """What changed, all of one snapshot."""

    hosts: list[HostState] = field(default_factory=list)
    aggregates: tuple[int, list[AggregateState]] | None = None
    """Their version and all of them, if they changed."""
    claimed: Mapping[str, int] = field(default_factory=dict)
    """Server to the id of the host on which its claim stands, of the servers asked about."""
    ended: Collection[str] = ()
    """Of the servers asked about, those that nobody works on any more: what was claimed for them is given back."""


class Feed(Protocol):
    """Where changes come from."""

    async def read(self, *, since: int, aggregates_version: int, pending: Collection[str]) -> FeedPage:
        """What changed after row `since` and aggregates' version; whether `pending` servers have claims.

        `claimed` and `hosts` are of one snapshot, so that a claim is seen together with what it used.
        """
        ...


class StoreFeed:
    """Reads the feed from the database: two one-row statements when nothing has changed."""

    def __init__(self, store: Store, *, with_servers: bool = False) -> None:
        """
        Args:
            with_servers: read what kinds of servers hosts have, for rules that look at them.
        """
        self._store = store
        self._with_servers = with_servers

    async def read(self, *, since: int, aggregates_version: int, pending: Collection[str]) -> FeedPage:
        return await self._store.read(_page, since, aggregates_version, list(pending), self._with_servers)


def _page(tx: Tx, since: int, aggregates_version: int, pending: list[str], with_servers: bool) -> FeedPage:
    grown = hosts.last_seq(tx) > since
    # A claim moves its host to the end of the feed: no news of hosts, no new claims.
    claimed = allocations.hosts_of(tx, pending) if grown and pending else {}
    unclaimed = [server_id for server_id in pending if server_id not in claimed]
    return FeedPage(
        hosts=hosts.changes_since(tx, since, with_servers=with_servers) if grown else [],
        aggregates=aggregates.states(tx) if aggregates.version(tx) != aggregates_version else None,
        claimed=claimed,
        ended=tasks.idle_of(tx, unclaimed) if grown and unclaimed else (),
    )
