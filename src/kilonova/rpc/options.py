"""What an operator can tune about remote calls."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class RpcOptions:
    """``[rpc]`` of kilonova.conf."""

    section: ClassVar[str] = "rpc"

    max_outstanding: int = 10_000
    """Calls of one process that may wait for their answer at once; one more is refused as unavailable."""

    prefetch: int = 256
    """Messages of one queue that one service works on at once; the rest waits in the queue."""

    max_message_bytes: int = 10 * 1024 * 1024
    """The largest message that is sent or taken."""

    remembered_messages: int = 50_000
    """How many handled messages a service remembers, to drop a message that comes twice."""

    clock_skew_s: float = 30.0
    """How far the clocks of two hosts may differ before a call that still has time is taken for a late one."""

    offer_cache_s: float = 60.0
    """How long the version that another service said it speaks is believed before it is asked again."""
