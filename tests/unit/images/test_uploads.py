"""Uploads that end in the wrong moment: whatever fails, the image can be given its bytes, and nothing lies around."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.images.backends.filesystem import FilesystemStore
from kilonova.images.options import ImageOptions
from kilonova.images.uploads import BATCH, Uploads, batches
from kilonova.model.errors import BadRequest, CloudError, Unavailable
from kilonova.model.image import Image, ImageStatus
from kilonova.store.engine import Store
from kilonova.store.queries import images

IMAGE = "11111111-2222-4333-8444-555555555555"


class BrokenStore:
    """The real store, but `broken` names a function whose transaction fails: before it commits, or after."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.broken = ""
        self.commits_first = False
        self.read = store.read

    async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if fn.__name__ != self.broken:
            return await self._store.run(fn, *args, **kwargs)
        if self.commits_first:
            await self._store.run(fn, *args, **kwargs)
        raise Unavailable("The database went away.")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}")
    store.create_all()
    yield store
    await store.close()


@pytest.fixture
def broken(store: Store) -> BrokenStore:
    return BrokenStore(store)


@pytest.fixture
def uploads(broken: BrokenStore, tmp_path: Path) -> Uploads:
    place = FilesystemStore(tmp_path / "images")
    return Uploads(broken, place, SystemClock(), SystemIds(), ImageOptions())  # type: ignore[arg-type]


@pytest.fixture
async def image(store: Store) -> Image:
    now = datetime.now(UTC)
    image = Image(id=IMAGE, owner="p", disk_format="raw", container_format="bare", created_at=now, updated_at=now)
    await store.run(images.insert, image)
    return image


async def data(*pieces: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if then is not None:
        raise then


async def status(store: Store) -> ImageStatus:
    return (await store.read(images.get, IMAGE)).status


def files(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "images").iterdir()]


@pytest.mark.parametrize("error", [BadRequest("gone"), OSError("broken"), KeyError("bug"), asyncio.CancelledError()])
async def test_any_end_of_the_stream_is_cleaned_up(
    uploads: Uploads, store: Store, image: Image, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        await uploads.receive(image, data(bytes(3 * BATCH), then=error))
    assert await status(store) is ImageStatus.QUEUED
    assert files(tmp_path) == []
    done = await uploads.receive(image, data(b"again"))
    assert (done.status, done.size) == (ImageStatus.ACTIVE, 5)


async def test_a_database_that_fails_at_the_end(
    uploads: Uploads, broken: BrokenStore, store: Store, image: Image, tmp_path: Path
) -> None:
    broken.broken = "_finish"
    with pytest.raises(Unavailable):
        await uploads.receive(image, data(b"x"))
    assert await status(store) is ImageStatus.QUEUED
    assert files(tmp_path) == []


async def test_a_database_that_fails_just_after_the_end(
    uploads: Uploads, broken: BrokenStore, store: Store, image: Image, tmp_path: Path
) -> None:
    """The caller is told of a failure, but the image has its bytes: they must not be taken from it."""
    broken.broken, broken.commits_first = "_finish", True
    with pytest.raises(Unavailable):
        await uploads.receive(image, data(b"x"))
    found = await store.read(images.get, IMAGE)
    assert found.status is ImageStatus.ACTIVE
    assert files(tmp_path) == [found.location]


async def test_a_database_that_fails_twice_leaves_it_to_the_sweep(
    uploads: Uploads, broken: BrokenStore, store: Store, image: Image, tmp_path: Path
) -> None:
    broken.broken = "give_up_upload"
    with pytest.raises(BadRequest):
        await uploads.receive(image, data(b"x", then=BadRequest("gone")))
    assert await status(store) is ImageStatus.SAVING
    assert await uploads.sweep(alone=False) == 0, "it might be alive"
    assert await uploads.sweep(alone=True) == 1
    assert await status(store) is ImageStatus.QUEUED


async def test_the_sweep_spares_the_living(uploads: Uploads, store: Store, image: Image, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(2 * BATCH)
        await gate.wait()
        yield b"end"

    running = asyncio.create_task(uploads.receive(image, slow()))
    while await status(store) is not ImageStatus.SAVING or not files(tmp_path):
        await asyncio.sleep(0.01)
    assert await uploads.sweep(alone=False) == 0
    assert len(files(tmp_path)) == 1
    gate.set()
    assert (await running).size == 2 * BATCH + 3
    assert await uploads.sweep(alone=True) == 0
    assert len(files(tmp_path)) == 1


async def test_the_sweep_removes_what_is_nobodys(uploads: Uploads, store: Store, image: Image, tmp_path: Path) -> None:
    done = await uploads.receive(image, data(b"x"))
    for name in ("a.b", "c.d.part", f"{IMAGE}.{IMAGE}", f"{IMAGE}.{IMAGE}.part"):
        (tmp_path / "images" / name).write_bytes(b"left")
    assert await uploads.sweep(alone=False) == 3, "the last two are of one key"
    assert files(tmp_path) == [done.location]


async def test_deleted_images_are_forgotten_after_a_while(uploads: Uploads, store: Store, image: Image) -> None:
    await store.run(images.delete, IMAGE, datetime.now(UTC) - timedelta(days=29))
    await uploads.sweep(alone=True)
    with pytest.raises(CloudError):
        await store.run(images.insert, image)
    await store.run(images.delete, IMAGE, datetime.now(UTC) - timedelta(days=31))
    await uploads.sweep(alone=True)
    await store.run(images.insert, image)


async def test_batches_are_even() -> None:
    pieces = [bytes([n % 256]) * 65536 for n in range(50)] + [b"end"]
    found = [batch async for batch in batches(data(*pieces))]
    assert b"".join(found) == b"".join(pieces)
    assert [len(batch) for batch in found[:-1]] == [BATCH] * 3
    assert [batch async for batch in batches(data())] == []
