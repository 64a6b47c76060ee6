"""The default scheduler: filters, then weighs, on what the feed says now."""

import random
from typing import Self

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.decide import Rules
from kilonova.scheduler.drivers.base import Setup
from kilonova.scheduler.memory import Memory
from kilonova.scheduler.table import HostTable


class FilterScheduler:
    """``driver = filter_scheduler``."""

    reads_feed_each_time = True

    def __init__(self, rules: Rules, rng: random.Random, *, doubtful_after_s: float = 2.0) -> None:
        """
        Args:
            doubtful_after_s: from this age on, a choice that no claim confirmed makes no request fail.
        """
        self.rules = rules
        self._rng = rng
        self._doubtful_after_s = doubtful_after_s
        self._memory: tuple[HostTable, Memory] | None = None

    @classmethod
    def make(cls, setup: Setup) -> Self:
        return cls(setup.load_rules(), setup.rng, doubtful_after_s=setup.options.pending_doubtful_after)

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        if self._memory is None or self._memory[0] is not table:
            self._memory = table, Memory(table, self.rules)
        memory = self._memory[1]
        shape = memory.shape(spec)
        choices = []
        for server_id in spec.server_ids:
            choice = memory.decide(spec, shape, self._rng, server_id=server_id)
            if not choice.candidates and spec.force_host is None:
                # What is promised but was never claimed may steer choices, not refuse them; the claim decides.
                with table.without_doubtful(now - self._doubtful_after_s) as there_are_some:
                    if there_are_some:
                        choice = memory.decide(spec, shape, self._rng, server_id=server_id)
            if choice.candidates:
                table.take(shape.needs, server_id, table.row_of[choice.candidates[0].host], at=now)
            choices.append(choice)
        return choices


class CachingScheduler(FilterScheduler):
    """``driver = caching_scheduler``: the same choices, on what the timer last read from the feed.

    No request waits for the database. What others claim meanwhile is seen ``refresh_interval`` late; a claim that
    loses for that reason takes the next candidate.
    """

    reads_feed_each_time = False
