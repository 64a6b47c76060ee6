"""Whether the books agree, looked at by timer: drift is a number, and shown as a metric. Takes no input, mends nothing.

What is wrong is mended by what is always at work (tasks, undo, agents that compare), or it is a fault of this
program: then the log names it, and ``kilonova doctor --invariants`` tells all of it.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.base.metrics import CollectorRegistry, Gauge
from kilonova.conductor.invariants import HARMS, Violation, always, late
from kilonova.store.engine import Store
from kilonova.store.queries.invariants import books, overdue
from kilonova.store.transactions import Tx

log = get_logger(__name__)

LATE_S: Final = 300.0
"""Seconds after which a task that is due and that nobody works on counts as stuck."""

_TOLD: Final = 20
"""Violations of one look that are logged."""


class Audit:
    """Looks at the books of one database."""

    def __init__(self, store: Store, clock: Clock, registry: CollectorRegistry) -> None:
        self._store = store
        self._clock = clock
        drift = Gauge(
            "kilonova_invariant_drift",
            "Rules of the books that are broken, by harm, at the last look; always 0",
            ("kind",),
            registry=registry,
        )
        self._drift = {harm: drift.labels(harm) for harm in HARMS}
        self._looked = Gauge(
            "kilonova_invariant_check_timestamp_seconds", "When the books were last looked at", registry=registry
        )

    async def look(self) -> list[Violation]:
        """Look once."""
        now = self._clock.now()
        # In the store's thread, rules included: there may be many servers.
        found = await self._store.read(look, now=now)
        count = Counter(violation.harm for violation in found)
        for harm, gauge in self._drift.items():
            gauge.set(count[harm])
        self._looked.set(now.timestamp())
        for violation in found[:_TOLD]:
            log.error("the books do not agree", violation=str(violation), found=len(found))
        return found


def look(tx: Tx, *, now: datetime) -> list[Violation]:
    """The rules of the database that are broken in this snapshot."""
    return [*always(books(tx)), *late(overdue(tx, since=now - timedelta(seconds=LATE_S)))]
