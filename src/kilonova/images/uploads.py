"""Taking in the bytes of an image: claimed, hashed, looked at and written as they come, then recorded.

The order is what makes a crash harmless. The image is claimed for this upload; the bytes go to a draft; the
draft is published under a key of its own; and one transaction makes the image active with that key, if the image is
still this upload's. Wherever it breaks, the image has no bytes and can be given them again, and what lies around is
swept. Memory does not depend on the size of the image: bytes are handled in batches of about a mebibyte.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import get_logger
from kilonova.images.backends.base import ByteStore, Draft
from kilonova.images.keys import key_of
from kilonova.images.options import ImageOptions
from kilonova.model.disk_format import Inspector, UnusableDisk
from kilonova.model.errors import BadRequest, CloudError, NotFound, QuotaExceeded
from kilonova.model.image import Image, ImageGone, ImageStateConflict, ImageTooLarge, Received
from kilonova.store.engine import Store
from kilonova.store.queries import images, quotas
from kilonova.store.transactions import Tx

log = get_logger(__name__)

BATCH: Final = 1024 * 1024
"""Bytes handled at a time."""

HASH_ALGO: Final = "sha512"
SIZE_QUOTA: Final = "image_size_total"
"""Bytes of a project's images, in MiB, each rounded up."""

_INSPECTED: Final = frozenset({"bare", "ami", "ari", "aki"})
"""Containers whose bytes are the disk itself; of the others only whoever unpacks them can look inside."""


def size_in_quota(image: Image) -> int:
    """What an image takes of `SIZE_QUOTA`."""
    return -(-(image.size or 0) // 1024**2)


class Uploads:
    """Receives bytes, and cleans up after uploads that died."""

    def __init__(self, store: Store, bytes_store: ByteStore, clock: Clock, ids: Ids, options: ImageOptions) -> None:
        self._store = store
        self._bytes = bytes_store
        self._clock = clock
        self._ids = ids
        self._options = options
        self._lease = timedelta(seconds=options.upload_lease_s)

    async def receive(self, image: Image, stream: AsyncIterator[bytes], *, announced: int | None = None) -> Image:
        """Give `image` the bytes of `stream`.

        Args:
            announced: how many bytes will come, if the sender said so.

        Raises:
            BadRequest: the image lacks a declared format, or the bytes are not of it, or fewer or more than announced.
            ImageStateConflict: the image has bytes already, or another upload is under way.
            ImageTooLarge, StorageFull, ImageGone, Unavailable
        """
        if image.disk_format is None or image.container_format is None:
            raise BadRequest("Properties disk_format, container_format must be set prior to saving data.")
        cap = self._options.image_size_cap
        if announced is not None and announced > cap:
            raise ImageTooLarge(cap)
        upload_id = self._ids.uuid()
        now = self._clock.now()
        began = await self._store.run(images.begin_upload, image.id, upload_id, at=now, silent_since=now - self._lease)
        if not began:
            raise await self._refusal(image.id)
        log.info("image upload begins", image=image.id, announced=announced)
        try:
            return await self._take(image, upload_id, stream, announced)
        except BaseException as error:
            cause = error.message if isinstance(error, CloudError) else type(error).__name__
            # Also when this task is cancelled, as at the end of the process: nobody must wait for the lease.
            await asyncio.shield(self._give_up(image.id, upload_id, cause))
            raise

    async def _take(self, image: Image, upload_id: str, stream: AsyncIterator[bytes], announced: int | None) -> Image:
        key = key_of(image.id, upload_id)
        draft = await self._bytes.create(key)
        try:
            received = await self._pour(image, draft, self._alive(stream, image.id, upload_id))
            if announced is not None and received.size != announced:
                raise BadRequest(f"{received.size} bytes came, but {announced} were announced.")
            await draft.publish()
        finally:
            await asyncio.shield(draft.discard())
        try:
            done = await self._store.run(_finish, image.id, upload_id, received, key, self._clock.now())
        except QuotaExceeded as error:
            raise ImageTooLarge(error.limit * 1024**2, error.message) from None
        if done is None:
            raise ImageGone(image_id=image.id)
        log.info("image is active", image=image.id, bytes=received.size, sha512=received.hash_value[:16])
        return done

    async def _pour(self, image: Image, draft: Draft, stream: AsyncIterator[bytes]) -> Received:
        assert image.disk_format is not None
        intake = Intake(
            image.disk_format if image.container_format in _INSPECTED else None,
            max_size=self._options.image_size_cap,
            max_virtual_size=self._options.virtual_size_cap_gib * 1024**3,
        )
        async for batch in batches(stream):
            # Hashing and writing both let other threads run, so they share the two processors.
            written, looked = await asyncio.gather(
                draft.write(batch), asyncio.to_thread(intake.feed, batch), return_exceptions=True
            )
            for outcome in (looked, written):
                if isinstance(outcome, BaseException):
                    raise outcome
        return intake.finish()

    async def _alive(self, stream: AsyncIterator[bytes], image_id: str, upload_id: str) -> AsyncIterator[bytes]:
        """The stream, with signs of life written while it runs."""
        every = self._options.upload_lease_s / 5
        due = self._clock.monotonic() + every
        async for chunk in stream:
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + every
                if not await self._store.run(images.keep_upload, image_id, upload_id, at=self._clock.now()):
                    raise ImageGone(image_id=image_id)
            yield chunk

    async def _give_up(self, image_id: str, upload_id: str, cause: str) -> None:
        key = key_of(image_id, upload_id)
        try:
            if await self._store.run(images.give_up_upload, image_id, upload_id, at=self._clock.now()):
                log.info("image upload given up", image=image_id, cause=cause)
            # The database may have failed us just after it had taken the key: then the bytes are the image's.
            if key not in await self._store.read(images.known_locations, [key]):
                await self._bytes.delete(key)
        except CloudError as error:
            log.warning("image upload left for the sweep", image=image_id, cause=error.message)

    async def _refusal(self, image_id: str) -> CloudError:
        try:
            found = await self._store.read(images.get, image_id)
        except NotFound as error:
            return error
        return ImageStateConflict(image_id=image_id, action="upload to", status_now=found.status)

    async def sweep(self, *, alone: bool) -> int:
        """Clean up after uploads that died, and forget bytes that are nobody's; how much was found.

        Safe at any time. A process does it when it starts, and by timer.

        Args:
            alone: no other process uploads, so whatever is under way in the database is dead.
        """
        now = self._clock.now()
        silent_since = None if alone else now - self._lease
        dead = await self._store.run(images.give_up_dead_uploads, at=now, silent_since=silent_since)
        for image_id in dead:
            log.warning("image upload had died, the image is queued again", image=image_id)
        orphans = 0
        for portions in (self._bytes.drafts(), self._bytes.keys()):
            async for keys in portions:
                # Asked after the keys were read: what was begun since then is not among them.
                known = await self._store.read(images.known_locations, keys)
                for key in keys:
                    if key not in known:
                        await self._bytes.delete(key)
                        orphans += 1
        before = now - timedelta(days=self._options.keep_deleted_days)
        while await self._store.run(images.prune, before=before):
            pass
        if orphans:
            log.info("bytes of no image removed", files=orphans)
        return len(dead) + orphans


def _finish(tx: Tx, image_id: str, upload_id: str, received: Received, key: str, at: datetime) -> Image | None:
    done = images.finish_upload(tx, image_id, upload_id, received, location=key, at=at)
    if done is not None and done.owner:
        quotas.take(tx, done.owner, {SIZE_QUOTA: size_in_quota(done)})
    return done


class Intake:
    """Counts, hashes and looks at bytes as they come."""

    def __init__(self, disk_format: str | None, *, max_size: int, max_virtual_size: int) -> None:
        """
        Args:
            disk_format: as declared; None: what the bytes are cannot be seen.
        """
        self._inspector = Inspector(disk_format, max_virtual_size=max_virtual_size) if disk_format else None
        self._max_size = max_size
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha = hashlib.new(HASH_ALGO)
        self._size = 0

    def feed(self, data: bytes) -> None:
        """The next bytes. Slow (some milliseconds a mebibyte): call it in a thread.

        Raises:
            BadRequest, ImageTooLarge
        """
        self._size += len(data)
        if self._size > self._max_size:
            raise ImageTooLarge(self._max_size)
        if self._inspector is not None:
            _sound(partial(self._inspector.feed, data))
        self._md5.update(data)
        self._sha.update(data)

    def finish(self) -> Received:
        """What came.

        Raises:
            BadRequest
        """
        virtual_size = None
        if self._inspector is not None:
            virtual_size = _sound(self._inspector.finish).virtual_size
        return Received(
            size=self._size,
            virtual_size=virtual_size,
            checksum=self._md5.hexdigest(),
            hash_algo=HASH_ALGO,
            hash_value=self._sha.hexdigest(),
        )


T = TypeVar("T")


def _sound(look: Callable[[], T]) -> T:
    try:
        return look()
    except UnusableDisk as fault:
        raise BadRequest(f"The image cannot be used. {fault}") from None


async def batches(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of `BATCH` or more, but for the last."""
    waiting: list[bytes] = []
    size = 0
    async for chunk in stream:
        waiting.append(chunk)
        size += len(chunk)
        if size >= BATCH:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)
