"""What this process still waits for before it can do all of its work."""

from dataclasses import dataclass, field

from kilonova.base.metrics import CollectorRegistry, new_registry


@dataclass
class Readiness:
    """Filled in by whoever starts the services; read by ``/readyz``."""

    waiting: dict[str, str] = field(default_factory=dict)
    """Name of a service to why it is not ready. Empty: everything works."""

    registry: CollectorRegistry = field(default_factory=new_registry)
    """Metrics of this process."""

    def wait_for(self, name: str, why: str = "starting") -> None:
        """`name` is not ready, because of `why`."""
        self.waiting[name] = why

    def is_up(self, name: str) -> None:
        """`name` is ready."""
        self.waiting.pop(name, None)
