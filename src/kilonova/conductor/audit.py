"""Whether the books agree, with themselves and with what hypervisors run. Reads only, mends nothing.

The conductor looks by timer: drift is a number, and shown as a metric. `kilonova doctor --invariants` looks in the same
way and tells all of it. What is wrong is mended by what is always at work (tasks, undo, agents that compare), or it is
a fault of this program: then the log names it.

The books are one snapshot: what does not agree there is wrong. Hypervisors are looked at after it, and may be in the
middle of something, or a step behind until their agents compare the next time. So what they show otherwise is looked
at again a minute later, and counts only if it is the same both times.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.base.metrics import CollectorRegistry, Gauge
from kilonova.conductor.hypervisors import Ask, hosts_to_ask
from kilonova.conductor.invariants import HARMS, Violation, agree, always, late
from kilonova.store.engine import Store
from kilonova.store.queries.invariants import Books, books, overdue
from kilonova.store.transactions import Tx

log = get_logger(__name__)

LATE_S: Final = 300.0
"""Seconds after which a task that is due and that nobody works on counts as stuck."""

_TOLD: Final = 20
"""Violations of one look that are logged."""


@dataclass(frozen=True)
class Audited:
    """What was looked at, and found."""

    servers: int
    hosts: int
    """Whose hypervisor was seen."""
    unseen: Mapping[str, str]
    """Hosts of which nothing is known to the cause."""
    violations: tuple[Violation, ...]


async def audit(store: Store, clock: Clock, ask: Ask | None, *, again_s: float) -> Audited:
    """Look once; where hypervisors and books do not agree, twice.

    Args:
        ask: asks agents for their guests; None: only the books are looked at.
        again_s: seconds until the second look.
    """
    # In the store's thread, rules included: there may be many servers.
    before, found = await store.read(_books_and_wrongs, now=clock.now())
    if ask is None:
        return Audited(len(before.servers), 0, {}, tuple(found))
    up, down = await store.read(hosts_to_ask)
    different, seen, unseen = await _compare(store, before, ask, up)
    if different:
        await clock.sleep(again_s)
        names = {violation.what for violation in different}
        again, _, silent = await _compare(store, await store.read(books), ask, _hosts_of(names, before, seen))
        different = [violation for violation in different if violation in again]
        unseen = {**unseen, **silent}  # who fell silent meanwhile has not confirmed anything
    return Audited(len(before.servers), len(seen.keys() - unseen.keys()), {**down, **unseen}, (*found, *different))


Shown = Mapping[str, Collection[str]]
"""Host to the servers of which it showed a guest."""


async def _compare(
    store: Store, before: Books, ask: Ask, hosts: list[str]
) -> tuple[list[Violation], Shown, Mapping[str, str]]:
    """Where these hosts show something else than the books, what they showed, and who did not answer."""
    seen = await ask(hosts)
    different = agree(before, seen.guests, before)
    if different:  # the books are read once more only if they matter: what changed meanwhile is left out
        different = agree(before, seen.guests, await store.read(books))
    return different, seen.guests, seen.unseen


def _hosts_of(server_ids: Collection[str], before: Books, shown: Shown) -> list[str]:
    """Hosts that have, or should have, guests of these servers."""
    recorded = {before.servers[server_id].host for server_id in server_ids if server_id in before.servers}
    return sorted(
        host for host, there in shown.items() if host in recorded or any(server_id in there for server_id in server_ids)
    )


class Audit:
    """Looks at one cloud by timer."""

    def __init__(
        self, store: Store, clock: Clock, registry: CollectorRegistry, ask: Ask | None = None, *, again_s: float = 60.0
    ) -> None:
        """
        Args:
            ask, again_s: as for `audit`.
        """
        self._store = store
        self._clock = clock
        self._ask = ask
        self._again_s = again_s
        drift = Gauge(
            "kilonova_invariant_drift",
            "Rules that books and hypervisors break, by harm, at the last look; always 0",
            ("kind",),
            registry=registry,
        )
        self._drift = {harm: drift.labels(harm) for harm in HARMS}
        self._looked = Gauge(
            "kilonova_invariant_check_timestamp_seconds", "When the books were last looked at", registry=registry
        )
        self._seen = Gauge(
            "kilonova_invariant_check_hosts", "Hosts whose guests were compared at the last look", registry=registry
        )
        self._unseen = Gauge(
            "kilonova_invariant_check_hosts_unseen",
            "Hosts that are down or did not answer at the last look",
            registry=registry,
        )

    async def look(self) -> list[Violation]:
        """Look once."""
        now = self._clock.now()
        audited = await audit(self._store, self._clock, self._ask, again_s=self._again_s)
        found = list(audited.violations)
        count = Counter(violation.harm for violation in found)
        for harm, gauge in self._drift.items():
            gauge.set(count[harm])
        self._looked.set(now.timestamp())
        self._seen.set(audited.hosts)
        self._unseen.set(len(audited.unseen))
        for violation in found[:_TOLD]:
            log.error("what the cloud has written down is not so", violation=str(violation), found=len(found))
        return found


def _books_and_wrongs(tx: Tx, *, now: datetime) -> tuple[Books, list[Violation]]:
    now_written = books(tx)
    return now_written, [*always(now_written), *late(overdue(tx, since=now - timedelta(seconds=LATE_S)))]
