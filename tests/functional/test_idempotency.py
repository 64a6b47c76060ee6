"""``Idempotency-Key``: a creation that is asked for again, at once or later, happens once and has one answer."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import httpx
import pytest
from tests.support.running import Client

TIMES = 100


def body_of(kind: str, image_id: str, flavor_id: str, name: str) -> dict[str, Any]:
    server = {"name": name, "imageRef": image_id, "flavorRef": flavor_id, "networks": "none"}
    return {
        "servers": {"server": server},
        "images": {"name": name, "disk_format": "raw", "container_format": "bare"},
        "networks": {"network": {"name": name}},
        "os-keypairs": {"keypair": {"name": name, "type": "ssh"}},
    }[kind]


PATHS = {
    "servers": "/compute/v2.1/servers",
    "images": "/image/v2/images",
    "networks": "/network/v2.0/networks",
    "os-keypairs": "/compute/v2.1/os-keypairs",
}


def headers(admin: Client, key: str, version: str = "2.90") -> dict[str, str]:
    return {"X-Auth-Token": admin.token, "OpenStack-API-Version": f"compute {version}", "Idempotency-Key": key}


@pytest.mark.parametrize("kind", list(PATHS))
def test_a_hundred_at_once_make_one_and_get_one_answer(admin: Client, image_id: str, flavor_id: str, kind: str) -> None:
    name, key = f"once-{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
    # Key pairs are made, not imported, before 2.92: the private half is in the answer, and must be the same one.
    body = body_of(kind, image_id, flavor_id, name)

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=admin.http.base_url, timeout=60, limits=limits) as http:
            return await asyncio.gather(
                *(http.post(PATHS[kind], json=body, headers=headers(admin, key)) for _ in range(TIMES))
            )

    answers = asyncio.run(ask())
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1, Counter(
        (answer.status_code, answer.text[:300]) for answer in answers
    )
    assert answers[0].is_success
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == TIMES - 1
    listed = admin.http.get(PATHS[kind], headers=headers(admin, key)).json()
    members = listed[{"os-keypairs": "keypairs"}.get(kind, kind)]
    names = [one.get("keypair", one)["name"] for one in members]
    assert names.count(name) == 1
    other = body_of(kind, image_id, flavor_id, f"{name}-other")
    refused = admin.http.post(PATHS[kind], json=other, headers=headers(admin, key))
    assert refused.status_code == 409 and "another body" in refused.text


def test_a_key_is_its_users_and_its_resources_own(admin: Client, image_id: str, flavor_id: str) -> None:
    key = str(uuid.uuid4())
    first = admin.http.post(PATHS["networks"], json={"network": {"name": "n"}}, headers=headers(admin, key))
    second = admin.http.post(PATHS["os-keypairs"], json={"keypair": {"name": key}}, headers=headers(admin, key, "2.1"))
    assert (first.status_code, second.status_code) == (201, 200)


def test_a_request_that_failed_may_be_repeated(admin: Client, image_id: str, flavor_id: str) -> None:
    key, name = str(uuid.uuid4()), f"again-{uuid.uuid4().hex[:8]}"
    body = body_of("servers", image_id, "no-such-flavor", name)
    for _ in range(2):
        refused = admin.http.post(PATHS["servers"], json=body, headers=headers(admin, key))
        assert refused.status_code in (400, 404)
    body = body_of("servers", image_id, flavor_id, name)
    assert admin.http.post(PATHS["servers"], json=body, headers=headers(admin, key)).status_code == 202


def test_several_networks_of_one_request_are_made_once(admin: Client) -> None:
    key, names = str(uuid.uuid4()), [f"bulk-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    body = {"networks": [{"name": name} for name in names]}
    answers = [admin.http.post(PATHS["networks"], json=body, headers=headers(admin, key)) for _ in range(2)]
    assert answers[0].status_code == 201 and answers[0].content == answers[1].content
    listed = [one["name"] for one in admin.network("GET", "/networks").json()["networks"]]
    assert [listed.count(name) for name in names] == [1, 1, 1]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_that_is_none_is_refused(admin: Client, key: str) -> None:
    answer = admin.http.post(PATHS["networks"], json={"network": {"name": "n"}}, headers=headers(admin, key))
    assert answer.status_code == 400 and "Idempotency-Key" in answer.text
