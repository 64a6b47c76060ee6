"""Counters and timings, in Prometheus' form. One registry a process, handed in."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["CollectorRegistry", "Counter", "Gauge", "Histogram", "new_registry"]


def new_registry() -> CollectorRegistry:
    """An empty registry; the process's services register their own metrics on it."""
    return CollectorRegistry(auto_describe=True)
