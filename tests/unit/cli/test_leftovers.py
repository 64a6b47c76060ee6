"""What belongs to a state directory on this machine, told apart from what belongs to others."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilonova.base.clock import SystemClock
from kilonova.cli.leftovers import Machine, end_processes, processes_of

SLEEP = "import sys, time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(started: list[subprocess.Popen[bytes]], code: str, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    started.append(process)
    return process


def test_processes_are_told_by_the_directory_in_their_command_line(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    state = tmp_path / "var"
    mine = start(started, SLEEP, f"file={state}/hosts/a/disk,format=qcow2")
    also_mine = start(started, SLEEP, "--dir", str(state))
    start(started, SLEEP, f"{state}2/disk")
    start(started, SLEEP, f"{state}.old")
    assert set(processes_of(state)) == {mine.pid, also_mine.pid}


async def test_ending_spares_what_is_to_be_kept_and_insists_on_the_rest(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    kept, polite = start(started, SLEEP, str(tmp_path)), start(started, SLEEP, str(tmp_path))
    stubborn = start(started, STUBBORN, str(tmp_path))
    assert stubborn.stdout is not None
    stubborn.stdout.readline()  # from here on it ignores SIGTERM
    left = await end_processes(tmp_path, SystemClock(), keep=frozenset({kept.pid}), grace_s=0.5)
    assert left == []
    assert polite.wait(5) == -15
    assert stubborn.wait(5) == -9
    assert kept.poll() is None


def test_only_what_is_new_counts() -> None:
    before = Machine(frozenset({"kb0123456789a"}), frozenset({"table inet kilonova_a"}))
    now = Machine(frozenset({"kb0123456789a", "knabc"}), frozenset({"table ip kilonova_b"}))
    assert now.since(before) == ["link knabc", "nft table ip kilonova_b"]
    assert before.since(before) == []
