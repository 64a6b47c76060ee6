"""Negotiation, and what it chooses: routes, fields of bodies, fields of answers."""

import pytest
from http_sample import SERVER, Client

from kilonova.api.http.microversions import Band, Version

NEW, OLD = "openstack-api-version", "x-openstack-nova-api-version"


def test_versions_compare_as_numbers() -> None:
    assert Version.parse("2.9") < Version.parse("2.10") < Version.parse("3.0")
    assert str(Version(2, 19)) == "2.19"


@pytest.mark.parametrize("text", ["2", "2.", ".2", "2.1.1", "2.01", "v2.1", "2.1\n", " 2.1", "2.-1", "٢.١", "2.99999"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="Major"):
        Version.parse(text)


def test_bands_include_both_ends() -> None:
    band = Band.parse("2.2", "2.9")
    assert [Version.parse(v) in band for v in ("2.1", "2.2", "2.9", "2.10")] == [False, True, True, False]


def test_bands_that_only_touch_overlap() -> None:
    assert Band.parse(None, "2.9").overlaps(Band.parse("2.9", None))
    assert not Band.parse(None, "2.9").overlaps(Band.parse("2.10", None))


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({}, "2.1"),
        ({NEW: "compute 2.53"}, "2.53"),
        ({NEW: "COMPUTE 2.53"}, "2.53"),
        ({NEW: "compute latest"}, "2.96"),
        ({NEW: "compute LATEST"}, "2.96"),
        ({NEW: "volume 3.1, compute 2.4"}, "2.4"),
        ({NEW: "volume 3.1"}, "2.1"),
        ({OLD: "2.7"}, "2.7"),
        ({OLD: "latest"}, "2.96"),
        ({NEW: "compute 2.5", OLD: "2.7"}, "2.5"),
        ({NEW: "volume 3.1", OLD: "2.7"}, "2.7"),
    ],
)
async def test_the_version_asked_for_is_said_in_the_answer(
    client: Client, headers: dict[str, str], version: str
) -> None:
    answer = await client.get("/compute/v2.1/things/detail", headers=headers)
    assert answer.status_code == 200
    assert answer.headers[NEW] == f"compute {version}"
    assert answer.headers[OLD] == version
    assert {part.strip().lower() for part in answer.headers["vary"].split(",")} == {NEW, OLD}


@pytest.mark.parametrize("text", ["2.0", "2.97", "1.99", "3.1"])
@pytest.mark.parametrize("header", [NEW, OLD])
async def test_a_version_out_of_range_is_406_and_the_range_is_told(client: Client, text: str, header: str) -> None:
    answer = await client.get(
        "/compute/v2.1/things/detail", headers={header: text if header == OLD else f"compute {text}"}
    )
    assert answer.status_code == 406
    assert answer.json() == {
        "computeFault": {
            "code": 406,
            "message": f"Version {text} is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
        }
    }


@pytest.mark.parametrize("text", ["", "2", "two", "2.1.1", "2.x", "-2.1", "2.1; drop", "99999.1"])
async def test_what_is_no_version_is_400(client: Client, text: str) -> None:
    answer = await client.get("/compute/v2.1/things/detail", headers={NEW: f"compute {text}"})
    assert answer.status_code == 400
    assert "invalid format" in answer.json()["badRequest"]["message"]


async def test_the_version_is_said_on_errors_too(client: Client) -> None:
    answer = await client.get("/compute/v2.1/things/x", headers={NEW: "compute 2.5"})
    assert (answer.status_code, answer.headers[NEW]) == (404, "compute 2.5")


async def test_other_apis_do_not_negotiate(client: Client) -> None:
    answer = await client.get("/network/v2.0/networks", headers={NEW: "compute 2.5", OLD: "nonsense"})
    assert answer.status_code == 200
    assert NEW not in answer.headers


async def test_routes_of_two_bands_share_a_path(client: Client) -> None:
    for version, form in (("2.1", "old"), ("2.9", "old"), ("2.10", "new"), ("latest", "new")):
        answer = await client.get("/compute/v2.1/changed", headers={OLD: version})
        assert answer.json() == {"form": form}


async def test_a_route_that_is_not_in_the_version_is_not_found(client: Client) -> None:
    assert (await client.get("/compute/v2.1/added", headers={OLD: "2.49"})).status_code == 404
    assert (await client.get("/compute/v2.1/added", headers={OLD: "2.50"})).status_code == 200


async def test_fields_of_answers_have_bands(client: Client) -> None:
    for version, fields in (("2.9", {"id", "old"}), ("2.10", {"id", "new"})):
        answer = await client.get(f"/compute/v2.1/things/{SERVER}", headers={OLD: version})
        assert set(answer.json()["thing"]) == fields
