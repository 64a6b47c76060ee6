"""What is not taken: bytes that are not what they are said to be, too many, or more than there is room for."""

# ruff: noqa: ASYNC221 - small files, and nobody else waits

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.image_api import OCTETS, ImageApi, disk, made, slowly, status_becomes

from kilonova.images.options import ImageOptions
from kilonova.store.queries import quotas


async def test_formats_are_declared_and_not_guessed(api: ImageApi, owner: httpx.AsyncClient, tmp_path: Path) -> None:
    plain = disk(tmp_path / "plain", "qcow2")
    (tmp_path / "base").write_bytes(bytes(8 * 1024**2))
    cases = [
        ("raw", plain, "qcow2"),
        ("qcow2", b"\0" * 200_000, "no header of qcow2"),
        ("qcow2", b"", "no header of qcow2"),
        ("qcow2", disk(tmp_path / "overlay", "qcow2", "-b", "base", "-F", "raw"), "backing file"),
        ("qcow2", disk(tmp_path / "split", "qcow2", "-o", "data_file=other"), "another file"),
        ("raw", disk(tmp_path / "vmdk", "vmdk"), "vmdk"),
        ("raw", disk(tmp_path / "vhd", "vpc"), "vhd"),
    ]
    for declared, data, word in cases:
        image_id = await made(owner, disk_format=declared)
        answer = await owner.put(f"/images/{image_id}/file", content=data, headers=OCTETS)
        assert answer.status_code == 400 and word in answer.text, (declared, word, answer.text)
        assert (await owner.get(f"/images/{image_id}")).json()["status"] == "queued"
    assert api.kept() == []
    image_id = await made(owner, plain, disk_format="qcow2")
    image = (await owner.get(f"/images/{image_id}")).json()
    assert (image["size"], image["virtual_size"]) == (len(plain), 8 * 1024**2)
    image_id = await made(owner, plain, container_format="ova", disk_format="vmdk")
    assert (await owner.get(f"/images/{image_id}")).json()["virtual_size"] is None


async def test_a_wrong_header_ends_the_upload_early(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, disk_format="qcow2")
    kept: list[list[str]] = []

    async def long() -> AsyncIterator[bytes]:
        for number in range(800):
            if number > 600:
                kept.append(api.kept())
            yield bytes(65536)

    answer = await owner.put(f"/images/{image_id}/file", content=long(), headers=OCTETS)
    assert answer.status_code == 400
    assert kept and not any(kept), "nothing was written any more, though the client went on sending"


async def test_too_large_is_too_large(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(image_size_cap=1000, virtual_size_cap_gib=1)).start()
    async with api.client() as client:
        image_id = await made(client)
        announced = await client.put(f"/images/{image_id}/file", content=bytes(1001), headers=OCTETS)
        assert announced.status_code == 413 and "1000" in announced.text
        unannounced = await client.put(
            f"/images/{image_id}/file", content=slowly(bytes(600), bytes(600)), headers=OCTETS
        )
        assert unannounced.status_code == 413
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
        assert (await client.put(f"/images/{image_id}/file", content=bytes(1000), headers=OCTETS)).status_code == 204
    await api.stop()


async def test_a_small_file_cannot_unfold_to_a_huge_disk(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(virtual_size_cap_gib=100)).start()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "huge"), "101G"], check=True)
    async with api.client() as client:
        image_id = await made(client, disk_format="qcow2")
        data = (tmp_path / "huge").read_bytes()
        answer = await client.put(f"/images/{image_id}/file", content=data, headers=OCTETS)
        assert answer.status_code == 400 and str(100 * 1024**3) in answer.text
    await api.stop()


async def test_the_announced_size_must_be_right(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    path = f"/images/{image_id}/file"
    said = {**OCTETS, "X-OpenStack-Image-Size": "7"}
    assert (await owner.put(path, content=slowly(b"12345"), headers=said)).status_code == 400
    assert (await owner.put(path, content=b"12345", headers=said)).status_code == 400
    assert (await owner.put(path, content=b"", headers={**OCTETS, "X-OpenStack-Image-Size": "x"})).status_code == 400
    assert (await owner.put(path, content=slowly(b"1234567"), headers=said)).status_code == 204


async def test_an_image_of_nothing_is_an_image(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"")
    image = (await owner.get(f"/images/{image_id}")).json()
    assert (image["status"], image["size"]) == ("active", 0)
    answer = await owner.get(f"/images/{image_id}/file")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 8 MiB on it."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("keep_free_mib", [0, 1])
async def test_a_full_disk_is_said_so_and_left_clean(small_disk: Path, keep_free_mib: int) -> None:
    api = await ImageApi(small_disk, ImageOptions(keep_free_mib=keep_free_mib)).start()
    async with api.client() as client:
        image_id = await made(client)
        answer = await client.put(f"/images/{image_id}/file", content=bytes(9 * 1024**2), headers=OCTETS)
        assert answer.status_code == 413 and "full" in answer.text
        await status_becomes(client, image_id, "queued")
        assert api.kept() == []
        assert (await client.put(f"/images/{image_id}/file", content=bytes(1024), headers=OCTETS)).status_code == 204
    await api.stop()


async def test_room_is_kept_for_others(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(keep_free_mib=1 << 40)).start()
    async with api.client() as client:
        image_id = await made(client)
        answer = await client.put(f"/images/{image_id}/file", content=b"x", headers=OCTETS)
        assert answer.status_code == 413
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
    await api.stop()


async def test_quotas_of_count_and_size(api: ImageApi, owner: httpx.AsyncClient) -> None:
    await api.store.run(quotas.set_limits, "p1", {"image_count_total": 2, "image_size_total": 3})
    first = await made(owner, bytes(2 * 1024**2 + 1))
    second = await made(owner)
    answer = await owner.post("/images", json={})
    assert answer.status_code == 413 and "image_count_total" in answer.text
    answer = await owner.put(f"/images/{second}/file", content=b"x", headers=OCTETS)
    assert answer.status_code == 413 and "image_size_total" in answer.text
    assert (await owner.get(f"/images/{second}")).json()["status"] == "queued"
    assert len(api.kept()) == 1
    await owner.delete(f"/images/{first}")
    assert (await owner.put(f"/images/{second}/file", content=b"x", headers=OCTETS)).status_code == 204
    usage = (await owner.get("/info/usage")).json()["usage"]
    assert usage["image_size_total"] == {"usage": 1, "limit": 3}
