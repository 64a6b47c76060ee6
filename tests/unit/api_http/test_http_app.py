"""Paths, methods, who asks, ids, the log, and the forms of errors, as a client sees them."""

import re
from typing import Any

import orjson
import pytest
from http_sample import SERVER, Client, HttpOptions, ManualClock, compute_api, sample_app

from kilonova.api.http.app import make_app
from kilonova.api.http.errors import NOVA_ERRORS
from kilonova.api.http.routing import Api, Reply

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# ---- paths and methods ------------------------------------------------------------------------------------


async def test_literal_segments_win_over_variables(client: Client) -> None:
    assert (await client.get("/compute/v2.1/things/detail")).json() == {"detail": True}


async def test_a_trailing_slash_is_the_same_path(client: Client) -> None:
    assert (await client.get("/compute/v2.1/things/detail/")).status_code == 200
    assert (await client.get("/compute/v2.1/")).json() == (await client.get("/compute/v2.1")).json()


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/compute/v2.1/nope",
        "/compute/v2",
        "/compute/v2.1x",
        "/compute//v2.1",
        "/compute/v2.1/things//",
        "/compute/v2.1/things/a/b",
        "/image/v3",
        "/%00",
        "/compute/v2.1/things/%00",
        "/..%2f..%2fetc/passwd",
    ],
)
async def test_other_paths_are_not_found(client: Client, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_a_bad_uuid_or_number_in_a_path_is_not_found(client: Client) -> None:
    for path, said in (("things/xyz", "Thing xyz"), (f"things/{SERVER.upper()}", "Thing"), ("numbers/x", "Number x")):
        answer = await client.get(f"/compute/v2.1/{path}")
        assert answer.status_code == 404
        assert answer.json()["itemNotFound"]["message"].startswith(said)
    assert (await client.get("/compute/v2.1/numbers/12")).json() == {"number": 12}


async def test_a_wrong_method_is_405_and_says_which_are_right(client: Client) -> None:
    answer = await client.put(f"/compute/v2.1/things/{SERVER}", json={})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert answer.json()["badMethod"]["code"] == 405


async def test_an_invented_method_is_refused(client: Client) -> None:
    assert (await client.request("FROBNICATE", "/compute/v2.1/things")).status_code in (400, 405)


async def test_head_is_get_without_the_body(client: Client) -> None:
    got, head = await client.get("/compute/v2.1/things"), await client.head("/compute/v2.1/things")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_options_says_the_methods(client: Client) -> None:
    answer = await client.options(f"/compute/v2.1/things/{SERVER}")
    assert answer.status_code == 200
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "DELETE"}


async def test_the_rest_of_a_path_can_be_one_variable(client: Client) -> None:
    answer = await client.get("/latest/meta-data/public-keys/0/openssh-key")
    assert answer.text == "public-keys/0/openssh-key\n"
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_path_is_decoded_once(client: Client) -> None:
    assert (await client.get("/latest/meta-data/a%2520b")).text == "a%20b\n"


async def test_no_reply_names_the_server_software_or_lets_other_origins_in(client: Client) -> None:
    answer = await client.get("/compute/v2.1/things", headers={"Origin": "https://evil.example"})
    assert "server" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- routes are checked when they are declared ------------------------------------------------------------


def test_a_handler_that_asks_for_what_the_path_has_not_is_refused() -> None:
    api = Api("x", root="/x", errors=NOVA_ERRORS)

    async def handler(cloud: Any, thing_id: str) -> Reply:
        return Reply()

    with pytest.raises(TypeError, match="thing_id"):
        api.route("GET", "/things")(handler)
    with pytest.raises(TypeError, match="other"):
        api.route("GET", "/things/{thing_id}/{other}")(handler)


def test_two_routes_for_one_version_are_refused() -> None:
    api = compute_api()

    async def handler(number: str) -> Reply:
        return Reply()

    async def changed() -> Reply:
        return Reply()

    with pytest.raises(TypeError, match="declared twice"):
        api.route("GET", "/things/{number}", since="2.50")(handler)
    with pytest.raises(TypeError, match="declared twice"):
        api.route("GET", "/changed", since="2.9", until="2.9")(changed)


# ---- who asks, and may they -------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": ""}, {"X-Auth-Token": "nonsense"}])
async def test_without_a_token_that_is_known_it_is_401_in_the_form_of_the_identity_service(
    headers: dict[str, str],
) -> None:
    async with Client(*sample_app(), headers=headers) as client:
        for path in ("/compute/v2.1/things", "/image/v2/images/1/file", "/network/v2.0/networks", "/identity/v3/fail"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Keystone uri="http://cloud.test:8774/identity"'
            assert (answer.json()["error"]["code"], answer.json()["error"]["title"]) == (401, "Unauthorized")


async def test_public_routes_ask_nobody(client: Client) -> None:
    async with Client(*sample_app(), headers={}) as stranger:
        assert (await stranger.get("/identity/v3/maybe")).json() == {"who": "nobody", "from": "198.51.100.7"}
    assert (await client.get("/identity/v3/maybe")).json()["who"] == "m"


async def test_a_rule_that_refuses_is_403_before_the_body_is_looked_at() -> None:
    async with Client(*sample_app(), headers={"X-Auth-Token": "m:p:reader"}) as client:
        for content in (b"{ nonsense", b'{"thing": {}}', b"x" * 2_000_000):
            answer = await client.post("/compute/v2.1/things", content=content)
            assert answer.status_code == 403
            assert "create" in answer.json()["forbidden"]["message"]


async def test_a_rule_that_nobody_declared_refuses(client: Client, log_lines: list[dict[str, Any]]) -> None:
    for _ in range(2):
        assert (await client.get("/compute/v2.1/mistyped")).status_code == 403
    assert [line["rule"] for line in log_lines if line["event"] == "unknown policy rule"] == ["no:such:rule"]


# ---- replies ----------------------------------------------------------------------------------------------


async def test_created_things_say_where_they_are(client: Client) -> None:
    answer = await client.post("/compute/v2.1/things", json={"thing": {"name": "a"}})
    assert (answer.status_code, answer.json()) == (202, {"thing": {"name": "a"}})
    assert answer.headers["location"] == "http://cloud.test:8774/compute/v2.1/things/a%20b%2Fc"
    assert client.cloud.seen["body"].name == "a"


async def test_an_empty_reply_has_no_body(client: Client) -> None:
    answer = await client.delete("/compute/v2.1/things/x")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("host", ["evil.example/path", 'a"b', "a b", "x" * 300, "", "[::1", "a:b:c"])
async def test_a_host_header_that_is_no_host_gets_into_no_link(client: Client, host: str) -> None:
    answer = await client.get("/compute/", headers={"Host": host})
    assert answer.json()["versions"][0]["links"][0]["href"] == "http://cloud.test:8774/compute/v2.1/"


async def test_links_follow_the_host_header_or_the_configured_url(client: Client) -> None:
    answer = await client.get("/compute/", headers={"Host": "[2001:db8::1]:80"})
    assert answer.json()["versions"][0]["links"][0]["href"] == "http://[2001:db8::1]:80/compute/v2.1/"
    async with Client(*sample_app(HttpOptions(public_url="https://cloud.example/"))) as configured:
        answer = await configured.get("/compute/")
        assert answer.json()["versions"][0]["links"][0]["href"] == "https://cloud.example/compute/v2.1/"


# ---- ids and the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/compute/v2.1/things", "/compute/v2.1/nope", "/compute/v2.1/fail/bug", "/nope", "/"])
async def test_every_response_has_its_requests_id(client: Client, path: str) -> None:
    first, second = await client.get(path), await client.get(path)
    assert REQUEST_ID.fullmatch(first.headers["x-openstack-request-id"])
    assert first.headers["x-openstack-request-id"] != second.headers["x-openstack-request-id"]
    if path.startswith("/compute"):
        assert first.headers["x-compute-request-id"] == first.headers["x-openstack-request-id"]
    else:
        assert "x-compute-request-id" not in first.headers


async def test_one_line_a_request_with_who_what_and_how_long(log_lines: list[dict[str, Any]]) -> None:
    clock = ManualClock()
    async with Client(*sample_app(clock=clock)) as client:
        answer = await client.get("/compute/v2.1/things?marker=top+secret")
    [line] = log_lines
    assert line == {
        "service": "api",
        "module": "api.http.app",
        "request_id": answer.headers["x-openstack-request-id"],
        "event": "request",
        "level": "info",
        "method": "GET",
        "path": "/compute/v2.1/things",
        "status": 200,
        "ms": 0.0,
        "user": "m",
        "project": "p",
    }


@pytest.mark.parametrize(
    "path", ["/nope", "/compute/v2.1/things/", "/compute/v2.1/fail/conflict", "/image/v2/images/1/file"]
)
async def test_exactly_one_line_whatever_comes_of_it(
    client: Client, log_lines: list[dict[str, Any]], path: str
) -> None:
    answer = await client.get(path)
    assert [(line["event"], line["status"]) for line in log_lines] == [("request", answer.status_code)]


async def test_no_token_and_no_body_reaches_the_log(client: Client, log_lines: list[dict[str, Any]]) -> None:
    token = "m:p:s3cret-role"
    for path in ("/compute/v2.1/things", "/compute/v2.1/fail/bug", "/compute/v2.1/echo"):
        await client.post(path, headers={"X-Auth-Token": token}, json={"thing": {"name": "pa55word"}})
        await client.get(path, headers={"X-Auth-Token": token})
    text = orjson.dumps(log_lines, default=repr).decode()
    assert "s3cret" not in text and "pa55word" not in text


async def test_a_callers_own_id_is_logged_if_it_has_the_form_of_one(
    client: Client, log_lines: list[dict[str, Any]]
) -> None:
    given = "req-11111111-2222-3333-4444-555555555555"
    await client.get("/", headers={"X-OpenStack-Request-ID": given})
    await client.get("/", headers={"X-OpenStack-Request-ID": "req-x\tinjected"})
    assert [line.get("global_request_id") for line in log_lines] == [given, None]
    assert log_lines[0]["request_id"] != given


# ---- forms of errors --------------------------------------------------------------------------------------


async def test_a_bug_is_500_with_the_id_and_nothing_of_the_inside(
    client: Client, log_lines: list[dict[str, Any]]
) -> None:
    answer = await client.get("/compute/v2.1/fail/bug")
    assert answer.status_code == 500
    message = answer.json()["computeFault"]["message"]
    assert answer.headers["x-openstack-request-id"] in message
    assert "secret" not in message and "RuntimeError" not in message
    traces = [line for line in log_lines if line.get("exc_info")]
    assert [(line["event"], line["level"]) for line in traces] == [("request failed", "error")]


async def test_an_error_between_services_is_500_and_traced(client: Client, log_lines: list[dict[str, Any]]) -> None:
    assert (await client.get("/compute/v2.1/fail/service")).status_code == 500
    assert len([line for line in log_lines if line.get("exc_info")]) == 1


@pytest.mark.parametrize(
    ("how", "status", "name", "retry_after"),
    [
        ("quota", 403, "forbidden", None),
        ("rate", 429, "overLimit", "7"),
        ("busy", 503, "serviceUnavailable", "5"),
        ("conflict", 409, "conflictingRequest", None),
    ],
)
async def test_computes_form(client: Client, how: str, status: int, name: str, retry_after: str | None) -> None:
    answer = await client.get(f"/compute/v2.1/fail/{how}")
    assert answer.status_code == answer.json()[name]["code"] == status
    assert answer.headers.get("retry-after") == retry_after


async def test_the_remedy_follows_the_message(client: Client) -> None:
    answer = await client.get("/compute/v2.1/fail/quota")
    assert answer.json()["forbidden"]["message"] == (
        "Quota exceeded for cores: Requested 4, but already used 19 of 20 cores "
        "Delete something of this kind, ask for less, or have an administrator raise the quota."
    )


async def test_a_message_that_is_no_text_is_shown_all_the_same(client: Client) -> None:
    assert (await client.get("/compute/v2.1/fail/text")).json()["conflictingRequest"]["message"] == "half ? pair"


async def test_identitys_form(client: Client) -> None:
    answer = await client.get("/identity/v3/fail")
    assert answer.json() == {"error": {"code": 409, "message": "It is <in> the way.", "title": "Conflict"}}


async def test_networks_form(client: Client) -> None:
    missing = await client.get("/network/v2.0/extensions/nope")
    assert missing.json() == {
        "NeutronError": {"type": "ExtensionNotFound", "message": "Extension nope could not be found.", "detail": ""}
    }
    full = await client.post("/network/v2.0/networks")
    assert (full.status_code, full.json()["NeutronError"]["type"]) == (409, "OverQuota")


async def test_images_form_is_a_page_with_the_message_in_it(client: Client) -> None:
    answer = await client.get("/image/v2/<b>nope</b>")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    assert "<h1>404 Not Found</h1>" in answer.text
    assert "&lt;b&gt;nope" in answer.text and "<b>" not in answer.text


async def test_the_metadata_services_form_is_a_line(client: Client) -> None:
    answer = await client.get("/latest/nope")
    assert (answer.status_code, answer.text) == (404, "The resource /latest/nope could not be found.\n")


# ---- extensions -------------------------------------------------------------------------------------------


async def test_extensions_are_listed(client: Client) -> None:
    for root, alias in (("/compute/v2.1", "os-things"), ("/network/v2.0", "quotas")):
        listed = (await client.get(f"{root}/extensions")).json()["extensions"]
        assert [extension["alias"] for extension in listed] == [alias]
        assert (await client.get(f"{root}/extensions/{alias}")).json()["extension"] == listed[0]


def test_an_app_can_be_made_twice_of_the_same_apis() -> None:
    _, cloud = sample_app()
    api = compute_api()
    make_app([api], cloud)
    make_app([api], cloud)
