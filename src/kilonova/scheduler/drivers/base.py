"""What a scheduler is, whichever way it chooses."""

from typing import Protocol

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.table import HostTable


class SchedulerDriver(Protocol):
    """Chooses hosts. Deducts what it chooses from the table; writes nothing else."""

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
