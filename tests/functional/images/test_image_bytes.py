"""The bytes of images: how they go in and come out again, by parts too, and by several at once."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.support.image_api import (
    NOBODY,
    OCTETS,
    ImageApi,
    made,
    slowly,
    status_becomes,
)

from kilonova.api.http.app import HttpOptions
from kilonova.images.options import ImageOptions
from kilonova.store.queries import images


async def test_bytes_come_back_as_they_went_in(api: ImageApi, owner: httpx.AsyncClient) -> None:
    data = os.urandom(3_333_333)
    image_id = await made(owner, data)
    image = (await owner.get(f"/images/{image_id}")).json()
    assert image["status"] == "active"
    assert (image["size"], image["virtual_size"]) == (len(data), len(data))
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    answer = await owner.get(f"/images/{image_id}/file")
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-md5"] == image["checksum"]
    assert answer.headers["content-type"] == "application/octet-stream"
    head = await owner.head(f"/images/{image_id}/file")
    assert head.headers["content-length"] == str(len(data)) and head.content == b""


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=90-", 90, 99), ("bytes=-7", 93, 99), ("bytes=95-500", 95, 99), ("bytes=-500", 0, 99)],
)
async def test_a_part_of_the_bytes(owner: httpx.AsyncClient, header: str, first: int, last: int) -> None:
    data = bytes(range(100))
    image_id = await made(owner, data)
    answer = await owner.get(f"/images/{image_id}/file", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == data[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/100"
    assert "content-md5" not in answer.headers


@pytest.mark.parametrize(("header", "status"), [("bytes=100-", 416), ("bytes=-0", 416)])
async def test_a_part_beyond_the_end(owner: httpx.AsyncClient, header: str, status: int) -> None:
    image_id = await made(owner, bytes(100))
    assert (await owner.get(f"/images/{image_id}/file", headers={"Range": header})).status_code == status


@pytest.mark.parametrize(
    "header", ["bytes=5-1", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "x", "bytes=" + "9" * 30 + "-"]
)
async def test_ranges_that_are_none_are_ignored(owner: httpx.AsyncClient, header: str) -> None:
    image_id = await made(owner, bytes(100))
    answer = await owner.get(f"/images/{image_id}/file", headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, 100)


async def test_bytes_are_given_once(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"first")
    answer = await owner.put(f"/images/{image_id}/file", content=b"second", headers=OCTETS)
    assert answer.status_code == 409
    assert (await owner.get(f"/images/{image_id}/file")).content == b"first"
    assert len(api.kept()) == 1


async def test_an_upload_must_be_octets(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    answer = await owner.put(f"/images/{image_id}/file", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


async def test_of_two_uploads_at_once_one_wins(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    gate = asyncio.Event()
    first = asyncio.create_task(
        owner.put(f"/images/{image_id}/file", content=slowly(b"a" * 10, b"b" * 10, gate=gate), headers=OCTETS)
    )
    await status_becomes(owner, image_id, "saving")
    answer = await owner.put(f"/images/{image_id}/file", content=b"second", headers=OCTETS)
    assert answer.status_code == 409 and "saving" in answer.text
    gate.set()
    assert (await first).status_code == 204
    assert (await owner.get(f"/images/{image_id}/file")).content == b"a" * 10 + b"b" * 10


async def test_of_many_uploads_at_the_same_moment_one_wins(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    contents = [bytes([n]) * 100_000 for n in range(8)]
    answers = await asyncio.gather(
        *(owner.put(f"/images/{image_id}/file", content=content, headers=OCTETS) for content in contents)
    )
    codes = [answer.status_code for answer in answers]
    assert sorted(codes) == [204] + [409] * 7
    assert (await owner.get(f"/images/{image_id}/file")).content == contents[codes.index(204)]
    assert len(api.kept()) == 1


async def begin_upload(api: ImageApi, image_id: str, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the beginning of five million bytes. (httpx does not listen before it has sent all.)"""
    stream, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    head = (
        f"PUT /image/v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: u:p1:member,reader\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    return stream, writer


async def test_a_broken_upload_can_be_begun_again(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    _, writer = await begin_upload(api, image_id, b"x" * 2_000_000)
    await status_becomes(owner, image_id, "saving")
    assert any(name.endswith(".part") for name in api.kept())
    writer.close()
    await status_becomes(owner, image_id, "queued")
    async with asyncio.timeout(5):
        while api.kept():
            await asyncio.sleep(0.01)
    assert (await owner.put(f"/images/{image_id}/file", content=b"again", headers=OCTETS)).status_code == 204
    assert (await owner.get(f"/images/{image_id}/file")).content == b"again"


async def test_an_upload_that_falls_silent_is_let_go(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, http=HttpOptions(body_idle_timeout_s=0.3)).start()
    async with api.client() as client:
        image_id = await made(client)
        stream, writer = await begin_upload(api, image_id, b"x" * 2_000_000)
        assert b" 408 " in await asyncio.wait_for(stream.readline(), 10)
        await status_becomes(client, image_id, "queued")
        assert api.kept() == []
        writer.close()
    await api.stop()


async def test_an_image_deleted_under_its_upload(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    gate = asyncio.Event()
    upload = asyncio.create_task(
        owner.put(f"/images/{image_id}/file", content=slowly(b"a" * 10, b"b" * 10, gate=gate), headers=OCTETS)
    )
    await status_becomes(owner, image_id, "saving")
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204
    gate.set()
    assert (await upload).status_code == 410
    assert api.kept() == []
    assert (await owner.get("/info/usage")).json()["usage"]["image_size_total"]["usage"] == 0


async def test_an_upload_that_died_silently_gives_way(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(upload_lease_s=60)).start()
    async with api.client() as client:
        image_id = await made(client)
        long_ago = datetime.now(UTC) - timedelta(seconds=61)
        assert await api.store.run(images.begin_upload, image_id, NOBODY, at=long_ago, silent_since=long_ago)
        assert (await client.put(f"/images/{image_id}/file", content=b"new", headers=OCTETS)).status_code == 204
        assert not await api.store.run(images.keep_upload, image_id, NOBODY, at=long_ago)
        assert not await api.store.run(images.give_up_upload, image_id, NOBODY, at=long_ago)
        assert (await client.get(f"/images/{image_id}/file")).content == b"new"
    await api.stop()


async def test_an_upload_that_lives_keeps_its_image(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(upload_lease_s=0.5)).start()

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(15):
            yield b"drop"
            await asyncio.sleep(0.1)

    async with api.client() as client:
        image_id = await made(client)
        upload = asyncio.create_task(client.put(f"/images/{image_id}/file", content=trickle(), headers=OCTETS))
        await asyncio.sleep(1.0)
        answer = await client.put(f"/images/{image_id}/file", content=b"new", headers=OCTETS)
        assert answer.status_code == 409
        assert await api.images.sweep(alone=False) == 0
        assert (await upload).status_code == 204
        assert (await client.get(f"/images/{image_id}/file")).content == b"drop" * 15
    await api.stop()
