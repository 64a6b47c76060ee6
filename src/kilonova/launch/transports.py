"""The queue that a URL names."""

from urllib.parse import urlsplit

from kilonova.base.clock import Clock
from kilonova.base.config import ConfigError
from kilonova.base.ids import Ids
from kilonova.rpc.transports.base import Transport


def make_transport(url: str, clock: Clock, ids: Ids) -> Transport:
    """The transport of `url`, not opened.

    Raises:
        ConfigError: no such transport, or no URL.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from kilonova.rpc.transports.memory import MemoryTransport

        return MemoryTransport(clock)
    what = f"'{scheme}://' is no queue that can be used" if scheme else "is not set"
    raise ConfigError(
        f"[DEFAULT] transport_url {what}: give amqp://USER:PASSWORD@HOST:5672/, nats://HOST:4222, or memory:// where "
        "all services are in one process."
    )
