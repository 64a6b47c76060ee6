"""Any host will do: for experiments, and for clouds of equal, empty hosts."""

import random
from typing import Self

import numpy as np

from kilonova.model.request_spec import Candidate, Choice, Explanation, RequestSpec
from kilonova.scheduler.drivers.base import Setup
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.steps import CONSIDERED, FORCED, named
from kilonova.scheduler.table import HostTable

_UP = "up"


class ChanceScheduler:
    """``driver = chance_scheduler``: hosts that are up and enabled, in random order, all equally likely.

    It asks no filters, not even for room: the claim does, and takes the next candidate where there is none.
    Hosts where the build failed are left out; an administrator's host is taken.
    """

    reads_feed_each_time = True

    def __init__(self, rng: random.Random, *, max_candidates: int = 5) -> None:
        self._rng = rng
        self._max_candidates = max_candidates

    @classmethod
    def make(cls, setup: Setup) -> Self:
        return cls(setup.rng, max_candidates=setup.options.max_candidates)

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        if spec.force_host is not None:
            mask, name = table.alive & named(table, (spec.force_host,)), FORCED
        else:
            mask, name = table.alive & table.is_up & table.is_enabled & ~named(table, spec.excluded_hosts), _UP
            if spec.requested_host is not None:
                mask &= named(table, (spec.requested_host,))
        rows: list[int] = np.flatnonzero(mask).tolist()
        counts = ((CONSIDERED, len(table)), (name, len(rows)))
        return [self._one(table, spec, server_id, rows, counts, now) for server_id in spec.server_ids]

    def _one(
        self,
        table: HostTable,
        spec: RequestSpec,
        server_id: str,
        rows: list[int],
        counts: tuple[tuple[str, int], ...],
        now: float,
    ) -> Choice:
        if not rows:
            explanation = Explanation(filters=counts, missing="No host is up, enabled, and untried.")
            return Choice(server_id=server_id, candidates=(), explanation=explanation)
        picked = self._rng.sample(rows, min(len(rows), max(self._max_candidates, 1)))
        table.take(needs_of(spec), server_id, picked[0], at=now)
        candidates = tuple(
            Candidate(host_id=int(table.host_id[row]), host=table.names[row], weight=0.0) for row in picked
        )
        explanation = Explanation(filters=counts, chosen=(candidates[0].host,))
        return Choice(server_id=server_id, candidates=candidates, explanation=explanation)
