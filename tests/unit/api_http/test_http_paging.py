"""Pages and the links between them."""

from urllib.parse import parse_qs, urlsplit

import pytest
from http_sample import Client, People

from kilonova.api.http.microversions import UNVERSIONED
from kilonova.api.http.paging import glance_links, neutron_links, next_links, page_size
from kilonova.api.http.request import Request
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest


def request(path: str, *params: tuple[str, str]) -> Request:
    return Request(
        RequestContext(request_id="req-1"), UNVERSIONED, "GET", path, "/x", "http://c:1", {}, list(params), People()
    )


@pytest.mark.parametrize(
    ("limit", "size"), [(None, 1000), ("", None), ("0", 1000), ("1", 1), ("1000", 1000), ("1001", 1000), (7, 7)]
)
def test_the_size_of_a_page_is_bounded(limit: str | int | None, size: int | None) -> None:
    if size is None:
        with pytest.raises(BadRequest):
            page_size(limit)
    else:
        assert page_size(limit) == size


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "1e3", "9" * 100, "٣", -1])
def test_what_is_no_limit(limit: str | int) -> None:
    with pytest.raises(BadRequest, match="query parameters limit"):
        page_size(limit)


def test_a_default_smaller_than_the_most() -> None:
    assert page_size(None, default=25) == page_size("0", default=25) == 25


def test_no_link_after_a_page_that_is_not_full() -> None:
    assert next_links(request("/c/servers"), 3, ["a", "b"]) == []
    assert next_links(request("/c/servers"), 3, []) == []


def test_the_link_keeps_the_query_and_moves_the_marker() -> None:
    asked = request(
        "/c/servers", ("name", "a&b"), ("marker", "old"), ("limit", "2"), ("sort_key", "x"), ("sort_key", "y")
    )
    [link] = next_links(asked, 2, ["a", "b c"])
    parts = urlsplit(link["href"])
    assert (link["rel"], parts.netloc, parts.path) == ("next", "c:1", "/c/servers")
    assert parse_qs(parts.query) == {"name": ["a&b"], "limit": ["2"], "sort_key": ["x", "y"], "marker": ["b c"]}


async def test_pages_follow_each_other(client: Client) -> None:
    answer = await client.get("/compute/v2.1/things?limit=2&deep=true")
    [link] = answer.json()["things_links"]
    assert link["href"] == "http://cloud.test:8774/compute/v2.1/things?limit=2&deep=true&marker=t1"
    assert (await client.get(link["href"])).status_code == 200
    assert client.cloud.seen["query"].marker == "t1"


def test_networks_links_only_when_pages_were_asked_for() -> None:
    assert neutron_links(request("/network/v2.0/ports"), None, ["a"]) == []
    links = neutron_links(request("/network/v2.0/ports", ("limit", "1"), ("marker", "z")), 1, ["a"])
    assert [link["rel"] for link in links] == ["next", "previous"]
    assert parse_qs(urlsplit(links[1]["href"]).query) == {"limit": ["1"], "page_reverse": ["True"], "marker": ["a"]}


def test_images_links_are_paths_below_the_service() -> None:
    asked = request("/image/v2/images", ("limit", "2"), ("marker", "old"))
    assert glance_links(asked, 2, ["a", "b"]) == {
        "first": "/v2/images?limit=2",
        "next": "/v2/images?limit=2&marker=b",
    }
    assert glance_links(request("/image/v2/images"), 20, ["a"]) == {"first": "/v2/images"}
