"""The queue that a URL names."""

from urllib.parse import urlsplit

from kilonova.base.clock import Clock
from kilonova.base.config import Config, ConfigError
from kilonova.base.ids import Ids
from kilonova.rpc.transports.base import Transport


def make_transport(url: str, config: Config, clock: Clock, ids: Ids) -> Transport:
    """The transport of `url`, not opened.

    Raises:
        ConfigError: no such transport, or no URL.
    """
    # A broker's library is imported where its broker is used.
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from kilonova.rpc.transports.memory import MemoryTransport

        return MemoryTransport(clock)
    if scheme in ("amqp", "amqps"):
        from kilonova.rpc.transports.amqp import AmqpOptions, AmqpTransport

        return AmqpTransport(url, ids, config.get(AmqpOptions))
    if scheme in ("nats", "tls"):
        from kilonova.rpc.transports.nats import NatsOptions, NatsTransport

        return NatsTransport(url, ids, config.get(NatsOptions))
    what = f"'{scheme}://' is no queue that can be used" if scheme else "is not set"
    raise ConfigError(
        f"[DEFAULT] transport_url {what}: give amqp://USER:PASSWORD@HOST:5672/, nats://HOST:4222, or memory:// where "
        "all services are in one process."
    )
