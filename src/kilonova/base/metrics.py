"""Counters and timings, in Prometheus' form. One registry a process, handed in."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["CONTENT_TYPE", "CollectorRegistry", "Counter", "Gauge", "Histogram", "exposition", "new_registry"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of `exposition`."""


def new_registry() -> CollectorRegistry:
    """A registry with the process itself on it (``process_cpu_seconds_total``, ``process_resident_memory_bytes``,
    ``process_open_fds`` …); its services register their own metrics."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Everything on `registry` in Prometheus' text form, to be sent as `CONTENT_TYPE`."""
    return generate_latest(registry)
