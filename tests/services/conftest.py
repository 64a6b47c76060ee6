"""Clouds of many processes on a real broker and a real database, started once for all tests here."""

from collections.abc import Iterator

import pytest
from tests.support.brokers import RabbitMQ
from tests.support.databases import DatabaseServer, MariaDB, PostgreSQL, running


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbit"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    with running(PostgreSQL) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[DatabaseServer]:
    with running(MariaDB) as server:
        yield server
