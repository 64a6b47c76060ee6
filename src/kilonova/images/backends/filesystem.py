"""Bytes as files in one directory.

A draft is ``<key>.part``; publishing is fsync, rename, fsync of the directory, so that after a power cut there is
the whole file or none. Every call that can block runs in a worker thread, one hop for about a mebibyte.
"""

import asyncio
import errno
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

from kilonova.base.log import get_logger
from kilonova.images.backends.base import Draft
from kilonova.model.errors import CloudError, NotFound, Unavailable
from kilonova.model.image import StorageFull

log = get_logger(__name__)

PIECE = 1024 * 1024
"""Bytes read at a time."""

_DRAFT = ".part"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,200}\Z")
_PORTION = 500
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LOOK_EVERY = 64 * PIECE


class FilesystemStore:
    """Keeps each key as a file below `directory`."""

    name: ClassVar[str] = "file"

    def __init__(self, directory: Path, *, keep_free: int = 0) -> None:
        """
        Args:
            keep_free: bytes of the file system that are left to others; made in `directory` if it is missing.
        """
        self._directory = directory
        self._keep_free = keep_free
        directory.mkdir(parents=True, exist_ok=True)

    async def create(self, key: str) -> Draft:
        """See `ByteStore.create`."""
        return await asyncio.to_thread(_FileDraft, self._path(key), self._keep_free)

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `ByteStore.read`."""
        descriptor = await asyncio.to_thread(self._open, key)
        return _Pieces(descriptor, start, length)

    async def delete(self, key: str) -> None:
        """See `ByteStore.delete`."""
        await asyncio.to_thread(self._delete, key)

    async def keys(self) -> AsyncIterator[list[str]]:
        """See `ByteStore.keys`."""
        names = await asyncio.to_thread(self._names)
        for portion in _portions([name for name in names if not name.endswith(_DRAFT)]):
            yield portion

    async def drafts(self) -> AsyncIterator[list[str]]:
        """See `ByteStore.drafts`."""
        names = await asyncio.to_thread(self._names)
        for portion in _portions([name.removesuffix(_DRAFT) for name in names if name.endswith(_DRAFT)]):
            yield portion

    def _names(self) -> list[str]:
        # A file that is called otherwise is not ours.
        return sorted(path.name for path in self._directory.iterdir() if _KEY.match(path.name))

    def _delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            path.with_name(path.name + _DRAFT).unlink(missing_ok=True)
        except OSError as error:
            raise _typed(error) from error

    def _path(self, key: str) -> Path:
        if not _KEY.match(key) or key.endswith(_DRAFT):
            raise ValueError(f"{key!r} is no key")  # keys are made by us: this is a bug, not a user's mistake
        return self._directory / key

    def _open(self, key: str) -> int:
        try:
            return os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(kind="Image data", id=key) from None
        except OSError as error:
            raise _typed(error) from error


class _FileDraft:
    def __init__(self, path: Path, keep_free: int) -> None:
        self._path = path
        self._keep_free = keep_free
        self._part = path.with_name(path.name + _DRAFT)
        self._unlooked = 0
        # A cancelled caller leaves its thread behind. The lock keeps that thread from writing to a descriptor
        # that was closed meanwhile, and may be another file's by then.
        self._lock = threading.Lock()
        try:
            _check_room(path.parent, keep_free)
            self._descriptor: int | None = os.open(
                self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise _typed(error) from error

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._locked, self._write, data)

    async def publish(self) -> None:
        await asyncio.to_thread(self._locked, self._publish)

    async def discard(self) -> None:
        await asyncio.to_thread(self._discard)

    def _locked(self, act: Callable[..., None], *args: bytes) -> None:
        with self._lock:
            if self._descriptor is None:
                raise Unavailable("The upload was given up.")
            try:
                act(self._descriptor, *args)
            except OSError as error:
                raise _typed(error) from error

    def _write(self, descriptor: int, data: bytes) -> None:
        self._unlooked += len(data)
        if self._unlooked >= _LOOK_EVERY:
            self._unlooked = 0
            _check_room(self._part.parent, self._keep_free)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def _publish(self, descriptor: int) -> None:
        os.fsync(descriptor)
        self._close()
        self._part.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _discard(self) -> None:
        with self._lock:
            self._close()
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class _Pieces:
    """An iterator over a part of an open file. A generator would not close the file if nobody asked for a piece."""

    def __init__(self, descriptor: int, start: int, length: int | None) -> None:
        self._descriptor: int | None = descriptor
        self._at = start
        self._left = length
        self._lock = threading.Lock()  # as in `_FileDraft`

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        size = PIECE if self._left is None else min(PIECE, self._left)
        piece = await asyncio.to_thread(self._read, size) if size else b""
        if not piece:
            await self.aclose()
            raise StopAsyncIteration
        self._at += len(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    async def aclose(self) -> None:
        """Let go of the file. May be called again."""
        with self._lock:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _read(self, size: int) -> bytes:
        with self._lock:
            return b"" if self._descriptor is None else os.pread(self._descriptor, size, self._at)


def _portions(names: list[str]) -> list[list[str]]:
    return [names[at : at + _PORTION] for at in range(0, len(names), _PORTION)]


def _check_room(directory: Path, keep_free: int) -> None:
    if not keep_free:
        return
    room = os.statvfs(directory)
    if room.f_bavail * room.f_frsize < keep_free:
        raise OSError(errno.ENOSPC, "what is free is kept for others")


def _typed(error: OSError) -> CloudError:
    if error.errno in _FULL:
        log.error("no room for images", cause=error.strerror)
        return StorageFull()
    log.error("the store of images cannot be used", cause=str(error))
    return Unavailable(f"The store of images cannot be used: {error.strerror}.")
