"""The server on a real socket, against clients that are rude."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from http_sample import SampleCloud, SystemTime, sample_app

from kilonova.api.http.server import HttpServer, ListenError, ServerOptions

Say = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def served() -> AsyncIterator[tuple[HttpServer, SampleCloud]]:
    app, cloud = sample_app(clock=SystemTime())
    options = ServerOptions(head_timeout_s=0.3, max_head_bytes=8192, keep_alive_s=1)
    server = HttpServer(app, "127.0.0.1", 0, options)
    await server.start()
    yield server, cloud
    await server.stop(1)


async def say(server: HttpServer, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send `parts` on one connection and return all that comes back until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(pause_s)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 10)
        return b""
    finally:
        writer.close()


async def test_it_answers(served: tuple[HttpServer, SampleCloud]) -> None:
    server, _ = served
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/compute/")
        assert answer.json()["versions"][0]["links"][0]["href"] == f"{server.url}/compute/v2.1/"
        assert "server" not in answer.headers and "date" in answer.headers
        assert (await client.get("/healthz")).status_code == 200


HELLO = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


async def test_several_requests_on_one_connection(served: tuple[HttpServer, SampleCloud]) -> None:
    answer = await say(served[0], HELLO + b"\r\n", HELLO + b"Connection: close\r\n\r\n", pause_s=0.05)
    assert answer.count(b"200 OK") == 2


async def test_pipelined_requests_are_answered_in_order(served: tuple[HttpServer, SampleCloud]) -> None:
    first = b"GET /latest/meta-data/%d HTTP/1.1\r\nHost: x\r\n"
    answer = await say(served[0], first % 1 + b"\r\n" + first % 2 + b"Connection: close\r\n\r\n")
    assert answer.index(b"\r\n\r\n1\n") < answer.index(b"\r\n\r\n2\n")


@pytest.mark.parametrize(
    "head",
    [
        [HELLO + b"X: " + b"a" * 9000 + b"\r\n\r\n"],
        [HELLO + b"X: " + b"a" * 5000, b"a" * 5000],
        [HELLO] + [b"X-%d: 1\r\n" % n for n in range(129)] + [b"\r\n"],
        [b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
    ],
)
async def test_an_oversized_head_is_431(served: tuple[HttpServer, SampleCloud], head: list[bytes]) -> None:
    assert (await say(served[0], *head)).startswith(b"HTTP/1.1 431 ")


async def test_a_large_body_is_no_large_head(served: tuple[HttpServer, SampleCloud]) -> None:
    body = b'"' + b"x" * 900 + b'"'
    request = b"POST /compute/v2.1/echo HTTP/1.1\r\nHost: x\r\nX-Auth-Token: m:p:member\r\nContent-Length: %d\r\n"
    together = b"".join((request % len(body) + b"\r\n" + body) for _ in range(20))
    answer = await say(served[0], together + HELLO + b"Connection: close\r\n\r\n")
    assert answer.count(b"200 OK") == 21


@pytest.mark.parametrize("begin", [b"", b"GET / HT", HELLO, HELLO + b"X: y"])
async def test_a_head_that_does_not_come_is_408(served: tuple[HttpServer, SampleCloud], begin: bytes) -> None:
    assert (await say(served[0], begin)).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_trickles_is_408_as_soon(served: tuple[HttpServer, SampleCloud]) -> None:
    began = asyncio.get_running_loop().time()
    assert (await say(served[0], b"G", b"E", b"T", b" ", pause_s=0.07)).startswith(b"HTTP/1.1 408 ")
    assert asyncio.get_running_loop().time() - began < 0.5  # not 0.3 after the last byte


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /compute/v2.1/echo HTTP/1.1\r\nHost: x\r\nX-Auth-Token: m:p:member\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_no_500(served: tuple[HttpServer, SampleCloud], request_bytes: bytes) -> None:
    answer = await say(served[0], request_bytes)
    assert answer == b"" or answer.split(b" ")[1] in {b"400", b"401", b"404", b"405", b"408", b"505"}, answer
    assert b"500" not in answer.split(b"\r\n")[0]
    assert (await say(served[0], HELLO + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_client_that_hangs_up_in_an_upload(served: tuple[HttpServer, SampleCloud]) -> None:
    server, cloud = served
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"PUT /image/v2/images/1/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: m:p:member\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert sum(cloud.seen["sizes"]) == 1000
    assert "complete" not in cloud.seen


async def test_a_client_that_hangs_up_in_a_download(served: tuple[HttpServer, SampleCloud]) -> None:
    server, cloud = served
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /image/v2/images/1000000/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: m:p:member\r\n\r\n")
    await reader.readexactly(100_000)
    writer.transport.abort()
    for _ in range(100):
        if cloud.seen.get("closed"):
            break
        await asyncio.sleep(0.02)
    assert cloud.seen["closed"]
    assert cloud.seen["sent"] < 1000


async def test_a_download_that_breaks_closes_the_connection(served: tuple[HttpServer, SampleCloud]) -> None:
    request = b"GET /image/v2/images/1/broken HTTP/1.1\r\nHost: x\r\nX-Auth-Token: m:p:member\r\n\r\n"
    answer = await say(served[0], request)
    assert answer.endswith(b"first")


async def test_an_address_that_is_taken_is_said_so(served: tuple[HttpServer, SampleCloud]) -> None:
    with pytest.raises(ListenError, match="Address already in use"):
        await HttpServer(None, "127.0.0.1", served[0].port).start()
    with pytest.raises(ListenError, match=r"no address to listen on|Cannot listen"):
        await HttpServer(None, "203.0.113.1", 0).start()


async def test_stopping_lets_requests_end() -> None:
    from kilonova.api.http.app import make_app
    from kilonova.api.http.errors import NOVA_ERRORS
    from kilonova.api.http.routing import Api, Reply

    begun, go_on = asyncio.Event(), asyncio.Event()
    api = Api("slow", root="/slow", errors=NOVA_ERRORS)

    @api.route("GET", "/thing", public=True)
    async def slow() -> Reply:
        begun.set()
        await go_on.wait()
        return Reply("done")

    _, cloud = sample_app(clock=SystemTime())
    server = HttpServer(make_app([api], cloud), "127.0.0.1", 0)
    await server.start()
    asking = asyncio.create_task(say(server, b"GET /slow/thing HTTP/1.1\r\nHost: x\r\n\r\n"))
    await begun.wait()
    stopping = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0.1)
    go_on.set()
    assert (await asking).endswith(b"done")
    await asyncio.wait_for(stopping, 5)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


async def test_context_of_one_request_does_not_leak_into_the_next(
    served: tuple[HttpServer, SampleCloud], log_lines: list[dict[str, Any]]
) -> None:
    given = b"X-OpenStack-Request-ID: req-11111111-2222-3333-4444-555555555555\r\n"
    await say(served[0], HELLO + given + b"\r\n", HELLO + b"Connection: close\r\n\r\n", pause_s=0.05)
    requests = [line for line in log_lines if line["event"] == "request"]
    assert ["global_request_id" in line for line in requests] == [True, False]
    assert requests[0]["request_id"] != requests[1]["request_id"]
