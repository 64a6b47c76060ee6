"""What every use case is handed."""

from dataclasses import dataclass
from typing import Any, Protocol

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.model.context import RequestContext
from kilonova.store.engine import Store


class Bell(Protocol):
    """A hint to another service that there is work. Losing it costs time, never correctness."""

    def ring(self, topic: str) -> None: ...


class Authority(Protocol):
    """Decides who may do what."""

    def authorize(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> None:
        """Raises PolicyDenied unless `ctx` may do `rule` to `target`."""
        ...

    def allows(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> bool: ...


@dataclass(frozen=True)
class Parts:
    """The store, the rules, time and chance, and the bell."""

    store: Store
    policy: Authority
    clock: Clock
    ids: Ids
    bell: Bell
