"""A whole cloud with simulated hosts, as one real process, shared by a module's tests."""

from collections.abc import Iterator

import pytest
from tests.support.running import Client, RunningCloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path_factory.mktemp("state"), virt="fake", hosts=3)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def admin(cloud: RunningCloud) -> Client:
    return cloud.client()


@pytest.fixture(scope="module")
def image_id(admin: Client) -> str:
    return admin.upload_image("tiny", b"\0" * 65536)


@pytest.fixture(scope="module")
def flavor_id(admin: Client) -> str:
    return admin.flavor()
