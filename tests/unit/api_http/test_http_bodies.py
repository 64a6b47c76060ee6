"""Bodies: types, sizes, streams in both directions, clients that hang up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_sample import Client, sample_app

THINGS = "/compute/v2.1/things"


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def message(answer: httpx.Response) -> str:
    [inner] = answer.json().values()
    return str(inner["message"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is missing"),
        (b"[]", "an object with the key 'thing'"),
        (b"{}", "'thing' is a required property"),
        (b'{"thing": {"name": "a"}, "x": 1}', "('x' was unexpected)"),
        (b'{"thing": {"name": 5}}', "attribute thing.name: expected `str`"),
        (b'{"thing": null}', "attribute thing: expected `object`"),
        (b'{"thing": {"name": "a", "nope": 1}}', "('nope' was unexpected) in thing"),
        (b'{"thing": {"name": "a"}', "not valid JSON"),
    ],
)
async def test_a_bad_body_is_400_and_names_the_fault(client: Client, content: bytes, words: str) -> None:
    answer = await client.post(THINGS, content=content)
    assert answer.status_code == 400
    assert words in message(answer)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 202),
        ("application/json; charset=utf-8", 202),
        ('Application/JSON;charset="UTF-8"', 202),
        (None, 202),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
async def test_media_types(client: Client, media_type: str | None, status: int) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = await client.post(THINGS, content=b'{"thing": {"name": "a"}}', headers=headers)
    assert answer.status_code == status


async def test_a_route_may_take_other_media_types(client: Client) -> None:
    ops = b'[{"op": "add", "path": "/x", "value": {"any": ["thing"]}}, {"op": "remove", "path": "/y"}]'
    for minor, status in (("1", 200), ("0", 200), ("2", 415)):
        headers = {"Content-Type": f"application/openstack-images-v2.{minor}-json-patch"}
        assert (await client.patch("/image/v2/images/1", content=ops, headers=headers)).status_code == status
    assert (
        await client.patch("/image/v2/images/1", content=ops, headers={"Content-Type": "application/json"})
    ).status_code == 415


async def test_a_body_can_be_optional(client: Client) -> None:
    assert (await client.post("/compute/v2.1/echo")).json() == {"echo": {}}


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_limit_is_413(client: Client, chunked: bool) -> None:
    for size, status in ((998, 200), (999, 413), (500_000, 413)):
        text = b'"' + b"x" * size + b'"'

        async def one(text: bytes = text) -> AsyncIterator[bytes]:
            for start in range(0, len(text), 100):
                yield text[start : start + 100]

        answer = await client.post("/compute/v2.1/echo", content=one() if chunked else text)
        assert answer.status_code == status
        if status == 413:
            assert answer.json()["overLimit"]["message"].startswith("The request body is larger than the 1000 bytes")


async def test_an_endless_body_is_not_read_to_its_end(client: Client) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 1000

    assert (await client.post("/compute/v2.1/echo", content=endless())).status_code == 413
    assert asked < 10


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999", "٣"])
async def test_a_length_that_is_none(client: Client, length: str) -> None:
    headers = [(b"content-length", length.encode())]
    answer = await client.post("/compute/v2.1/echo", content=b"{}", headers=headers)
    assert answer.status_code == 400


# ---- uploads ----------------------------------------------------------------------------------------------


async def test_an_upload_comes_in_pieces(client: Client) -> None:
    answer = await client.put(
        "/image/v2/images/1/file", content=pieces(50, 65536), headers={"Content-Type": "application/octet-stream"}
    )
    assert answer.status_code == 204
    sizes = client.cloud.seen["sizes"]
    assert sum(sizes) == 50 * 65536 and max(sizes) <= 65536


async def test_an_upload_has_a_media_type_and_may_have_a_limit(client: Client) -> None:
    wrong = await client.put("/image/v2/images/1/file", content=b"x", headers={"Content-Type": "application/json"})
    assert wrong.status_code == 415
    for content in (b"x" * 11, pieces(11, 1)):
        assert (await client.put("/image/v2/images/1/small", content=content)).status_code == 413
    assert (await client.put("/image/v2/images/1/small", content=pieces(10, 1))).status_code == 204


class Wire:
    """The server's side of one request, event by event."""

    def __init__(self, method: str, path: str, headers: list[tuple[bytes, bytes]], events: list[Any]) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"x-auth-token", b"m:p:member"), *headers],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 81),
            "state": {},
        }
        self.events = events
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        if self.events:
            return self.events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)


PIECE = {"type": "http.request", "body": b"x" * 1000, "more_body": True}
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("headers", [[(b"content-length", b"5000")], [(b"transfer-encoding", b"chunked")]])
async def test_an_upload_whose_client_hangs_up_is_not_taken_for_complete(headers: list[tuple[bytes, bytes]]) -> None:
    app, cloud = sample_app()
    wire = Wire("PUT", "/image/v2/images/1/file", headers, [PIECE, PIECE, GONE])
    await app(wire.scope, wire.receive, wire.send)
    assert cloud.seen["sizes"] == [1000, 1000]
    assert "complete" not in cloud.seen
    assert wire.sent[0]["status"] == 400


async def test_a_client_that_stops_sending_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from kilonova.api.http.app import HttpOptions

    app, cloud = sample_app(HttpOptions(body_idle_timeout_s=0.05))
    for events in ([], [PIECE]):
        wire = Wire("PUT", "/image/v2/images/1/file", [(b"content-length", b"5000")], list(events))
        await asyncio.wait_for(app(wire.scope, wire.receive, wire.send), 5)
        assert wire.sent[0]["status"] == 408
        assert "complete" not in cloud.seen


async def test_a_body_that_trickles_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from kilonova.api.http import bodies

    monkeypatch.setattr(bodies, "DECODED_BODY_S", 0.1)
    app, _ = sample_app()
    wire = Wire("POST", "/compute/v2.1/echo", [(b"transfer-encoding", b"chunked")], [])

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"1", "more_body": True}

    await asyncio.wait_for(app(wire.scope, receive, wire.send), 5)
    assert wire.sent[0]["status"] == 408


# ---- downloads --------------------------------------------------------------------------------------------


async def test_a_download_is_sent_as_it_comes(client: Client) -> None:
    async with client.stream("GET", "/image/v2/images/3/file") as answer:
        assert answer.headers["content-length"] == str(3 * 65536)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert len(await answer.aread()) == 3 * 65536
    assert client.cloud.seen == {"sent": 3, "closed": True}


async def test_the_head_of_a_download_reads_nothing(client: Client) -> None:
    answer = await client.head("/image/v2/images/3/file")
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(3 * 65536))
    assert "sent" not in client.cloud.seen


async def test_a_download_ends_when_its_client_goes() -> None:
    app, cloud = sample_app()
    wire = Wire("GET", "/image/v2/images/1000000/file", [], [{"type": "http.request", "body": b""}])

    async def send(event: dict[str, Any]) -> None:
        if cloud.seen.get("sent") == 5:
            wire.gone.set()
        await asyncio.sleep(0)

    await asyncio.wait_for(app(wire.scope, wire.receive, send), 5)
    assert cloud.seen["sent"] < 20
    assert cloud.seen["closed"]


async def test_a_download_that_breaks_is_left_incomplete_and_logged(log_lines: list[dict[str, Any]]) -> None:
    app, _ = sample_app()
    wire = Wire("GET", "/image/v2/images/1/broken", [], [{"type": "http.request", "body": b""}])
    await app(wire.scope, wire.receive, wire.send)
    assert [event.get("more_body", False) for event in wire.sent if event["type"] == "http.response.body"] == [True]
    assert [line["event"] for line in log_lines] == ["response broken off", "request"]
