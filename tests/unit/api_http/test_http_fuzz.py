"""Whatever a client sends, it is never a 500, never a hang, and the answer has the API's form."""

import json
import string
from typing import Any
from urllib.parse import quote

import pytest
from http_sample import SERVER, Client, sample_app
from hypothesis import given, settings
from hypothesis import strategies as st

ROUTES = [
    "/compute/v2.1/things",
    f"/compute/v2.1/things/{SERVER}",
    "/compute/v2.1/strict",
    "/compute/v2.1/changed",
    "/compute/v2.1/echo",
    "/compute/v2.1/extensions",
    "/image/v2/images/1",
    "/image/v2/images/1/small",
    "/identity/v3/maybe",
    "/network/v2.0/networks",
    "/latest/meta-data/x",
    "/compute",
    "/image",
    "/",
]
APP, _ = sample_app()
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"]

text = st.text(max_size=30)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from([SERVER, "a", "\0", "\ud800"])
)
trees = st.recursive(scalars, lambda t: st.lists(t, max_size=4) | st.dictionaries(text, t, max_size=4), max_leaves=12)
names = st.sampled_from(["name", "size", "networks", "nics", "os:notes", "tags", "files", "uuid", "tag"])
things = st.dictionaries(
    names | text,
    trees | st.lists(st.dictionaries(names, scalars, max_size=3), max_size=3) | st.dictionaries(text, scalars),
    max_size=6,
)
bodies = (
    st.binary(max_size=200)
    | trees.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"thing": things}).map(lambda value: json.dumps(value).encode())
    | st.integers(1, 3000).map(lambda depth: b"[" * depth)
    | st.integers(990, 5000).map(lambda size: b'"' + b"x" * size + b'"')
)
printable = st.text(string.printable.strip() + " \xe9", max_size=40).map(lambda value: value.encode("latin-1"))
headers = st.dictionaries(
    st.sampled_from(
        [
            b"content-type",
            b"content-length",
            b"transfer-encoding",
            b"openstack-api-version",
            b"x-openstack-nova-api-version",
            b"x-openstack-request-id",
            b"x-auth-token",
            b"host",
            b"accept",
            b"expect",
            b"cookie",
            b"x-forwarded-for",
            b"range",
            b"x-random",
        ]
    ),
    printable
    | st.sampled_from([b"application/json", b"compute 2.52", b"compute latest", b"2.96", b"m:p:member", b"chunked"]),
    max_size=5,
)
parameters = st.sampled_from(["limit", "marker", "deep", "count", "sort_key", "newer", "name"])
queries = st.binary(max_size=60) | st.lists(st.tuples(parameters | text, text), max_size=5).map(
    lambda pairs: "&".join(f"{quote(n, errors='replace')}={quote(v, errors='replace')}" for n, v in pairs).encode()
)
paths = (
    st.sampled_from(ROUTES)
    | st.tuples(st.sampled_from(ROUTES), text).map(lambda pair: f"{pair[0]}/{pair[1]}")
    | text.map(lambda path: f"/{path}")
)
NASTY = [b"\xff\xfe", b"{}", b"[" * 5000, b'{"thing": {"name": "\\ud800"}}', b'{"a": 1, "a": 2}', b"9" * 5000]


async def ask(method: str, path: str, query: bytes, sent: dict[bytes, bytes], body: bytes, pieces: int) -> list[Any]:
    sent = {b"host": b"c", b"x-auth-token": b"m:p:member", **sent}
    if body and b"transfer-encoding" not in sent:
        sent.setdefault(b"content-length", str(len(body)).encode())
    size = max(len(body) // pieces, 1)
    events = [
        {"type": "http.request", "body": body[at : at + size], "more_body": at + size < len(body)}
        for at in range(0, len(body), size)
    ] or [{"type": "http.request", "body": b"", "more_body": False}]
    answer: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        answer.append(event)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        # As the server decodes it: what is no UTF-8 is replaced.
        "path": path.encode("utf-8", "replace").decode(),
        "raw_path": b"/",
        "query_string": query,
        "root_path": "",
        "headers": list(sent.items()),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 81),
        "state": {},
    }
    await APP(scope, receive, send)
    return answer


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(METHODS), paths, queries, headers, bodies, st.integers(1, 5))
async def test_no_request_is_a_500(
    method: str, path: str, query: bytes, sent: dict[bytes, bytes], body: bytes, pieces: int
) -> None:
    answer = await ask(method, path, query, sent, body, pieces)
    start, *rest = answer
    assert start["status"] in {200, 202, 204, 300, 400, 401, 403, 404, 405, 406, 408, 409, 413, 415}, answer
    response = dict(start["headers"])
    assert response[b"x-openstack-request-id"].startswith(b"req-")
    content = b"".join(event.get("body", b"") for event in rest)
    if content and response[b"content-type"] == b"application/json":
        json.loads(content)


@settings(max_examples=200, deadline=None)
@given(things, st.sampled_from(["2.1", "2.32", "2.52", "2.60", "2.96"]))
async def test_a_thing_is_made_or_refused_by_the_name_of_a_field(thing: dict[str, Any], version: str) -> None:
    body = json.dumps({"thing": thing}).encode()
    sent = {b"content-type": b"application/json", b"x-openstack-nova-api-version": version.encode()}
    start, rest = await ask("POST", "/compute/v2.1/things", b"", sent, body, 1)
    assert start["status"] in (202, 400)
    if start["status"] == 400:
        said = json.loads(rest["body"])["badRequest"]["message"]
        assert said.startswith(("Invalid input for", "Additional properties", "Malformed request body"))


@pytest.mark.parametrize("path", ROUTES)
async def test_the_same_through_a_real_client(path: str) -> None:
    async with Client(*sample_app()) as client:
        for content in (
            b"\xff\xfe",
            b"{}",
            b"[" * 5000,
            b'{"thing": {"name": "\\ud800"}}',
            b'{"a": 1, "a": 2}',
            b"9" * 5000,
        ):
            for method in ("POST", "PUT", "PATCH"):
                assert (await client.request(method, path, content=content)).status_code < 500
