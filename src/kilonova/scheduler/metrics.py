"""Counters of the scheduler: how often it looked at the store, what it decided, and how long that took."""

from collections.abc import Callable, Sequence

from kilonova.base.metrics import CollectorRegistry, Counter, Gauge, Histogram, new_registry
from kilonova.model.request_spec import Choice

_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1)


class SchedulerMetrics:
    """One a process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or new_registry()
        self._reads = Counter(
            "kilonova_scheduler_state_queries", "Looks at the feed of host changes.", registry=registry
        )
        decisions = Counter(
            "kilonova_scheduler_decisions", "Servers decided on, by outcome.", ("outcome",), registry=registry
        )
        self._chosen = decisions.labels("chosen")
        self._refused = decisions.labels("no valid host")
        self._seconds = Histogram(
            "kilonova_scheduler_decision_seconds",
            "Time to decide on one request, without the look at the feed.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._staleness = Gauge(
            "kilonova_scheduler_staleness_seconds", "Time since the feed was last read.", registry=registry
        )
        self.state_queries = 0
        """Looks at the feed so far."""

    def watch_staleness(self, seconds: Callable[[], float]) -> None:
        """Show how old the table may be."""
        self._staleness.set_function(seconds)

    def read(self) -> None:
        """The feed was read."""
        self.state_queries += 1
        self._reads.inc()

    def decided(self, choices: Sequence[Choice], *, seconds: float) -> None:
        """A request was decided on."""
        chosen = sum(1 for choice in choices if choice.candidates)
        self._chosen.inc(chosen)
        self._refused.inc(len(choices) - chosen)
        self._seconds.observe(seconds)
