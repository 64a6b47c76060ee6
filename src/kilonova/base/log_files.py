"""Where log lines go: one append-only file a service. A cloud does not stop because its log cannot be written.

A full disk, a directory that vanished, a right that was taken: the lines go to standard error, which is said once,
and the file is tried again every `RETRY_S` seconds. Several processes may share a file: each notices when another
(or logrotate) has moved it away, and only one of them moves it when it is full.
"""

import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

RETRY_S: Final = 30.0
"""Seconds until a file that could not be written is tried again."""

LOOK_S: Final = 1.0
"""Seconds between two looks whether a file is still where it was opened."""


def to_stderr(line: bytes) -> None:
    """Write to standard error, if there is one."""
    # ValueError: it was closed. Nobody is left who could be told.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


class LogFile:
    """One file, moved to ``NAME.1`` when full, that to ``NAME.2``, and so on."""

    def __init__(
        self, path: Path, *, max_bytes: int, keep: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            max_bytes: size from which the next line begins a new file; 0 for never.
            keep: how many full ones stay.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._monotonic = monotonic
        self._descriptor = -1
        self._look_at = 0.0
        self._retry_at: float | None = None
        self._cut = False
        self._lock = threading.Lock()

    def write(self, line: bytes) -> bool:
        """Append a whole line. False: it could not be, and went to standard error. Never raises."""
        with self._lock:
            now = self._monotonic()
            if self._retry_at is not None and now < self._retry_at:
                to_stderr(line)
                return False
            try:
                self._ready(now, len(line))
                self._append(line)
            except OSError as error:
                if self._retry_at is None:
                    to_stderr(f"{self._path}: {error.strerror}. Log lines go to standard error.\n".encode())
                self._retry_at = now + RETRY_S
                self._close()
                to_stderr(line)
                return False
            self._retry_at = None
            return True

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: bytes) -> None:
        if self._cut:  # what a full disk left of a line must not swallow this one
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        self._cut = written < len(line)
        if self._cut:
            raise OSError(28, os.strerror(28))

    def _ready(self, now: float, more: int) -> None:
        if self._descriptor >= 0 and now >= self._look_at:
            self._look_at = now + LOOK_S
            if not self._in_place():
                self._close()
        if self._descriptor < 0:
            self._open()
            self._look_at = now + LOOK_S
        size = os.fstat(self._descriptor).st_size
        if self._max_bytes and size and size + more > self._max_bytes:
            self._move_on()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)

    def _in_place(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _move_on(self) -> None:
        # All who share the file wait on it for each other; whoever comes late finds it moved away already.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        if self._in_place():
            for number in range(self._keep, 0, -1):
                source = self._full(number - 1)
                with contextlib.suppress(FileNotFoundError):
                    source.replace(self._full(number))
            if self._keep == 0:
                self._path.unlink(missing_ok=True)
        self._close()  # and with it the lock
        self._open()

    def _full(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
