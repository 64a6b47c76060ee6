"""Version documents in each service's own form, without a token."""

from collections.abc import AsyncIterator

import pytest
from http_sample import Client, sample_app

BASE = "http://cloud.test:8774"


@pytest.fixture
async def stranger() -> AsyncIterator[Client]:
    async with Client(*sample_app(), headers={}) as client:
        yield client


async def test_compute(stranger: Client) -> None:
    listed = await stranger.get("/compute/")
    [version] = listed.json()["versions"]
    assert listed.status_code == 200
    assert (version["id"], version["status"]) == ("v2.1", "CURRENT")
    assert (version["min_version"], version["version"]) == ("2.1", "2.96")
    assert version["links"] == [{"rel": "self", "href": f"{BASE}/compute/v2.1/"}]
    one = (await stranger.get("/compute/v2.1/")).json()["version"]
    assert {name: one[name] for name in ("id", "version", "min_version")} == {
        "id": "v2.1",
        "version": "2.96",
        "min_version": "2.1",
    }


async def test_compute_tells_its_range_to_whoever_asks_for_a_version_in_it(stranger: Client) -> None:
    answer = await stranger.get("/compute/v2.1/", headers={"OpenStack-API-Version": "compute 2.50"})
    assert answer.headers["openstack-api-version"] == "compute 2.50"


async def test_identity(stranger: Client) -> None:
    listed = await stranger.get("/identity")
    assert listed.status_code == 300
    [version] = listed.json()["versions"]["values"]
    assert version["id"].startswith("v3.") and version["status"] == "stable"
    assert version["links"] == [{"rel": "self", "href": f"{BASE}/identity/v3/"}]
    one = await stranger.get("/identity/v3")
    assert (one.status_code, one.json()) == (200, {"version": version})


async def test_image(stranger: Client) -> None:
    listed = await stranger.get("/image")
    assert listed.status_code == 300
    versions = listed.json()["versions"]
    assert [v["status"] for v in versions][:2] == ["CURRENT", "SUPPORTED"]
    assert {v["links"][0]["href"] for v in versions} == {f"{BASE}/image/v2/"}
    assert (await stranger.get("/image/versions")).status_code == 200


async def test_network(stranger: Client) -> None:
    listed = await stranger.get("/network/")
    assert listed.json() == {
        "versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": f"{BASE}/network/v2.0/"}]}]
    }
    resources = (await stranger.get("/network/v2.0")).json()["resources"]
    assert resources == [
        {
            "name": "network",
            "collection": "networks",
            "links": [{"rel": "self", "href": f"{BASE}/network/v2.0/networks"}],
        }
    ]


async def test_the_front_door_lists_all(stranger: Client) -> None:
    services = (await stranger.get("/")).json()["services"]
    assert {s["name"]: s["root"] for s in services}["compute"] == f"{BASE}/compute/v2.1"
    assert {"compute", "identity", "image", "network"} <= {s["name"] for s in services}


async def test_health(stranger: Client) -> None:
    assert (await stranger.get("/healthz")).json() == {"status": "ok"}
