"""Brokers behind TLS: the certificate is checked, whichever the broker."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from post_office import IDS, until
from tests.support.brokers import Nats, RabbitMQ
from tests.support.certificates import Certificates

from kilonova.model.errors import Unavailable
from kilonova.rpc.transports.amqp import AmqpOptions, AmqpTransport
from kilonova.rpc.transports.base import Delivery, Transport, work
from kilonova.rpc.transports.nats import NatsOptions, NatsTransport

pytestmark = pytest.mark.real


@dataclass
class Secure:
    """A broker with TLS, and how to connect to it."""

    url: str
    ca_file: str

    def transport(self, ca_file: str) -> Transport:
        if self.url.startswith("amqps"):
            return AmqpTransport(self.url, IDS, AmqpOptions(ca_file=ca_file, connect_timeout_s=5))
        return NatsTransport(self.url, IDS, NatsOptions(ca_file=ca_file, connect_timeout_s=5))


@pytest.fixture(scope="module", params=["amqps", "tls"])
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    root: Path = tmp_path_factory.mktemp(request.param)
    certificates = Certificates.make(root / "certificates")
    broker: RabbitMQ | Nats
    if request.param == "amqps":
        broker = RabbitMQ(root / "rabbit", tls=certificates)
        url = f"amqps://{broker.user}:{broker.password}@127.0.0.1:{broker.tls_port}/"
    else:
        broker = Nats(root / "nats", tls=certificates)
        url = broker.url
    broker.start()
    yield Secure(url, str(certificates.authority))
    broker.stop()


async def test_messages_go_over_tls(secure: Secure) -> None:
    transport = secure.transport(secure.ca_file)
    await transport.open()
    seen: list[Delivery] = []
    await transport.consume(work("secure"), seen.append, prefetch=1)
    await transport.publish(work("secure"), b"x")
    await until(lambda: bool(seen))
    await seen[0].ack()
    await transport.close()


async def test_a_certificate_of_an_unknown_authority_is_refused(secure: Secure) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        await secure.transport("").open()
