"""Counters of tasks: how their steps went, how they ended, how long steps took."""

from kilonova.base.metrics import CollectorRegistry, Counter, Histogram, new_registry

_SECONDS = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 900)


class TaskMetrics:
    """One a process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or new_registry()
        self._steps = Histogram(
            "kilonova_task_step_seconds",
            "Time of one try of one step, by how it went: done, retry, failed, undone.",
            ("kind", "step", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._ended = Counter("kilonova_tasks_ended", "Tasks that ended.", ("kind", "outcome"), registry=registry)

    def step(self, kind: str, step: str, outcome: str, *, seconds: float) -> None:
        """One try of a step was written."""
        self._steps.labels(kind, step, outcome).observe(seconds)

    def ended(self, kind: str, *, is_well: bool) -> None:
        """A task ended."""
        self._ended.labels(kind, "done" if is_well else "failed").inc()
