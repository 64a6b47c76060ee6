"""Image bytes as files in one directory: written beside, synced, renamed; never half there under their name."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kilonova.model.disk_format import HEADER_BYTES, inspect
from kilonova.model.errors import NotFound, TooLarge, Unavailable

CHUNK = 1024 * 1024
"""Bytes read and written at a time: what one transfer holds in memory."""


@dataclass(frozen=True)
class Stored:
    """What was learnt while the bytes went by."""

    size: int
    checksum: str
    hash_value: str
    virtual_size: int | None


class ImageFiles:
    """The bytes of all images, below one directory."""

    def __init__(self, directory: Path, *, size_cap: int) -> None:
        self._directory = directory
        self._size_cap = size_cap

    def _path(self, image_id: str) -> Path:
        return self._directory / image_id

    async def write(self, image_id: str, stream: AsyncIterator[bytes], disk_format: str) -> Stored:
        """Keep the bytes of `stream`, checked against the declared format. On error nothing is kept.

        Raises:
            BadRequest: the bytes are not of that format.
            TooLarge: over the cap.
            Unavailable: the disk is full.
        """
        draft = self._path(f"{image_id}.part")
        md5, sha512 = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        size, head, virtual = 0, b"", None
        checked = False
        try:
            with draft.open("wb") as file:
                async for chunk in stream:
                    size += len(chunk)
                    if size > self._size_cap:
                        raise TooLarge(limit=self._size_cap, detail=f"Images may have {self._size_cap} bytes at most.")
                    if not checked:
                        head += chunk
                        if len(head) >= HEADER_BYTES:
                            virtual, checked = inspect(head, disk_format), True
                    await asyncio.to_thread(_take, file, chunk, md5, sha512)
                if not checked:
                    virtual = inspect(head, disk_format)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(_publish, draft, self._path(image_id))
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Unavailable(f"The image store cannot take the bytes: {error.strerror}.") from error
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Stored(size, md5.hexdigest(), sha512.hexdigest(), virtual)

    async def read(self, image_id: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (not included), in pieces.

        Raises:
            NotFound
        """
        path = self._path(image_id)
        if not path.exists():
            raise NotFound(kind="Image data", id=image_id)
        left = (path.stat().st_size if end is None else end) - start
        file = await asyncio.to_thread(path.open, "rb")
        try:
            file.seek(start)
            while left > 0:
                chunk = await asyncio.to_thread(file.read, min(CHUNK, left))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            file.close()

    def remove(self, image_id: str) -> None:
        """Let the bytes go. Not there is not an error."""
        self._path(image_id).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Remove what a crash left: parts of uploads, bytes of images that are no more; how many files."""
        gone = 0
        for path in self._directory.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)
                gone += 1
        return gone


def _take(file: BinaryIO, chunk: bytes, *digests: Any) -> None:
    file.write(chunk)
    for digest in digests:
        digest.update(chunk)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _publish(draft: Path, path: Path) -> None:
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
