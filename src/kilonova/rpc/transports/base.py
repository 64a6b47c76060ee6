"""What a message queue must do for remote calls. `kilonova.rpc` sees nothing else of a broker.

Three kinds of address:

- **work**: a queue that outlives its consumers. Each message goes to one consumer, in turn, and stays
  with the broker until it is acknowledged; if its consumer goes away first, another gets it, marked
  as redelivered. Sending to a queue that nobody consumes yet makes the queue, and the message waits.
- **reply**: one process's own queue. It needs no acknowledgement and is gone with its consumer;
  what is sent there afterwards is dropped in silence.
- **fan-out**: every consumer that is there at the moment gets a copy.

A transport never looks into the bytes. It may deliver a message twice, never hide that it lost one.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec


class Kind(enum.Enum):
    """How an address hands out its messages."""

    WORK = "work"
    REPLY = "reply"
    FANOUT = "fanout"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes."""

    kind: Kind
    name: str


def work(topic: str, host: str | None = None) -> Address:
    """The queue of any worker of `topic`, or of the one on `host`."""
    return Address(Kind.WORK, topic if host is None else f"{topic}.{host}")


def fanout(topic: str) -> Address:
    """All workers of `topic`."""
    return Address(Kind.FANOUT, topic)


def replies(name: str) -> Address:
    """The reply queue `name`."""
    return Address(Kind.REPLY, name)


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment. `unacked` messages are with a consumer that works on them."""

    waiting: int
    unacked: int
    consumers: int


class Delivery(Protocol):
    """One message in the hand of a consumer."""

    @property
    def body(self) -> bytes: ...

    @property
    def redelivered(self) -> bool:
        """It may have been worked on before."""
        ...

    async def ack(self) -> None:
        """The work is done; the broker may forget the message. Without effect if it was given back meanwhile."""
        ...


class Unkept:
    """A `Delivery` that nobody keeps: of a reply queue, or of a fan-out that wants no acknowledgement."""

    __slots__ = ("body",)
    redelivered = False

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def ack(self) -> None:
        """Nobody waits for it."""


Deliver = Callable[[Delivery], None]
"""Takes one delivery and returns at once, without waiting for the work."""


class Consumer(Protocol):
    """A standing wish for the messages of one address."""

    async def cancel(self) -> None:
        """Take no more. What was delivered stays here and can still be acknowledged."""
        ...

    async def close(self) -> None:
        """Take no more, and give back what was delivered but not acknowledged."""
        ...


class Transport(Protocol):
    """One process's connection to the broker."""

    reconnects: int
    """How often the connection was made anew."""

    async def open(self) -> None:
        """Connect. Raises `Unavailable` if the broker cannot be reached or does not let us in."""
        ...

    async def close(self) -> None:
        """Close all consumers, then the connection. May be called twice."""
        ...

    async def publish(self, address: Address, body: bytes, *, ttl_s: float | None = None) -> None:
        """Return when the broker has the message.

        Args:
            ttl_s: after so many seconds nobody wants the message any more; the broker drops it
                if it has not been delivered by then.

        Raises:
            Unavailable: the broker did not take it (it is away, or the queue is full).
        """
        ...

    async def consume(self, address: Address, deliver: Deliver, *, prefetch: int) -> Consumer:
        """Call `deliver` for every message from now on, with at most `prefetch` of them unacknowledged."""
        ...

    async def depths(self) -> Mapping[str, QueueDepth]:
        """The work queues that this transport can see."""
        ...


def masked(text: str, url: str) -> str:
    """`text` without the password of `url`, in whichever spelling it stands there: for logs and errors."""
    password = urlsplit(url).password
    if not password:
        return text
    for spelling in sorted({password, unquote(password)}, key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text
