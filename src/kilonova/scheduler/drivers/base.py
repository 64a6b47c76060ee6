"""What a scheduler is, whichever way it chooses."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.decide import Rules
from kilonova.scheduler.options import SchedulerOptions
from kilonova.scheduler.table import HostTable


@dataclass(frozen=True)
class Setup:
    """What a driver is made from."""

    options: SchedulerOptions
    rng: random.Random
    load_rules: Callable[[], Rules]
    """The filters and weighers as configured. Only for drivers that use them: a wrong name is an error."""


class SchedulerDriver(Protocol):
    """Chooses hosts. Deducts what it chooses from the table; writes nothing else."""

    @classmethod
    def make(cls, setup: Setup) -> Self: ...

    @property
    def reads_feed_each_time(self) -> bool:
        """Whether the feed is read before every decision, or only by the timer and on `refresh`."""
        ...

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        """One choice for each of `spec.server_ids`, in their order.

        Args:
            now: on the monotonic clock, for what is deducted.
        """
        ...
