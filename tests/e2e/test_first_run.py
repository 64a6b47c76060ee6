"""``kilonova first-run``, the heart of `make run`: from nothing to a server that answers, and back to nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import GUEST_IMAGE
from tests.support.remains import Remains
from tests.support.running import free_port

pytestmark = [pytest.mark.real, pytest.mark.slow]

STEPS = ("start the cloud", "image", "key pair", "server ACTIVE", "ssh answers", "metadata answers in the guest")


class FirstRun:
    """One run of the command, as a process."""

    def __init__(self, state: Path, *more: str, image: Path = GUEST_IMAGE, port: int | None = None) -> None:
        self.port = port or free_port()
        self._output = (state.parent / f"first-run-{time.monotonic_ns()}.out").open("w+")
        command = [sys.executable, "-m", "kilonova.cli.main", "first-run", "--state", str(state)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--image", str(image), *more]
        self.process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return Path(self._output.name).read_text()

    def until(self, words: str, *, within_s: float) -> str:
        end = time.monotonic() + within_s
        while words not in self.said:
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < end, f"not within {within_s} s: {words!r}\n{self.said}"
            time.sleep(0.1)
        return self.said

    def end(self, *, within_s: float) -> int:
        return self.process.wait(within_s)


@pytest.fixture
def runs() -> Iterator[list[FirstRun]]:
    started: list[FirstRun] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
            run.process.wait(60)


def test_once_ends_as_it_began(remains: Remains, runs: list[FirstRun]) -> None:
    run = FirstRun(remains.state, "--once")
    runs.append(run)
    assert run.end(within_s=600) == 0, run.said
    for step in STEPS:
        assert re.search(rf"│ {step} +│ +\d+\.\d │", run.said), f"no line of the table for {step}:\n{run.said}"
    assert "no bridge, tap, rule, process or disk of this run" in run.said
    assert remains.of_guests() == []
    assert remains.processes() == {}
    assert not remains.state.exists()


def test_ctrl_c_leaves_the_server_and_the_next_run_takes_it_over(remains: Remains, runs: list[FirstRun]) -> None:
    first = FirstRun(remains.state)
    runs.append(first)
    first.until("Running; stop with", within_s=600)
    ssh = next(line.removeprefix("Log in").split() for line in first.said.splitlines() if line.startswith("Log in"))
    boot_id = subprocess.run([*ssh, "cat /proc/sys/kernel/random/boot_id"], capture_output=True, timeout=60).stdout
    assert len(boot_id) > 30
    first.process.send_signal(signal.SIGINT)
    assert first.end(within_s=90) == 0, first.said
    assert remains.processes("qemu-system"), "the guest is gone with the cloud"

    second = FirstRun(remains.state)
    runs.append(second)
    said = second.until("Running; stop with", within_s=120)
    assert "kilonova-guest is there" in said
    assert "it was there" in said
    assert (
        subprocess.run([*ssh, "cat /proc/sys/kernel/random/boot_id"], capture_output=True, timeout=60).stdout == boot_id
    )
    seconds = re.search(r"│ all +│ +(\d+\.\d) │", said)
    assert seconds is not None
    assert float(seconds[1]) < 20

    # A third one beside it uses the same cloud, and with --once takes nothing away but its own server.
    once = FirstRun(remains.state, "--once", port=second.port)
    runs.append(once)
    assert once.end(within_s=600) == 0, once.said
    assert "was there before this run and stays" in once.said
    assert second.process.poll() is None
    assert subprocess.run([*ssh, "true"], capture_output=True, timeout=60).returncode == 0
    second.process.send_signal(signal.SIGTERM)
    assert second.end(within_s=90) == 0, second.said


def test_what_fails_is_explained_and_leaves_nothing(remains: Remains, runs: list[FirstRun], tmp_path: Path) -> None:
    no_disk = tmp_path / "no-disk.qcow2"
    no_disk.write_bytes(os.urandom(4096))
    run = FirstRun(remains.state, "--once", image=no_disk)
    runs.append(run)
    assert run.end(within_s=180) == 1, run.said
    assert "It did not work:" in run.said
    assert "failed image" in run.said
    assert remains.of_guests() == []
    assert remains.processes() == {}

    missing = FirstRun(remains.state, image=tmp_path / "nothing.qcow2")
    runs.append(missing)
    assert missing.end(within_s=20) == 1
    assert "make guest-image" in missing.said


def test_an_address_that_is_taken_is_told_and_what_to_do(remains: Remains, runs: list[FirstRun]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = FirstRun(remains.state, port=taken.getsockname()[1])
        runs.append(run)
        assert run.end(within_s=120) == 1, run.said
    assert "listen" in run.said
    assert remains.processes() == {}
