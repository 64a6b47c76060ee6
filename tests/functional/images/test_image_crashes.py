"""What a kill, a client that leaves, and a file that is lost do to images; and how much memory it takes."""

import asyncio
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.image_api import (
    NOBODY,
    OCTETS,
    ImageApi,
    made,
    rss,
    slowly,
    status_becomes,
)


async def test_kill_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from tests.support.image_api import ImageApi
        async def main():
            api = await ImageApi(Path({str(tmp_path)!r})).start()
            Path({str(tmp_path / "port")!r}).write_text(str(api.server.port))
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=root, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        while not (tmp_path / "port").exists() or not (tmp_path / "port").read_text():
            await asyncio.sleep(0.05)
    base = f"http://127.0.0.1:{(tmp_path / 'port').read_text()}/image/v2"
    gate = asyncio.Event()
    async with httpx.AsyncClient(base_url=base, headers={"X-Auth-Token": "u:p1:member,reader"}) as client:
        kept = await made(client, b"kept")
        image_id = await made(client)
        upload = asyncio.create_task(
            client.put(f"/images/{image_id}/file", content=slowly(bytes(3_000_000), b"", gate=gate), headers=OCTETS)
        )
        await status_becomes(client, image_id, "saving")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        gate.set()
        with pytest.raises(httpx.TransportError):
            await upload
    (tmp_path / "images" / f"{NOBODY}.{NOBODY}").write_bytes(b"published, and killed before it was recorded")
    api = await ImageApi(tmp_path).start()
    async with api.client() as client:
        assert len(api.kept()) == 1
        assert (await client.get(f"/images/{kept}/file")).content == b"kept"
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
        assert (await client.put(f"/images/{image_id}/file", content=b"again", headers=OCTETS)).status_code == 204
        assert (await client.get(f"/images/{image_id}/file")).content == b"again"
    await api.stop()


async def test_memory_does_not_depend_on_the_size(owner: httpx.AsyncClient) -> None:
    size = 200 * 1024**2
    piece = bytes(256 * 1024)
    most = 0
    before = rss()

    async def pour() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(size // len(piece)):
            most = max(most, rss() - before)
            yield piece

    image_id = await made(owner)
    answer = await owner.put(f"/images/{image_id}/file", content=pour(), headers=OCTETS)
    assert answer.status_code == 204
    count = 0
    async with owner.stream("GET", f"/images/{image_id}/file") as stream:
        async for received in stream.aiter_raw():
            count += len(received)
            most = max(most, rss() - before)
    assert count == size
    assert most < 40 * 1024**2, f"{most / 1024**2:.0f} MiB more than before"


async def test_a_client_that_leaves_a_download_leaves_no_file_open(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, bytes(30_000_000))

    def open_files() -> int:
        return sum(str(api.files) in str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir())

    for _ in range(3):
        async with owner.stream("GET", f"/images/{image_id}/file") as stream:
            await anext(stream.aiter_raw(1000))
            assert open_files() == 1
        await owner.head(f"/images/{image_id}/file")
        async with asyncio.timeout(5):
            while open_files():
                await asyncio.sleep(0.01)


async def test_lost_bytes_are_not_found_and_no_bug(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"bytes")
    for path in api.files.iterdir():
        path.unlink()
    assert (await owner.get(f"/images/{image_id}/file")).status_code == 404
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204
