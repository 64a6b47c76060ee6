"""Counters and timings of remote calls, by method: where time is lost, and which calls time out."""

from collections.abc import Callable
from functools import cache

from kilonova.base.metrics import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 20, 60, 120, 300, 600)


class RpcMetrics:
    """One a process; its client and its servers share it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Histogram(
            "kilonova_rpc_call_seconds",
            "Calls by this process, from sending to the answer, by outcome (ok or an error's code).",
            ("topic", "method", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._timeouts = Counter(
            "kilonova_rpc_timeouts",
            "Calls by this process that nobody answered in time.",
            ("topic", "method"),
            registry=registry,
        )
        self._sent = Counter(
            "kilonova_rpc_sent",
            "Messages sent by this process that want no answer.",
            ("topic", "method", "kind"),
            registry=registry,
        )
        self._handled = Histogram(
            "kilonova_rpc_handled_seconds",
            "Messages worked on by this process, by outcome (ok or an error's code).",
            ("topic", "method", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._dropped = Counter(
            "kilonova_rpc_dropped",
            "Messages not worked on: duplicate, late, unreadable.",
            ("topic", "reason"),
            registry=registry,
        )
        self._outstanding: list[Callable[[], int]] = []
        self._in_hand: list[Callable[[], int]] = []
        Gauge(
            "kilonova_rpc_outstanding", "Calls by this process without an answer yet.", registry=registry
        ).set_function(lambda: sum(count() for count in self._outstanding))
        Gauge("kilonova_rpc_in_hand", "Messages that this process works on now.", registry=registry).set_function(
            lambda: sum(count() for count in self._in_hand)
        )
        # Looking a labelled child up costs more than counting.
        self._call = cache(self._calls.labels)
        self._handle = cache(self._handled.labels)

    def called(self, topic: str, method: str, outcome: str, seconds: float) -> None:
        """A call of this process ended."""
        self._call(topic, method, outcome).observe(seconds)

    def timed_out(self, topic: str, method: str) -> None:
        """A call of this process got no answer in time."""
        self._timeouts.labels(topic, method).inc()

    def sent(self, topic: str, method: str, kind: str) -> None:
        """A ``cast`` or a ``fanout`` left this process."""
        self._sent.labels(topic, method, kind).inc()

    def handled(self, topic: str, method: str, outcome: str, seconds: float) -> None:
        """A message was worked on."""
        self._handle(topic, method, outcome).observe(seconds)

    def dropped(self, topic: str, reason: str) -> None:
        """A message was not worked on: ``duplicate``, ``late`` or ``unreadable``."""
        self._dropped.labels(topic, reason).inc()

    def watch_outstanding(self, count: Callable[[], int]) -> None:
        """Add a client's number of outstanding calls to the gauge."""
        self._outstanding.append(count)

    def watch_in_hand(self, count: Callable[[], int]) -> None:
        """Add a server's number of messages in hand to the gauge."""
        self._in_hand.append(count)
