"""The default scheduler: filters, then weighs, on what the feed says now."""

import random
from dataclasses import dataclass

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.decide import Rules, decide
from kilonova.scheduler.table import HostTable


@dataclass(frozen=True)
class FilterScheduler:
    """``driver = filter_scheduler``."""

    rules: Rules
    rng: random.Random
    doubtful_after_s: float = 2.0
    reads_feed_each_time: bool = True

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        return [self._one(table, spec, server_id, now) for server_id in spec.server_ids]

    def _one(self, table: HostTable, spec: RequestSpec, server_id: str, now: float) -> Choice:
        choice = decide(table, spec, self.rules, self.rng, server_id=server_id)
        if not choice.candidates and spec.force_host is None:
            # What is promised but was never claimed may steer choices, not refuse them; the claim decides.
            with table.without_doubtful(now - self.doubtful_after_s) as there_are_some:
                if there_are_some:
                    choice = decide(table, spec, self.rules, self.rng, server_id=server_id)
        if choice.candidates:
            table.take(self.rules.needs(spec), server_id, table.row_of[choice.candidates[0].host], at=now)
        return choice
