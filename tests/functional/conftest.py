"""A whole cloud with simulated hosts, as one real process, shared by a module's tests."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.running import Client, RunningCloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path_factory.mktemp("state"), virt="fake", hosts=3)
    running.start()
    yield running
    # Whatever a module's tests have done: at the end the books agree.
    looked = subprocess.run(
        [sys.executable, "-m", "kilonova.cli.main", "doctor", "--invariants", *running.whereabouts, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    stopped = running.stop()
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert stopped == 0


@pytest.fixture(scope="module")
def admin(cloud: RunningCloud) -> Client:
    return cloud.client()


@pytest.fixture(scope="module")
def image_id(admin: Client) -> str:
    return admin.upload_image("tiny", b"\0" * 65536)


@pytest.fixture(scope="module")
def flavor_id(admin: Client) -> str:
    return admin.flavor()
