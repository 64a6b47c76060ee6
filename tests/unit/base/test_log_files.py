"""A log file among others: full, moved away, shared, cut off, and there again."""

import fcntl
import io
import multiprocessing
import resource
import shutil
import sys
import threading
from pathlib import Path

import pytest

from kilonova.base.log_files import LOOK_S, RETRY_S, LogFile


class Hands:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_file(path: Path, clock: Hands | None = None, *, max_bytes: int = 0, keep: int = 2) -> LogFile:
    return LogFile(path, max_bytes=max_bytes, keep=keep, monotonic=clock or Hands())


def test_full_files_are_moved_on_and_the_oldest_goes(tmp_path: Path) -> None:
    file = a_file(tmp_path / "a.log", max_bytes=10, keep=2)
    for letter in "abcde":
        assert file.write(letter.encode() * 5 + b"\n")
    assert {path.name: path.read_text()[0] for path in tmp_path.iterdir()} == {
        "a.log": "e",
        "a.log.1": "d",
        "a.log.2": "c",
    }


def test_a_line_longer_than_a_file_is_written_whole(tmp_path: Path) -> None:
    file = a_file(tmp_path / "a.log", max_bytes=10, keep=0)
    assert file.write(b"x" * 50 + b"\n") and file.write(b"short\n")
    assert (tmp_path / "a.log").read_bytes() == b"short\n" and len(list(tmp_path.iterdir())) == 1


def test_files_are_not_for_everybody(tmp_path: Path) -> None:
    a_file(tmp_path / "a.log").write(b"x\n")
    assert (tmp_path / "a.log").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("how", ["moved", "vanished"])
def test_a_file_that_went_away_is_made_again(tmp_path: Path, how: str) -> None:
    clock = Hands()
    file = a_file(tmp_path / "logs/a.log", clock)
    assert file.write(b"one\n")
    if how == "moved":
        (tmp_path / "logs/a.log").rename(tmp_path / "old")
    else:
        shutil.rmtree(tmp_path / "logs")
    clock.now += LOOK_S
    assert file.write(b"two\n")
    assert (tmp_path / "logs/a.log").read_bytes() == b"two\n"


def test_after_a_failure_it_is_tried_again_later(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clock, path = Hands(), tmp_path / "a.log"
    path.symlink_to("/dev/full")
    file = a_file(path, clock)
    assert not file.write(b"one\n")
    path.unlink()
    assert not file.write(b"two\n"), "not at each line"
    clock.now += RETRY_S
    assert file.write(b"three\n") and path.read_bytes() == b"three\n"
    told = capfd.readouterr().err
    assert told.count("Log lines go to standard error") == 1 and told.endswith("one\ntwo\n")
    path.unlink()
    path.symlink_to("/dev/full")
    clock.now += LOOK_S
    assert not file.write(b"four\n")
    assert "Log lines go to standard error" in capfd.readouterr().err, "a second failure is told again"


def test_a_line_cut_off_does_not_swallow_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = io.BytesIO()  # the limit below is for all files, also for those that pytest catches output in
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(elsewhere))
    clock, path = Hands(), tmp_path / "a.log"
    file = a_file(path, clock)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        assert not file.write(b"0123456789 and more\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert elsewhere.getvalue().endswith(b"\n0123456789 and more\n"), "whole, elsewhere"
    clock.now += RETRY_S
    assert file.write(b"next\n")
    assert path.read_bytes() == b"0123456789\nnext\n"


def test_who_comes_late_finds_it_moved_on_already(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    first, second = (a_file(path, max_bytes=10) for _ in range(2))
    assert second.write(b"aaaaa\n") and first.write(b"b\n")
    assert first.write(b"ccccc\n"), "moves it on"
    assert second.write(b"ddddd\n"), "still has the full one open"
    assert (tmp_path / "a.log.1").read_bytes() == b"aaaaa\nb\n"
    assert path.read_bytes() == b"ccccc\nddddd\n" and not (tmp_path / "a.log.2").exists()


def test_who_moves_it_on_waits_for_another_who_does(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = a_file(path, max_bytes=10)
    file.write(b"aaaaaaaa\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=file.write, args=(b"bbbbbbbb\n",))
        writer.start()
        writer.join(0.2)
        assert writer.is_alive() and not (tmp_path / "a.log.1").exists()
        path.rename(tmp_path / "moved by the other")
        path.touch()
    writer.join(10)
    assert path.read_bytes() == b"bbbbbbbb\n" and not (tmp_path / "a.log.1").exists()


def _write(path: Path, name: int) -> None:
    file = LogFile(path, max_bytes=2000, keep=1000)
    for number in range(300):
        file.write(f"{name} {number}\n".encode())


def test_processes_that_share_a_file_lose_no_line(tmp_path: Path) -> None:
    fresh = multiprocessing.get_context("spawn")
    writers = [fresh.Process(target=_write, args=(tmp_path / "a.log", name)) for name in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = list(tmp_path.iterdir())
    found = sorted(line for file in files for line in file.read_text().splitlines())
    assert found == sorted(f"{name} {number}" for name in range(3) for number in range(300))
    assert len(files) > 2
