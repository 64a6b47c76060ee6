"""What every place for the bytes of images does. A place's test module supplies `place` and a way to open it again."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from kilonova.images.backends.base import ByteStore
from kilonova.model.errors import NotFound, Unavailable

KEY = "11111111-2222-4333-8444-555555555555.66666666-7777-4888-9999-aaaaaaaaaaaa"


async def kept(place: ByteStore, key: str, data: bytes) -> None:
    """Publish `data` under `key`."""
    draft = await place.create(key)
    await draft.write(data)
    await draft.publish()


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def gathered(portions: AsyncIterator[list[str]]) -> list[str]:
    return [key async for portion in portions for key in portion]


class ByteStoreContract:
    """Inherit it, and define the fixture `place`."""

    async def test_bytes_come_back(self, place: ByteStore) -> None:
        data = os.urandom(2_500_000)
        draft = await place.create(KEY)
        for at in range(0, len(data), 700_000):
            await draft.write(data[at : at + 700_000])
        await draft.publish()
        assert await whole(await place.read(KEY)) == data
        assert await gathered(place.keys()) == [KEY]
        assert await gathered(place.drafts()) == []

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [(0, 3, b"012"), (7, None, b"789"), (4, 2, b"45"), (8, 100, b"89"), (10, None, b""), (0, 0, b"")],
    )
    async def test_parts(self, place: ByteStore, start: int, length: int | None, expected: bytes) -> None:
        await kept(place, KEY, b"0123456789")
        assert await whole(await place.read(KEY, start=start, length=length)) == expected

    async def test_nothing_is_something(self, place: ByteStore) -> None:
        await kept(place, KEY, b"")
        assert await whole(await place.read(KEY)) == b""

    async def test_a_draft_is_not_seen(self, place: ByteStore) -> None:
        draft = await place.create(KEY)
        await draft.write(b"x")
        with pytest.raises(NotFound):
            await place.read(KEY)
        assert await gathered(place.keys()) == []
        assert await gathered(place.drafts()) == [KEY]
        await draft.discard()

    async def test_a_discarded_draft_leaves_nothing(self, place: ByteStore) -> None:
        draft = await place.create(KEY)
        await draft.write(b"x")
        await draft.discard()
        await draft.discard()
        for late in (draft.write(b"y"), draft.publish()):
            with pytest.raises(Unavailable):
                await late
        assert await gathered(place.drafts()) == await gathered(place.keys()) == []

    async def test_discarding_what_is_published_does_nothing(self, place: ByteStore) -> None:
        draft = await place.create(KEY)
        await draft.write(b"x")
        await draft.publish()
        await draft.discard()
        assert await whole(await place.read(KEY)) == b"x"

    async def test_what_is_deleted_is_gone(self, place: ByteStore) -> None:
        await kept(place, KEY, b"x")
        await place.delete(KEY)
        await place.delete(KEY)
        with pytest.raises(NotFound):
            await place.read(KEY)

    async def test_a_dead_draft_can_be_deleted(self, place: ByteStore) -> None:
        draft = await place.create(KEY)
        await draft.write(b"x")
        await place.delete(KEY)
        assert await gathered(place.drafts()) == []
        await draft.discard()

    async def test_a_reader_may_read_on(self, place: ByteStore) -> None:
        data = os.urandom(4_000_000)
        await kept(place, KEY, data)
        pieces = await place.read(KEY)
        first = await anext(pieces)
        await place.delete(KEY)
        assert first + await whole(pieces) == data

    async def test_many_keys(self, place: ByteStore) -> None:
        keys = [f"key-{n:04d}" for n in range(1203)]
        for key in keys:
            await kept(place, key, key.encode())
        assert sorted(await gathered(place.keys())) == keys

    async def test_a_write_that_is_left_behind_hurts_nobody(self, place: ByteStore) -> None:
        """A cancelled upload discards its draft while a thread still writes to it."""
        for number in range(30):
            draft = await place.create(f"left-{number}")
            writing = asyncio.create_task(draft.write(bytes(8_000_000)))
            await asyncio.sleep(0.0005 * (number % 4))
            writing.cancel()
            await draft.discard()
            await kept(place, f"next-{number}", b"untouched")
            assert await whole(await place.read(f"next-{number}")) == b"untouched"
        assert await gathered(place.drafts()) == []
