"""Bytes as files: the contract, and what is true of files only."""

import stat
from pathlib import Path

import pytest
from byte_store_contract import KEY, ByteStoreContract, gathered, kept, whole

from kilonova.images.backends.base import ByteStore
from kilonova.images.backends.filesystem import FilesystemStore
from kilonova.model.errors import Unavailable
from kilonova.model.image import StorageFull


@pytest.fixture
def place(tmp_path: Path) -> ByteStore:
    return FilesystemStore(tmp_path / "images")


class TestFilesystemStore(ByteStoreContract):
    pass


async def test_files_are_private(place: ByteStore, tmp_path: Path) -> None:
    await kept(place, KEY, b"x")
    assert stat.S_IMODE((tmp_path / "images" / KEY).stat().st_mode) == 0o600


async def test_what_was_published_is_there_after_a_restart(place: ByteStore, tmp_path: Path) -> None:
    await kept(place, KEY, b"x")
    await place.create("dead")
    again = FilesystemStore(tmp_path / "images")
    assert await whole(await again.read(KEY)) == b"x"
    assert await gathered(again.drafts()) == ["dead"]


async def test_other_files_are_left_alone(place: ByteStore, tmp_path: Path) -> None:
    (tmp_path / "images" / ".hidden").write_text("x")
    (tmp_path / "images" / "with space").write_text("x")
    assert await gathered(place.keys()) == []


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".part", "x.part", "/etc/passwd", "a\0b"])
async def test_a_key_never_leaves_the_directory(place: ByteStore, key: str) -> None:
    for act in (place.create, place.read, place.delete):
        with pytest.raises(ValueError, match="no key"):
            await act(key)


async def test_room_is_kept_for_others(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        await FilesystemStore(tmp_path / "images", keep_free=1 << 60).create(KEY)


async def test_a_directory_that_is_gone_is_said_so(place: ByteStore, tmp_path: Path) -> None:
    (tmp_path / "images").rmdir()
    with pytest.raises(Unavailable):
        await place.create(KEY)
