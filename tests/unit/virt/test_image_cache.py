"""A host's copies of images, against a real HTTP server that does what a test tells it to."""

# ruff: noqa: ASYNC230, ASYNC240 - small files, and nobody else waits

import asyncio
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from kilonova.base.clock import SystemClock
from kilonova.model.errors import ImageUnusable, InsufficientResources, Unavailable
from kilonova.model.guest import ImageRef
from kilonova.virt.driver import ImageSource
from kilonova.virt.image_cache import BATCH, ImageCache, ImageCacheOptions

IMAGE = "11111111-2222-4333-8444-555555555555"
DATA = os.urandom(3 * BATCH + 77)


class Time(SystemClock):
    """The machine's clock, a few hours on if told so; sleeping takes no time."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Source:
    """Serves `data` at any path; `script` says how to answer the next requests, in order."""

    data: bytes = DATA
    script: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            self.requests.append({k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)})
            how = self.script.pop(0) if self.script else "whole"
            await getattr(self, f"_{how}" if not how.isdigit() else "_status")(writer, how)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent += len(data)
        writer.write(data)
        await writer.drain()

    async def _whole(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.data))
        await self._send(writer, self.data)

    async def _unlengthened(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        await self._send(writer, self.data)

    async def _half(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.data))
        await self._send(writer, self.data[: len(self.data) // 2])

    async def _cut(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        await self._send(writer, self.data[: len(self.data) // 2])

    async def _stuck(self, writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.data))
        await self._send(writer, self.data[:BATCH])
        await self.gate.wait()
        await self._send(writer, self.data[BATCH:])

    async def _status(self, writer: asyncio.StreamWriter, status: str) -> None:
        writer.write(f"HTTP/1.1 {status} Told\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    def image(self, **changes: object) -> ImageRef:
        values = {
            "id": IMAGE,
            "disk_format": "raw",
            "size": len(self.data),
            "hash_value": hashlib.sha512(self.data).hexdigest(),
            "url": f"http://127.0.0.1:{self.port}/image/v2/images/{IMAGE}/file",
            "ticket": "the ticket",
        }
        return ImageRef(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    server = await asyncio.start_server(source.serve, "127.0.0.1", 0)
    source.port = server.sockets[0].getsockname()[1]
    yield source
    source.gate.set()
    server.close()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def cache(tmp_path: Path, time: Time) -> AsyncIterator[ImageCache]:
    cache = new_cache(tmp_path, time)
    yield cache
    await cache.close()


def new_cache(tmp_path: Path, time: Time, **options: float) -> ImageCache:
    return ImageCache(tmp_path / "cache", httpx.AsyncClient, time, ImageCacheOptions(**options))  # type: ignore[arg-type]


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


# ---- fetching ---------------------------------------------------------------------------------------


async def test_an_image_is_fetched_whole_and_readable_by_the_hypervisor(
    cache: ImageCache, source: Source, tmp_path: Path
) -> None:
    umask = os.umask(0o077)
    try:
        path = Path(await cache.path_of(source.image()))
    finally:
        os.umask(umask)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert source.requests[0]["x-kilonova-ticket"] == "the ticket"
    assert left(tmp_path) == [path.name]


async def test_the_second_boot_moves_no_bytes(cache: ImageCache, source: Source) -> None:
    first = await cache.path_of(source.image())
    moved = cache.bytes_fetched
    assert moved == len(DATA) == source.sent
    assert await cache.path_of(source.image()) == first
    assert cache.bytes_fetched == moved
    assert (len(source.requests), cache.fetches, cache.hits) == (1, 1, 1)


async def test_many_at_once_share_one_fetch(cache: ImageCache, source: Source) -> None:
    paths = await asyncio.gather(*(cache.path_of(source.image()) for _ in range(50)))
    assert len(set(paths)) == 1
    assert cache.bytes_fetched == len(DATA) == source.sent


async def test_a_caller_that_goes_away_leaves_the_fetch_to_the_others(cache: ImageCache, source: Source) -> None:
    source.script = ["stuck"]
    first = asyncio.create_task(cache.path_of(source.image()))
    second = asyncio.create_task(cache.path_of(source.image()))
    while not cache.bytes_fetched:
        await asyncio.sleep(0.01)
    first.cancel()
    source.gate.set()
    assert Path(await second).read_bytes() == DATA
    assert first.cancelled() and len(source.requests) == 1


async def test_at_most_so_many_images_are_fetched_at_once(tmp_path: Path, source: Source, time: Time) -> None:
    cache = new_cache(tmp_path, time, concurrent_fetches=1)
    source.script = ["stuck"]
    tasks = [asyncio.create_task(cache.path_of(source.image(id=f"{n}{IMAGE[1:]}"))) for n in range(3)]
    while not source.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(source.requests) == 1
    source.gate.set()
    await asyncio.gather(*tasks)
    assert len(source.requests) == 3
    await cache.close()


async def test_without_a_length_the_bytes_themselves_decide(cache: ImageCache, source: Source) -> None:
    source.script = ["unlengthened"]
    assert Path(await cache.path_of(source.image())).read_bytes() == DATA


def test_it_is_the_source_of_images_that_drivers_are_handed(tmp_path: Path) -> None:
    found: ImageSource = ImageCache(tmp_path, httpx.AsyncClient, SystemClock())
    assert found


# ---- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["404", "410", "204", "400", "302"])
async def test_some_refusals_are_final(cache: ImageCache, source: Source, tmp_path: Path, status: str) -> None:
    source.script = [status]
    with pytest.raises(ImageUnusable):
        await cache.path_of(source.image())
    assert len(source.requests) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", ["500", "503", "429", "403", "401", "half", "cut"])
async def test_others_are_tried_again(cache: ImageCache, source: Source, status: str, time: Time) -> None:
    source.script = [status, status]
    assert Path(await cache.path_of(source.image())).read_bytes() == DATA
    assert len(source.requests) == 3
    assert time.slept == [1.0, 2.0]


@pytest.mark.parametrize("status", ["500", "half", "cut"])
async def test_but_not_for_ever(cache: ImageCache, source: Source, tmp_path: Path, status: str) -> None:
    source.script = [status] * 9
    with pytest.raises(Unavailable):
        await cache.path_of(source.image())
    assert len(source.requests) == 3
    assert left(tmp_path) == []
    source.script.clear()
    assert Path(await cache.path_of(source.image())).read_bytes() == DATA


async def test_nobody_listening_is_passing(cache: ImageCache, source: Source) -> None:
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await cache.path_of(source.image(url="http://127.0.0.1:9/"))


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "http://[", "nonsense"])
async def test_an_address_that_is_none_is_no_crash(cache: ImageCache, source: Source, url: str) -> None:
    with pytest.raises((Unavailable, ImageUnusable)):
        await cache.path_of(source.image(url=url))


async def test_silence_ends_an_attempt(tmp_path: Path, source: Source, time: Time) -> None:
    cache = new_cache(tmp_path, time, silence_s=0.2, attempts=2)
    source.script = ["stuck"]
    assert Path(await cache.path_of(source.image())).read_bytes() == DATA
    assert len(source.requests) == 2
    await cache.close()


async def test_other_bytes_than_recorded_are_final(cache: ImageCache, source: Source, tmp_path: Path) -> None:
    image = source.image()
    source.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(ImageUnusable, match="another sha512"):
        await cache.path_of(image)
    assert left(tmp_path) == [] and len(source.requests) == 1


@pytest.mark.parametrize("how", ["whole", "unlengthened"])
async def test_more_bytes_than_declared_are_not_even_read(
    cache: ImageCache, source: Source, tmp_path: Path, how: str
) -> None:
    source.script = [how]
    with pytest.raises(ImageUnusable):
        await cache.path_of(source.image(size=BATCH))
    assert left(tmp_path) == []
    assert cache.bytes_fetched <= 2 * BATCH


async def test_an_image_larger_than_the_room_goes_elsewhere(cache: ImageCache, source: Source) -> None:
    with pytest.raises(InsufficientResources, match="no room"):
        await cache.path_of(source.image(size=1 << 60))
    assert source.requests == []


@pytest.mark.parametrize(
    "changes",
    [{"id": "../../etc/passwd"}, {"id": ""}, {"hash_value": "../x"}, {"hash_value": "ab"}, {"hash_algo": "crc32"}],
)
async def test_a_reference_cannot_name_other_files(
    cache: ImageCache, source: Source, changes: dict[str, object]
) -> None:
    with pytest.raises(ImageUnusable):
        await cache.path_of(source.image(**changes))
    assert source.requests == []


def qcow2(path: Path, *options: str) -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "8M"], check=True, cwd=path.parent)
    return path.read_bytes()


async def test_headers_are_looked_at_here_too(cache: ImageCache, source: Source, tmp_path: Path) -> None:
    source.data = qcow2(tmp_path / "plain")
    assert await cache.path_of(source.image(disk_format="qcow2"))
    with pytest.raises(ImageUnusable, match="header of qcow2"):
        await new_cache(tmp_path / "other", Time()).path_of(source.image())
    (tmp_path / "base").write_bytes(bytes(8 * BATCH))
    source.data = qcow2(tmp_path / "overlay", "-b", "base", "-F", "raw")
    with pytest.raises(ImageUnusable, match="backing file"):
        await cache.path_of(source.image(disk_format="qcow2"))
    source.data = b""
    with pytest.raises(ImageUnusable):
        await cache.path_of(source.image(disk_format="qcow2"))


# ---- what is found on disk --------------------------------------------------------------------------


async def test_after_a_restart_a_copy_is_proved_and_not_fetched(
    cache: ImageCache, source: Source, tmp_path: Path, time: Time
) -> None:
    path = await cache.path_of(source.image())
    again = new_cache(tmp_path, time)
    assert await again.path_of(source.image()) == path
    assert again.bytes_fetched == 0


async def test_a_damaged_copy_is_fetched_again(cache: ImageCache, source: Source, tmp_path: Path, time: Time) -> None:
    path = Path(await cache.path_of(source.image()))
    inode = path.stat().st_ino
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(12345)
        file.write(b"damage")
    os.utime(path, ns=(stamp, stamp))
    again = new_cache(tmp_path, time)
    assert await again.path_of(source.image()) == str(path)
    assert path.read_bytes() == DATA
    assert path.stat().st_ino != inode, "a guest that has the damaged file open must not see it change"
    assert again.bytes_fetched == len(DATA)


async def test_a_copy_that_changes_under_our_hands_is_noticed(cache: ImageCache, source: Source) -> None:
    path = Path(await cache.path_of(source.image()))
    with path.open("r+b") as file:
        file.write(b"damage")
    await cache.path_of(source.image())
    assert path.read_bytes() == DATA
    path.write_bytes(DATA[:-5])
    await cache.path_of(source.image())
    assert path.read_bytes() == DATA
    path.unlink()
    await cache.path_of(source.image())
    assert path.read_bytes() == DATA


async def test_the_same_id_with_other_bytes_is_another_copy(cache: ImageCache, source: Source) -> None:
    first = await cache.path_of(source.image())
    source.data = b"new" * 1000
    second = await cache.path_of(source.image())
    assert first != second
    assert Path(first).read_bytes() == DATA


async def test_unused_copies_leave_after_a_while(cache: ImageCache, source: Source, time: Time) -> None:
    path = await cache.path_of(source.image())
    other_id = f"9{IMAGE[1:]}"
    other = await cache.path_of(source.image(id=other_id))
    assert await cache.prune(set()) == []
    time.ahead = timedelta(hours=23)
    await cache.path_of(source.image(id=other_id))
    time.ahead = timedelta(hours=25)
    assert await cache.prune({IMAGE}) == []
    assert await cache.prune({path}) == []
    assert await cache.prune(set()) == [path]
    assert not Path(path).exists() and Path(other).exists()
    assert await cache.prune({other_id}, unused_for_s=0) == []
    assert await cache.prune(set(), unused_for_s=0) == [other]
    assert Path(await cache.path_of(source.image())).read_bytes() == DATA


async def test_an_image_on_its_way_is_not_pruned(cache: ImageCache, source: Source) -> None:
    source.script = ["stuck"]
    fetch = asyncio.create_task(cache.path_of(source.image()))
    while not cache.bytes_fetched:
        await asyncio.sleep(0.01)
    assert await cache.prune(set(), unused_for_s=-100) == []
    source.gate.set()
    assert Path(await fetch).exists()


async def test_closing_breaks_off_and_leaves_nothing(cache: ImageCache, source: Source, tmp_path: Path) -> None:
    source.script = ["stuck"]
    fetch = asyncio.create_task(cache.path_of(source.image()))
    while not cache.bytes_fetched:
        await asyncio.sleep(0.01)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert left(tmp_path) == []


async def test_a_directory_that_cannot_be_made_is_passing(tmp_path: Path, source: Source, time: Time) -> None:
    (tmp_path / "cache").write_text("in the way")
    cache = new_cache(tmp_path, time)
    with pytest.raises(Unavailable):
        await cache.path_of(source.image())
    (tmp_path / "cache").unlink()
    assert await cache.path_of(source.image())
    await cache.close()


async def test_kill_in_the_middle_of_a_fetch(source: Source, tmp_path: Path, time: Time) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, httpx, msgspec, sys
        from pathlib import Path
        from kilonova.base.clock import SystemClock
        from kilonova.model.guest import ImageRef
        from kilonova.virt.image_cache import ImageCache
        cache = ImageCache(Path({str(tmp_path / "cache")!r}), lambda: httpx.AsyncClient(trust_env=False), SystemClock())
        asyncio.run(cache.path_of(msgspec.json.decode(sys.argv[1], type=ImageRef)))
        """
    )
    source.script = ["stuck"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, msgspec.json.encode(source.image()).decode()
    )
    while not source.sent:
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert any(name.endswith(".part") for name in left(tmp_path))
    cache = new_cache(tmp_path, time)
    path = Path(await cache.path_of(source.image()))
    assert path.read_bytes() == DATA
    assert left(tmp_path) == [path.name]
    await cache.close()
