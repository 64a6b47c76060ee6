"""A fresh disk for a server: the same server, in the same place, with the same addresses."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.support.running import Client, RunningCloud

from kilonova.store.engine import Store
from kilonova.store.queries import allocations


@pytest.fixture(scope="module")
def other_image(admin: Client) -> str:
    return admin.upload_image("other", b"\1" * 65536)


@pytest.fixture
def server(admin: Client, image_id: str, flavor_id: str) -> Iterator[dict[str, Any]]:
    server_id = admin.boot("old", image_id, flavor_id, metadata={"colour": "blue"})
    yield admin.wait(server_id, "ACTIVE")
    admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    admin.wait_gone(server_id)


def rebuild(admin: Client, server: dict[str, Any], image: str, **wanted: Any) -> httpx.Response:
    body = {"rebuild": {"imageRef": image, **wanted}}
    return admin.compute("POST", f"/servers/{server['id']}/action", json=body)


def settled(admin: Client, server: dict[str, Any], *, within_s: float = 30) -> dict[str, Any]:
    """The server when nothing is done to it any more."""
    end = time.monotonic() + within_s
    while (view := admin.server(server["id"]))["OS-EXT-STS:task_state"] is not None:
        assert time.monotonic() < end, view
        time.sleep(0.05)
    return view


def test_the_server_stays_and_its_disk_is_new(
    admin: Client, cloud: RunningCloud, server: dict[str, Any], other_image: str
) -> None:
    user_data = base64.b64encode(b"#!/bin/sh").decode()
    answer = rebuild(
        admin, server, other_image, name="new", metadata={"shape": "round"}, user_data=user_data, description="again"
    )
    assert answer.status_code == 202
    told = answer.json()["server"]
    assert told["id"] == server["id"] and told["image"]["id"] == other_image and told["adminPass"]
    assert told["status"] == "REBUILD" and told["user_data"] == user_data
    after = settled(admin, server)
    assert after["status"] == "ACTIVE" and after["image"]["id"] == other_image
    assert (after["name"], after["metadata"]) == ("new", {"shape": "round"})
    for same in ("id", "addresses", "hostId", "OS-EXT-SRV-ATTR:host", "created"):
        assert after[same] == server[same], same
    assert after["OS-SRV-USG:launched_at"] > server["OS-SRV-USG:launched_at"]
    actions = admin.compute("GET", f"/servers/{server['id']}/os-instance-actions").json()["instanceActions"]
    assert [action["action"] for action in actions] == ["rebuild", "create"]
    assert actions[0]["message"] is None
    console = admin.compute("POST", f"/servers/{server['id']}/action", json={"os-getConsoleOutput": {}}).json()
    assert "Boot 1" in console["output"] and "Boot 2" not in console["output"], "the first boot of another guest"
    store = Store.open(f"sqlite:///{cloud.state / 'kilonova.sqlite'}", inline=True)
    assert store.run_now(allocations.drift) == []


def test_what_is_not_said_stays(admin: Client, server: dict[str, Any], image_id: str) -> None:
    assert rebuild(admin, server, image_id).status_code == 202
    after = settled(admin, server)
    assert (after["name"], after["metadata"], after["image"]["id"]) == ("old", {"colour": "blue"}, image_id)


def test_a_stopped_server_is_off_afterwards(admin: Client, server: dict[str, Any], other_image: str) -> None:
    admin.compute("POST", f"/servers/{server['id']}/action", json={"os-stop": None}).raise_for_status()
    admin.wait(server["id"], "SHUTOFF")
    assert rebuild(admin, server, other_image).json()["server"]["status"] == "REBUILD"
    after = settled(admin, server)
    assert (after["status"], after["OS-EXT-STS:power_state"], after["image"]["id"]) == ("SHUTOFF", 4, other_image)
    admin.compute("POST", f"/servers/{server['id']}/action", json={"os-start": None}).raise_for_status()
    admin.wait(server["id"], "ACTIVE")


def test_a_key_is_given_and_taken(admin: Client, server: dict[str, Any], image_id: str) -> None:
    older = {"OpenStack-API-Version": "compute 2.91"}  # later ones make no pairs
    answer = admin.compute("POST", "/os-keypairs", json={"keypair": {"name": "mine"}}, headers=older)
    made = answer.json()["keypair"]
    assert rebuild(admin, server, image_id, key_name="mine").json()["server"]["key_name"] == made["name"]
    settled(admin, server)
    assert rebuild(admin, server, image_id, key_name=None).json()["server"]["key_name"] is None
    settled(admin, server)
    admin.compute("DELETE", "/os-keypairs/mine").raise_for_status()


@pytest.mark.parametrize(
    ("wanted", "status", "word"),
    [
        ({"imageRef": ""}, 400, "imageRef"),
        ({"imageRef": "no-such-thing"}, 400, "imageRef"),
        ({"imageRef": "3f0c8a1e-0000-4000-8000-000000000000"}, 400, "could not be found"),
        ({"imageRef": 7}, 400, "imageRef"),
        ({"nmae": "x"}, 400, "nmae"),
        ({"name": ""}, 400, "name"),
        ({"user_data": "%%%"}, 400, "base64"),
        ({"accessIPv4": "::1"}, 400, "accessIPv4"),
        ({"key_name": "nobody's"}, 400, "key_name"),
        ({"preserve_ephemeral": True}, 400, "preserve_ephemeral"),
        ({"metadata": {f"k{n}": "v" for n in range(200)}}, 403, "metadata"),
        ({"OS-DCF:diskConfig": "SOMETIMES"}, 400, "diskConfig"),
    ],
)
def test_bad_requests_change_nothing(
    admin: Client, server: dict[str, Any], image_id: str, wanted: dict[str, Any], status: int, word: str
) -> None:
    answer = rebuild(admin, server, **{"image": image_id, **wanted}) if "imageRef" not in wanted else None
    if answer is None:
        body = {"rebuild": wanted}
        answer = admin.compute("POST", f"/servers/{server['id']}/action", json=body)
    assert answer.status_code == status, answer.text
    assert word in answer.text
    after = admin.server(server["id"])
    assert (after["status"], after["OS-EXT-STS:task_state"], after["name"]) == ("ACTIVE", None, "old")


def test_a_field_newer_than_the_request_is_unknown(admin: Client, server: dict[str, Any], image_id: str) -> None:
    body = {"rebuild": {"imageRef": image_id, "key_name": None}}
    path = f"/servers/{server['id']}/action"
    refused = admin.compute("POST", path, json=body, headers={"OpenStack-API-Version": "compute 2.53"})
    assert refused.status_code == 400 and "key_name" in refused.text


def test_an_image_that_wants_cpus_of_its_own_is_another_place(
    admin: Client, server: dict[str, Any], image_id: str
) -> None:
    pinned = admin.upload_image("pinned", b"\2" * 65536, hw_cpu_policy="dedicated")
    answer = rebuild(admin, server, pinned)
    assert answer.status_code == 400 and "make a new server" in answer.text
    assert admin.server(server["id"])["image"]["id"] == image_id


def test_a_second_rebuild_waits_for_the_first(admin: Client, server: dict[str, Any], image_id: str) -> None:
    answers = [rebuild(admin, server, image_id) for _ in range(5)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 202 and set(codes) <= {202, 409}
    assert settled(admin, server)["status"] == "ACTIVE"


def test_a_delete_takes_over_from_a_rebuild(admin: Client, image_id: str, flavor_id: str) -> None:
    server_id = admin.boot("brief", image_id, flavor_id)
    view = admin.wait(server_id, "ACTIVE")
    assert rebuild(admin, view, image_id).status_code == 202
    assert admin.compute("DELETE", f"/servers/{server_id}").status_code == 204
    admin.wait_gone(server_id)
