"""A scheduler that never chooses, for tests of what surrounds it."""

from typing import Self

from kilonova.model.request_spec import Choice, Explanation, RequestSpec
from kilonova.scheduler.drivers.base import Setup
from kilonova.scheduler.steps import CONSIDERED
from kilonova.scheduler.table import HostTable


class FakeScheduler:
    """``driver = fake_scheduler``."""

    reads_feed_each_time = False

    @classmethod
    def make(cls, setup: Setup) -> Self:
        return cls()

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        explanation = Explanation(filters=((CONSIDERED, len(table)),), missing="The fake scheduler chooses no host.")
        return [Choice(server_id=each, candidates=(), explanation=explanation) for each in spec.server_ids]
