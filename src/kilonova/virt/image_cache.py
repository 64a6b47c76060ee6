"""A host's own copies of images: each fetched once, proved right, and kept while somebody may want it.

A copy is ``<image id>.<first half of its SHA-512>``, so another image that comes to have the same id is another file.
Bytes come over HTTP to a ``.part`` beside it, are hashed and looked at as they come, and take the name only when they
are all there, on disk, and right: a process that is killed leaves a ``.part``, which the next start removes. Files
that were there before the start are hashed again at first use, and whenever their size or time of change is not what
it was; a copy that is wrong is fetched anew. Guests' disks refer to these files, so nothing ever writes to one.

When a copy was last asked for is its time of access, which this module sets itself.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import httpx

from kilonova.base.clock import Clock
from kilonova.base.log import get_logger
from kilonova.model.disk_format import HEAD, TAIL, Inspector, UnusableDisk, inspect
from kilonova.model.errors import CloudError, ImageUnusable, InsufficientResources, Unavailable
from kilonova.model.guest import ImageRef
from kilonova.model.image import TICKET_HEADER

log = get_logger(__name__)

BATCH: Final = 1024 * 1024
"""Bytes handled at a time."""

_PART: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAMED_BY: Final = 64  # hexadecimal digits of the hash in a file's name

_GONE: Final = frozenset({204, 404, 410})
_RETRIED: Final = frozenset({401, 403, 408, 425, 429})
"""Refusals that a later attempt may not meet: with a fresh ticket, or when the service is less busy."""


@dataclass(frozen=True, kw_only=True)
class ImageCacheOptions:
    """``[image_cache]`` of kilonova.conf."""

    section: ClassVar[str] = "image_cache"

    concurrent_fetches: int = 2
    """Images that one host fetches at the same time; more wait."""

    attempts: int = 3
    """How often one fetch is tried while the Image API cannot be reached, before the build goes to another host."""

    retry_s: float = 1.0
    """Seconds before the second attempt; doubled for each further one."""

    silence_s: float = 60.0
    """Seconds without a byte after which an attempt is broken off."""

    keep_unused_days: float = 1.0
    """Days after which a copy that no guest uses and nobody asked for is removed."""

    prune_interval_s: float = 600.0
    """Seconds between two looks for such copies."""


@dataclass(frozen=True)
class _Stamp:
    """What of a file changes when somebody writes to it."""

    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "_Stamp":
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class ImageCache:
    """The `ImageSource` of one host. One instance per directory."""

    def __init__(
        self,
        directory: Path,
        client: Callable[[], httpx.AsyncClient],
        clock: Clock,
        options: ImageCacheOptions | None = None,
    ) -> None:
        """
        Args:
            directory: where the copies are; made if it is missing. QEMU's user must be able to search its parents.
            client: makes an HTTP client; it is asked once, at the first fetch, and the client is closed by `close`.
        """
        self._directory = directory
        self._new_client = client
        self._client: httpx.AsyncClient | None = None
        self._clock = clock
        self._options = options or ImageCacheOptions()
        self._turns = asyncio.Semaphore(self._options.concurrent_fetches)
        self._ready: asyncio.Task[None] | None = None
        self._under_way: dict[Path, asyncio.Task[None]] = {}
        self._proved: dict[Path, _Stamp] = {}
        self.bytes_fetched = 0
        """Image bytes that came over the network since the start."""
        self.fetches = 0
        self.hits = 0
        """How often a copy that was here already was enough."""

    async def start(self) -> None:
        """Make the directory and remove what a killed process left. `path_of` does it too, if nobody has.

        Raises:
            Unavailable: the directory cannot be made or read.
        """
        if self._ready is None:
            self._ready = asyncio.create_task(asyncio.to_thread(self._prepare), name="image-cache.start")
        try:
            await asyncio.shield(self._ready)
        except OSError as error:
            self._ready = None
            raise Unavailable(f"The image cache cannot be used: {error}") from error

    async def close(self) -> None:
        """Break off fetches and let go of the network."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def path_of(self, image: ImageRef) -> str:
        """See `kilonova.virt.driver.ImageSource`. Callers who want the same image at once share one fetch.

        Raises:
            ImageUnusable: not there, not what it was declared to be, or not the bytes that were recorded.
            InsufficientResources: no room on this host.
            Unavailable: it cannot be fetched now.
        """
        await self.start()
        path = self._directory / _name(image)
        task = self._under_way.get(path)
        if task is None:
            task = self._under_way[path] = asyncio.create_task(self._provide(image, path), name=f"image.{image.id}")
            task.add_done_callback(partial(self._ended, path))
        # One caller that is cancelled does not take the image away from the others, or from the next attempt.
        await asyncio.shield(task)
        return str(path)

    async def prune(self, in_use: Collection[str], *, unused_for_s: float | None = None) -> list[str]:
        """Remove copies that nobody uses and nobody asked for lately; their paths.

        Args:
            in_use: image ids, or paths of copies, of every guest on this host, running or not.
            unused_for_s: younger ones stay; None: as the options say.
        """
        await self.start()
        kept_s = self._options.keep_unused_days * 86400 if unused_for_s is None else unused_for_s
        kept = {*in_use, *map(str, self._under_way)}
        removed = await asyncio.to_thread(self._remove_unused, kept, self._clock.now() - timedelta(seconds=kept_s))
        for path in removed:
            self._proved.pop(path, None)
        return [str(path) for path in removed]

    def _ended(self, path: Path, task: asyncio.Task[None]) -> None:
        del self._under_way[path]
        if not task.cancelled():
            task.exception()  # looked at, though perhaps nobody waits for it any more

    # ---- one image ----------------------------------------------------------------------------------

    async def _provide(self, image: ImageRef, path: Path) -> None:
        if await asyncio.to_thread(self._is_here, image, path):
            self.hits += 1
            log.info("image is here already", image=image.id, bytes_moved=0)
            return
        async with self._turns:
            started, before = self._clock.monotonic(), self.bytes_fetched
            await self._fetch_patiently(image, path)
            log.info(
                "image fetched",
                image=image.id,
                bytes_moved=self.bytes_fetched - before,
                seconds=round(self._clock.monotonic() - started, 2),
            )

    def _is_here(self, image: ImageRef, path: Path) -> bool:
        try:
            stamp = _Stamp.of(path.stat())
            if self._proved.get(path) != stamp:
                if stamp.size != image.size or _hash_of(path, image.hash_algo) != image.hash_value:
                    log.error("image copy is damaged, it is fetched again", image=image.id, path=str(path))
                    return False
                _look(image, path)
                self._proved[path] = stamp
            os.utime(path, ns=(self._now_ns(), stamp.changed_ns))
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("image copy cannot be read, it is fetched again", image=image.id, cause=str(error))
            return False
        return True

    async def _fetch_patiently(self, image: ImageRef, path: Path) -> None:
        pause = self._options.retry_s
        for attempt in range(1, self._options.attempts + 1):
            try:
                await self._fetch(image, path)
            except Unavailable as error:
                if attempt == self._options.attempts:
                    raise
                log.warning("image fetch is tried again", image=image.id, attempt=attempt, cause=error.message)
                await self._clock.sleep(pause)
                pause *= 2
            else:
                return

    async def _fetch(self, image: ImageRef, path: Path) -> None:
        self.fetches += 1
        try:
            copy = await asyncio.to_thread(_Copy, image, path)
        except OSError as error:
            raise self._typed(image, error) from error
        try:
            await self._pour(image, copy)
            self._proved[path] = await asyncio.to_thread(copy.complete)
        except OSError as error:
            raise self._typed(image, error) from error
        finally:
            await asyncio.shield(asyncio.to_thread(copy.discard))

    async def _pour(self, image: ImageRef, copy: "_Copy") -> None:
        if self._client is None:
            self._client = self._new_client()
        limits = httpx.Timeout(self._options.silence_s)
        headers = {TICKET_HEADER: image.ticket, "Accept-Encoding": "identity"}
        try:
            async with self._client.stream("GET", image.url, headers=headers, timeout=limits) as answer:
                _check(image, answer)
                async for batch in answer.aiter_raw(BATCH):
                    self.bytes_fetched += len(batch)
                    await asyncio.to_thread(copy.feed, batch)
        except httpx.InvalidURL as error:
            raise ImageUnusable(f"Image {image.id} has no usable address: {error}") from error
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise Unavailable(f"Image {image.id} cannot be fetched from {image.url}: {cause}") from error

    @staticmethod
    def _typed(image: ImageRef, error: OSError) -> CloudError:
        if error.errno in _FULL:
            return InsufficientResources(f"There is no room here for the {image.size} bytes of image {image.id}.")
        return Unavailable(f"The image cache cannot be written: {error}")

    # ---- files --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o755)  # whatever the umask: QEMU runs as another user
        for part in self._directory.glob(f"*{_PART}"):
            part.unlink(missing_ok=True)
            log.info("half an image removed", path=str(part))

    def _copies(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if path.is_file() and path.suffix != _PART)

    def _remove_unused(self, in_use: Collection[str], before: datetime) -> list[Path]:
        removed = []
        for path in self._copies():
            if str(path) in in_use or path.name.partition(".")[0] in in_use:
                continue
            last_used = datetime.fromtimestamp(path.stat().st_atime, UTC)
            if last_used > before:
                continue
            path.unlink(missing_ok=True)
            removed.append(path)
            log.info("image copy removed", path=str(path), last_used=last_used.isoformat())
        return removed

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)


class _Copy:
    """One copy in the making. Its methods block: call them in threads.

    A cancelled caller leaves its thread behind, hence the lock: what that thread still does cannot meet `discard`.
    """

    def __init__(self, image: ImageRef, path: Path) -> None:
        room = os.statvfs(path.parent)
        if room.f_bavail * room.f_frsize < image.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._image = image
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._lock = threading.Lock()
        self._file: BinaryIO | None = self._part.open("wb")
        self._hash = hashlib.new(image.hash_algo)
        self._inspector = Inspector(image.disk_format)

    def feed(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            ImageUnusable, OSError
        """
        with self._lock:
            if self._file is None:
                return  # discarded while this call waited for its thread
            if self._inspector.size + len(data) > self._image.size:
                raise ImageUnusable(f"More came of image {self._image.id} than the {self._image.size} bytes recorded.")
            with _sound(self._image):
                self._inspector.feed(data)
            self._hash.update(data)
            self._file.write(data)

    def complete(self) -> _Stamp:
        """All bytes have come: make them the copy, durably.

        Raises:
            Unavailable: the connection ended early.
            ImageUnusable, OSError
        """
        with self._lock:
            image, file = self._image, self._file
            if file is None or self._inspector.size != image.size:
                raise Unavailable(f"Only {self._inspector.size} of the {image.size} bytes of image {image.id} came.")
            if self._hash.hexdigest() != image.hash_value:
                raise ImageUnusable(f"What came of image {image.id} has another {image.hash_algo} than was recorded.")
            with _sound(image):
                self._inspector.finish()
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            self._part.replace(self._path)
            file.close()
            self._file = None
            _sync(self._path.parent)
            return _Stamp.of(self._path.stat())

    def discard(self) -> None:
        """Forget what has come, unless it is complete."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
                self._part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _name(image: ImageRef) -> str:
    if not all(character in "0123456789abcdef-" for character in image.id) or not image.id:
        raise ImageUnusable(f"{image.id!r} is no id of an image.")
    if not all(character in "0123456789abcdef" for character in image.hash_value) or len(image.hash_value) < 32:
        raise ImageUnusable(f"Image {image.id} has no usable {image.hash_algo}.")
    if image.hash_algo not in hashlib.algorithms_guaranteed or image.hash_algo.startswith("shake"):
        raise ImageUnusable(f"Image {image.id} is recorded with the hash {image.hash_algo!r}, which is not known here.")
    return f"{image.id}.{image.hash_value[:_NAMED_BY]}"


def _check(image: ImageRef, answer: httpx.Response) -> None:
    status = answer.status_code
    if status != httpx.codes.OK:
        said = f"The Image API answered {status} to the fetch of image {image.id}."
        if status >= 500 or status in _RETRIED:
            raise Unavailable(said)
        raise ImageUnusable(f"Image {image.id} is not there." if status in _GONE else said)
    length = answer.headers.get("content-length")
    if length is not None and length != str(image.size):
        raise ImageUnusable(f"Image {image.id} has {length} bytes, not the {image.size} recorded for it.")


@contextlib.contextmanager
def _sound(image: ImageRef) -> Iterator[None]:
    try:
        yield
    except UnusableDisk as fault:
        raise ImageUnusable(f"Image {image.id} cannot be used. {fault}") from None


def _look(image: ImageRef, path: Path) -> None:
    """The header once more: its rules may be stricter now than when the copy was made."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(image.size - TAIL, 0))
        tail = file.read(TAIL)
    with _sound(image):
        inspect(image.disk_format, head, size=image.size, tail=tail)


def _hash_of(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
