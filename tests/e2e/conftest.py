"""The cloud with real virtual machines, driven by the real ``openstack`` client."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.places import open_place
from tests.support.remains import Remains
from tests.support.running import RunningCloud

ROOT = Path(__file__).parents[2]
CLIENT = Path(os.environ.get("KILONOVA_CLIENT", ROOT / ".venv-clients" / "bin" / "openstack"))
GUEST_IMAGE = Path(os.environ.get("KILONOVA_GUEST_IMAGE", ROOT / "build" / "guest" / "kilonova-guest.qcow2"))

OpenStack = Callable[..., Any]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory for this test that QEMU's own user can reach."""
    with open_place("cloud") as place:
        yield place


@pytest.fixture
def remains(tmp_path: Path) -> Iterator[Remains]:
    """Looks at the machine before and after: nothing may be left over."""
    found = Remains(tmp_path / "state")
    yield found
    found.remove_all()


@pytest.fixture
def cloud(tmp_path: Path, remains: Remains) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path / "state", virt="libvirt")
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


@pytest.fixture
def simulated_cloud(tmp_path: Path, remains: Remains) -> Iterator[RunningCloud]:
    """On one simulated host, for what needs no real guest; a module takes it for its `cloud`."""
    running = RunningCloud(tmp_path / "state", hosts=1)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def openstack(cloud: RunningCloud) -> OpenStack:
    """Run the client as a user would: ``openstack("server", "list")`` gives what it prints as JSON."""

    def run(*words: str, parse: bool = True, check: bool = True, timeout: float = 300) -> Any:
        command = [str(CLIENT), *words, *(["-f", "json"] if parse else [])]
        done = subprocess.run(command, env=cloud.environment(), capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            faults = [
                (server["name"], server.get("fault"))
                for server in cloud.client().compute("GET", "/servers/detail").json()["servers"]
            ]
            raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr} {faults}")
        return json.loads(done.stdout) if parse and done.returncode == 0 else done.stdout + done.stderr

    return run
