"""The Image API over a real socket, with real rules, database and files."""

# ruff: noqa: ASYNC221, ASYNC240 - small files, and nobody else waits

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.image_api import OCTETS, PATCH, ImageApi, made, rss

from kilonova.api.http.app import HttpOptions
from kilonova.images.options import ImageOptions
from kilonova.images.references import ImageReferences
from kilonova.model.errors import ImageUnusable, NotFound
from kilonova.store.queries import images, quotas
from kilonova.virt.image_cache import ImageCache

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ImageApi]:
    api = await ImageApi(tmp_path).start()
    yield api
    await api.stop()


@pytest.fixture
async def owner(api: ImageApi) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client("p1") as client:
        yield client


@pytest.fixture
async def other(api: ImageApi) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client("p2") as client:
        yield client


@pytest.fixture
async def admin(api: ImageApi) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client("adm", "admin,member,reader") as client:
        yield client


@pytest.fixture
async def reader(api: ImageApi) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client("p1", "reader") as client:
        yield client


async def names(client: httpx.AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/images?sort=name:asc&{query}")
    assert answer.status_code == 200, answer.text
    return [image["name"] for image in answer.json()["images"]]


async def patch(client: httpx.AsyncClient, image_id: str, *operations: dict[str, Any]) -> httpx.Response:
    return await client.patch(f"/images/{image_id}", json=list(operations), headers=PATCH)


def replace(name: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": f"/{name}", "value": value}


# ---- create, show, delete ---------------------------------------------------------------------------


async def test_a_new_image_is_queued_and_looks_as_clients_expect(owner: httpx.AsyncClient) -> None:
    answer = await owner.post(
        "/images",
        json={
            "name": "debian",
            "disk_format": "qcow2",
            "container_format": "bare",
            "min_disk": 2,
            "min_ram": 512,
            "protected": False,
            "os_hidden": False,
            "tags": ["b", "a", "a"],
            "hw_disk_bus": "virtio",
            "os_distro": "debian",
        },
    )
    assert answer.status_code == 201
    image = answer.json()
    assert answer.headers["location"].endswith(f"/image/v2/images/{image['id']}")
    created = image.pop("created_at")
    assert datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").year >= 2024
    image_id = image.pop("id")
    assert image == {
        "name": "debian",
        "status": "queued",
        "visibility": "shared",
        "owner": "p1",
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": 2,
        "min_ram": 512,
        "protected": False,
        "os_hidden": False,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "tags": ["a", "b"],
        "hw_disk_bus": "virtio",
        "os_distro": "debian",
        "updated_at": created,
        "self": f"/v2/images/{image_id}",
        "file": f"/v2/images/{image_id}/file",
        "schema": "/v2/schemas/image",
    }
    assert (await owner.get(f"/images/{image_id}")).json()["name"] == "debian"
    assert (await owner.get(f"/images/{image_id}/file")).status_code == 204


async def test_an_empty_body_makes_an_image_without_anything(owner: httpx.AsyncClient) -> None:
    image = (await owner.post("/images", json={})).json()
    assert (image["name"], image["disk_format"], image["status"]) == (None, None, "queued")
    answer = await owner.put(f"/images/{image['id']}/file", content=b"x", headers=OCTETS)
    assert answer.status_code == 400 and "disk_format" in answer.text


async def test_an_id_can_be_chosen_once(owner: httpx.AsyncClient) -> None:
    assert await made(owner, id=NOBODY) == NOBODY
    answer = await owner.post("/images", json={"id": NOBODY})
    assert answer.status_code == 409
    assert (await owner.delete(f"/images/{NOBODY}")).status_code == 204
    assert (await owner.post("/images", json={"id": NOBODY})).status_code == 409, "ids of deleted images stay taken"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"name": 5}, 400, "name"),
        ({"name": "x" * 256}, 400, "name"),
        ({"id": "not-a-uuid"}, 400, "id"),
        ({"id": NOBODY.replace("0", "A")}, 400, "id"),
        ({"visibility": "secret"}, 400, "visibility"),
        ({"disk_format": "zip"}, 400, "disk_format"),
        ({"disk_format": ["raw"]}, 400, "disk_format"),
        ({"container_format": "box"}, 400, "container_format"),
        ({"min_disk": -1}, 400, "min_disk"),
        ({"min_disk": "1"}, 400, "min_disk"),
        ({"min_ram": 2**40}, 400, "min_ram"),
        ({"min_ram": True}, 400, "min_ram"),
        ({"protected": "yes"}, 400, "protected"),
        ({"os_hidden": 1}, 400, "os_hidden"),
        ({"tags": "one"}, 400, "tags"),
        ({"tags": ["x" * 256]}, 400, "tags"),
        ({"tags": [""]}, 400, "tag"),
        ({"tags": [str(n) for n in range(129)]}, 413, "tags"),
        ({"owner": ""}, 400, "owner"),
        ({"color": 5}, 400, "color"),
        ({"color": None}, 400, "color"),
        ({"color": {"a": "b"}}, 400, "color"),
        ({"color": "x" * 65536}, 400, "color"),
        ({"": "x"}, 400, "property"),
        ({"x" * 256: "x"}, 400, "property"),
        ({"a\nb": "x"}, 400, "property"),
        ({str(n): "x" for n in range(129)}, 413, "properties"),
        ({"status": "active"}, 403, "read-only"),
        ({"checksum": "x"}, 403, "read-only"),
        ({"created_at": "x"}, 403, "read-only"),
        ({"location": "x"}, 403, "reserved"),
        ({"locations": []}, 403, "read-only"),
        ({"os_glance_x": "x"}, 403, "reserved"),
        ({"owner": "p2"}, 403, "add_image"),
        ({"visibility": "public"}, 403, "publicize_image"),
        ([], 400, "body"),
        ("x", 400, "body"),
    ],
)
async def test_bad_images_are_refused_by_name(owner: httpx.AsyncClient, body: Any, status: int, word: str) -> None:
    answer = await owner.post("/images", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert word in answer.text
    assert await names(owner) == []


async def test_a_deleted_image_is_gone_with_its_bytes(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"x" * 100)
    assert len(api.kept()) == 1
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204
    assert api.kept() == []
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("GET", "/members")):
        assert (await owner.request(method, f"/images/{image_id}{path}")).status_code == 404


async def test_a_protected_image_stays(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, protected=True)
    answer = await owner.delete(f"/images/{image_id}")
    assert answer.status_code == 403 and "protected" in answer.text
    await patch(owner, image_id, replace("protected", False))
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204


@pytest.mark.parametrize("path", [NOBODY, "nonsense", "%2e%2e%2f", "%00", "x" * 300, NOBODY.upper(), "%F0%9F%8C%9F"])
async def test_what_is_not_there_is_not_found(owner: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        body: dict[str, Any] = {"json": [], "headers": PATCH} if method == "PATCH" else {}
        assert (await owner.request(method, f"/images/{path}", **body)).status_code in (404, 405)
    assert (await owner.put(f"/images/{path}/file", content=b"", headers=OCTETS)).status_code == 404


# ---- who sees what, and may do what -----------------------------------------------------------------


async def test_who_sees_which_visibility(
    owner: httpx.AsyncClient, other: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    ids = {
        "private": await made(owner, name="private", visibility="private"),
        "shared": await made(owner, name="shared", visibility="shared"),
        "community": await made(owner, name="community", visibility="community"),
        "public": await made(admin, name="public", visibility="public"),
    }
    assert await names(owner) == ["community", "private", "public", "shared"]
    assert await names(admin) == ["community", "private", "public", "shared"]
    assert await names(other) == ["public"]
    assert await names(other, "visibility=community") == ["community"]
    assert await names(other, "visibility=all") == ["community", "public"]
    assert await names(other, "visibility=private") == []
    assert await names(other, "visibility=shared") == []
    assert await names(owner, "visibility=private") == ["private"]
    found = {name: (await other.get(f"/images/{image_id}")).status_code for name, image_id in ids.items()}
    assert found == {"private": 404, "shared": 404, "community": 200, "public": 200}


async def test_seeing_is_not_changing(
    api: ImageApi, owner: httpx.AsyncClient, other: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    image_id = await made(owner, visibility="community")
    for client in (other, reader):
        answers = [
            await patch(client, image_id, replace("name", "mine")),
            await client.delete(f"/images/{image_id}"),
            await client.put(f"/images/{image_id}/file", content=b"x", headers=OCTETS),
            await client.put(f"/images/{image_id}/tags/x"),
            await client.post(f"/images/{image_id}/actions/deactivate"),
            await client.post(f"/images/{image_id}/members", json={"member": "p3"}),
        ]
        assert [answer.status_code for answer in answers] == [403] * 6
    assert (await reader.post("/images", json={})).status_code == 403
    assert (await reader.get(f"/images/{image_id}")).status_code == 200
    assert (await reader.get(f"/images/{image_id}/file")).status_code == 403, "reading bytes takes a member"
    async with api.client("p1", "") as nothing:
        assert (await nothing.get("/images")).status_code == 403


async def test_somebody_without_a_project_owns_nothing(api: ImageApi, owner: httpx.AsyncClient) -> None:
    await made(owner, visibility="private")
    async with api.client("", "member,reader") as client:
        assert (await client.get("/images")).status_code == 403
        assert (await client.post("/images", json={})).status_code == 403


async def test_without_a_token_nothing_is_told(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"secret", visibility="private")
    async with httpx.AsyncClient(base_url=f"{api.server.url}/image/v2") as nobody:
        for path in ("/images", f"/images/{image_id}", f"/images/{image_id}/file", "/schemas/image", "/info/stores"):
            answer = await nobody.get(path)
            assert answer.status_code == 401 and b"secret" not in answer.content
            assert "error" in answer.json()


async def test_only_an_administrator_makes_public_or_gives_away(
    owner: httpx.AsyncClient, other: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    image_id = await made(owner, b"x" * 3_000_000)
    assert (await patch(owner, image_id, replace("visibility", "public"))).status_code == 403
    assert (await patch(owner, image_id, replace("owner", "p2"))).status_code == 403
    assert (await patch(admin, image_id, replace("visibility", "public"))).status_code == 200
    assert (await patch(owner, image_id, replace("name", "still mine"))).status_code == 200
    assert (await patch(admin, image_id, replace("owner", "p2"))).status_code == 200
    assert (await patch(owner, image_id, replace("name", "no more"))).status_code == 403
    usage = (await other.get("/info/usage")).json()["usage"]
    assert usage == {"image_count_total": {"usage": 1, "limit": -1}, "image_size_total": {"usage": 3, "limit": -1}}
    assert (await owner.get("/info/usage")).json()["usage"]["image_count_total"]["usage"] == 0
    assert (await admin.post("/images", json={"owner": "p1"})).json()["owner"] == "p1"


# ---- changes ----------------------------------------------------------------------------------------


async def test_a_patch_changes_all_or_nothing(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, color="red", size_of="x")
    answer = await patch(
        owner,
        image_id,
        replace("name", None),
        replace("min_ram", 7),
        replace("os_hidden", True),
        replace("tags", ["z", "y"]),
        {"op": "add", "path": "/shape", "value": "round"},
        {"op": "add", "path": "/color", "value": "blue"},
        {"op": "remove", "path": "/size_of"},
        {"op": "add", "path": "/a~1b~0c", "value": "escaped"},
    )
    assert answer.status_code == 200
    image = answer.json()
    assert image == (await owner.get(f"/images/{image_id}")).json()
    assert (image["name"], image["min_ram"], image["os_hidden"], image["tags"]) == (None, 7, True, ["y", "z"])
    assert (image["shape"], image["color"], image["a/b~c"]) == ("round", "blue", "escaped")
    assert "size_of" not in image
    failed = await patch(owner, image_id, replace("name", "new"), replace("absent", "x"))
    assert failed.status_code == 409
    assert (await owner.get(f"/images/{image_id}")).json()["name"] is None


async def test_the_old_form_of_patches(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    old = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
    body = [{"replace": "/name", "value": "old"}, {"add": "/color", "value": "red"}]
    image = (await owner.patch(f"/images/{image_id}", json=body, headers=old)).json()
    assert (image["name"], image["color"]) == ("old", "red")
    assert (await owner.patch(f"/images/{image_id}", json=[{"remove": "/color"}], headers=old)).status_code == 200
    for bad in ([{"replace": "/name"}], [{"value": "x"}], [{"add": 5}], [{"add": "/a", "remove": "/b"}]):
        assert (await owner.patch(f"/images/{image_id}", json=bad, headers=old)).status_code == 400


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (replace("status", "active"), 403),
        (replace("id", NOBODY), 403),
        (replace("size", 5), 403),
        (replace("os_hash_value", "x"), 403),
        ({"op": "add", "path": "/locations/-", "value": {}}, 400),
        ({"op": "add", "path": "/locations", "value": []}, 403),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "remove", "path": "/status"}, 403),
        ({"op": "remove", "path": "/absent"}, 409),
        (replace("absent", "x"), 409),
        (replace("min_disk", "x"), 400),
        (replace("visibility", None), 400),
        (replace("protected", "true"), 400),
        (replace("color", 5), 400),
        (replace("disk_format", "zip"), 400),
        ({"op": "move", "path": "/a", "from": "/b"}, 400),
        ({"op": "replace", "path": "/name"}, 400),
        ({"op": "replace", "path": "name", "value": "x"}, 400),
        ({"op": "replace", "path": "/", "value": "x"}, 400),
        ({"op": "replace", "path": "", "value": "x"}, 400),
        ({"op": "replace", "path": "/a/", "value": "x"}, 400),
        ({"op": "replace", "path": "/a/b", "value": "x"}, 400),
        ({"op": "add", "path": "/a~2", "value": "x"}, 400),
        ({"op": "add", "path": "/os_glance_importing", "value": "x"}, 403),
        ({"op": ["add"], "path": "/a", "value": "x"}, 400),
        ("x", 400),
    ],
)
async def test_bad_changes_are_refused(owner: httpx.AsyncClient, operation: Any, status: int) -> None:
    image_id = await made(owner, color="red")
    before = (await owner.get(f"/images/{image_id}")).json()
    answer = await patch(owner, image_id, operation)
    assert answer.status_code == status, answer.text
    assert (await owner.get(f"/images/{image_id}")).json() == before


async def test_a_patch_must_say_that_it_is_one(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    assert (await owner.patch(f"/images/{image_id}", json=[])).status_code == 415
    assert (await owner.patch(f"/images/{image_id}", json={}, headers=PATCH)).status_code == 400
    assert (await owner.patch(f"/images/{image_id}", content=b"[", headers=PATCH)).status_code == 400


async def test_formats_are_settled_with_the_bytes(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    assert (await patch(owner, image_id, replace("disk_format", "iso"))).status_code == 200
    assert (await patch(owner, image_id, replace("disk_format", "raw"))).status_code == 200
    await owner.put(f"/images/{image_id}/file", content=b"x", headers=OCTETS)
    assert (await patch(owner, image_id, replace("disk_format", "qcow2"))).status_code == 403
    assert (await patch(owner, image_id, replace("container_format", "ova"))).status_code == 403


async def test_many_changes_at_once_are_all_kept(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    operations = ({"op": "add", "path": f"/p{n}", "value": str(n)} for n in range(20))
    await asyncio.gather(*(patch(owner, image_id, operation) for operation in operations))
    image = (await owner.get(f"/images/{image_id}")).json()
    assert [image[f"p{n}"] for n in range(20)] == [str(n) for n in range(20)]


async def test_tags(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    for tag in ("one", "two words", "one", "x" * 255, "straße"):
        assert (await owner.put(f"/images/{image_id}/tags/{tag}")).status_code == 204
    assert (await owner.put(f"/images/{image_id}/tags/{'x' * 256}")).status_code == 400
    assert (await owner.delete(f"/images/{image_id}/tags/one")).status_code == 204
    assert (await owner.delete(f"/images/{image_id}/tags/one")).status_code == 404
    assert (await owner.get(f"/images/{image_id}")).json()["tags"] == ["straße", "two words", "x" * 255]


async def test_a_deactivated_image_gives_no_bytes(owner: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    assert (await owner.post(f"/images/{image_id}/actions/deactivate")).status_code == 403, "it is queued"
    await owner.put(f"/images/{image_id}/file", content=b"bytes", headers=OCTETS)
    for _ in range(2):
        assert (await owner.post(f"/images/{image_id}/actions/deactivate")).status_code == 204
    assert (await owner.get(f"/images/{image_id}")).json()["status"] == "deactivated"
    assert (await owner.get(f"/images/{image_id}/file")).status_code == 403
    assert (await admin.get(f"/images/{image_id}/file")).content == b"bytes"
    assert (await owner.post(f"/images/{image_id}/actions/reactivate")).status_code == 204
    assert (await owner.get(f"/images/{image_id}/file")).content == b"bytes"
    assert (await owner.post(f"/images/{image_id}/actions/explode")).status_code == 404


# ---- lists ------------------------------------------------------------------------------------------


@pytest.fixture
async def five(owner: httpx.AsyncClient) -> dict[str, str]:
    """Images a to e, the later the larger."""
    ids = {}
    for n, name in enumerate("abcde"):
        more: dict[str, Any] = {"tags": [f"t{n % 2}", "all"], "color": ["red", "blue"][n % 2], "min_ram": n * 100}
        ids[name] = await made(owner, b"x" * (n * 1000) if n else None, name=name, **more)
    return ids


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=c", "c"),
        ("name=in:a,c,zzz", "ac"),
        ('name=in:"a",b', "ab"),
        ("status=active", "bcde"),
        ("status=queued", "a"),
        ("status=in:queued,saving", "a"),
        ("status=nonsense", ""),
        ("size_min=2000", "cde"),
        ("size_max=2000", "bc"),
        ("size_min=1000&size_max=1000", "b"),
        ("tag=t1", "bd"),
        ("tag=t1&tag=all", "bd"),
        ("tag=t0&tag=t1", ""),
        ("color=red", "ace"),
        ("color=red&size_min=1", "ce"),
        ("never_set=red", ""),
        ("disk_format=raw&container_format=bare", "abcde"),
        ("disk_format=in:qcow2,iso", ""),
        ("owner=p1", "abcde"),
        ("owner=p2", ""),
        ("protected=False", "abcde"),
        ("protected=true", ""),
        ("os_hidden=true", ""),
        ("os_hidden=false", "abcde"),
        ("min_ram=300", "d"),
        ("created_at=gt:2020-01-01T00:00:00Z", "abcde"),
        ("created_at=lt:2020-01-01", ""),
        ("created_at=gte:2020-01-01T00:00:00%2B02:00&updated_at=lte:2999-01-01T00:00:00", "abcde"),
        ("updated_at=neq:2020-01-01T00:00:00Z", "abcde"),
        ("updated_at=2020-01-01T00:00:00Z", ""),
        ("visibility=shared", "abcde"),
        ("member_status=all", "abcde"),
        ("id=in:", ""),
    ],
)
async def test_filters(owner: httpx.AsyncClient, five: dict[str, str], query: str, expected: str) -> None:
    assert "".join(await names(owner, query)) == expected


async def test_filters_by_hash(owner: httpx.AsyncClient, five: dict[str, str]) -> None:
    digest = hashlib.sha512(b"x" * 3000).hexdigest()
    assert await names(owner, f"os_hash_value={digest}") == ["d"]
    assert await names(owner, f"id={five['b']}") == ["b"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sort=size:desc", "edcba"),
        ("sort=size:asc", "abcde"),
        ("sort=size", "edcba"),
        ("sort_key=name&sort_dir=asc", "abcde"),
        ("sort_key=name", "edcba"),
        ("sort_key=status&sort_dir=asc&sort_key=name&sort_dir=desc", "edcba"),
        ("sort=status:desc,name:asc", "abcde"),
        ("sort=disk_format:asc,size:desc", "edcba"),
        ("", "edcba"),
        ("sort_dir=asc", "abcde"),
        ("sort=id", None),
        ("sort=updated_at:asc,owner", None),
    ],
)
async def test_order_and_pages(
    owner: httpx.AsyncClient, five: dict[str, str], query: str, expected: str | None
) -> None:
    whole = [image["id"] for image in (await owner.get(f"/images?{query}")).json()["images"]]
    if expected is not None:
        assert whole == [five[name] for name in expected]
    for limit in (1, 2, 3):
        found: list[str] = []
        path: str | None = f"/v2/images?{query}&limit={limit}"
        while path is not None:
            page = (await owner.get(f"{owner.base_url.copy_with(path='/image')}{path}")).json()
            assert page["first"].startswith("/v2/images") and "marker" not in page["first"]
            assert page["schema"] == "/v2/schemas/images"
            found += [image["id"] for image in page["images"]]
            path = page.get("next")
        assert found == whole


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=x",
        "limit=99999999999999999999",
        "marker=nonsense",
        f"marker={NOBODY}",
        "sort_key=password",
        "sort=name:up",
        "sort=name&sort_key=name",
        "sort_key=name&sort_key=name",
        "sort_key=name&sort_dir=asc&sort_dir=desc",
        "sort=",
        "sort=name,name",
        "visibility=secret",
        "member_status=maybe",
        "protected=perhaps",
        "os_hidden=",
        "size_min=-5",
        "size_max=big",
        "size_max=1e5",
        "min_ram=x",
        "created_at=yesterday",
        "created_at=gt:",
        "created_at=gt:0001-01-01T00:00:00%2B23:59",
        "updated_at=near:2020-01-01",
        "name=a&name=b",
        'name=in:"a',
        "name=%00",
        "name=%ff",
    ],
)
async def test_bad_queries_are_refused(owner: httpx.AsyncClient, query: str) -> None:
    answer = await owner.get(f"/images?{query}")
    assert answer.status_code == 400, answer.text


async def test_pages_are_as_large_as_the_operator_says(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(limit_param_default=2, api_limit_max=3)).start()
    async with api.client() as client:
        for _ in range(5):
            await made(client)
        assert len((await client.get("/images")).json()["images"]) == 2
        assert len((await client.get("/images?limit=1000")).json()["images"]) == 3
    await api.stop()


async def test_hidden_images_are_listed_when_asked_for(owner: httpx.AsyncClient) -> None:
    await made(owner, name="seen")
    image_id = await made(owner, name="hidden", os_hidden=True)
    assert await names(owner) == ["seen"]
    assert await names(owner, "os_hidden=true") == ["hidden"]
    assert (await owner.get(f"/images/{image_id}")).status_code == 200


# ---- sharing ----------------------------------------------------------------------------------------


async def test_sharing_step_by_step(
    api: ImageApi, owner: httpx.AsyncClient, other: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    image_id = await made(owner, b"bytes")
    path = f"/images/{image_id}/members"
    answer = await owner.post(path, json={"member": "p2"})
    assert answer.status_code == 200
    member = answer.json()
    assert (member["member_id"], member["image_id"], member["status"]) == ("p2", image_id, "pending")
    assert member["schema"] == "/v2/schemas/member"
    assert (await owner.post(path, json={"member": "p2"})).status_code == 409
    await owner.post(path, json={"member": "p3"})

    assert await names(other) == [] and await names(other, "member_status=pending") == ["it"]
    assert (await other.get(f"/images/{image_id}")).status_code == 200
    assert (await other.get(f"/images/{image_id}/file")).content == b"bytes"
    assert (await other.get(path)).json()["members"] == [member]
    assert len((await owner.get(path)).json()["members"]) == 2
    assert (await other.get(f"{path}/p3")).status_code == 404
    assert (await other.get(f"{path}/p2")).status_code == 200

    assert (await owner.put(f"{path}/p2", json={"status": "accepted"})).status_code == 403, "that is for p2 to say"
    assert (await other.put(f"{path}/p3", json={"status": "accepted"})).status_code == 403
    assert (await other.put(f"{path}/p2", json={"status": "maybe"})).status_code == 400
    assert (await other.put(f"{path}/p2", json={"status": "accepted"})).json()["status"] == "accepted"
    assert await names(other) == ["it"] and await names(other, "visibility=shared") == ["it"]
    assert (await other.put(f"{path}/p2", json={"status": "rejected"})).status_code == 200
    assert await names(other) == [] and await names(other, "member_status=rejected") == ["it"]
    assert (await other.put(f"{path}/nobody", json={"status": "accepted"})).status_code == 404

    assert (await other.post(path, json={"member": "p4"})).status_code == 403
    assert (await other.delete(f"{path}/p3")).status_code == 403
    assert (await owner.delete(f"{path}/p2")).status_code == 204
    assert (await owner.delete(f"{path}/p2")).status_code == 404
    assert (await other.get(f"/images/{image_id}")).status_code == 404
    assert (await admin.delete(f"{path}/p3")).status_code == 204


async def test_only_shared_images_have_members(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, visibility="private")
    answer = await owner.post(f"/images/{image_id}/members", json={"member": "p2"})
    assert answer.status_code == 403 and "Only shared images have members" in answer.text
    shared = await made(owner)
    for body in ({}, {"member": ""}, {"member": 5}, {"member": "x" * 65}, {"member": "p2", "more": 1}, []):
        assert (await owner.post(f"/images/{shared}/members", json=body)).status_code == 400
    for path in ("/images/{}/members", "/images/{}/members/p2"):
        assert (await owner.get(path.format(NOBODY))).status_code == 404


async def test_only_so_many_members(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(image_member_quota=3)).start()
    async with api.client() as client:
        image_id = await made(client)
        wanted = (client.post(f"/images/{image_id}/members", json={"member": f"m{n}"}) for n in range(8))
        codes = [answer.status_code for answer in await asyncio.gather(*wanted)]
        assert sorted(codes) == [200] * 3 + [413] * 5
    await api.stop()


# ---- bytes ------------------------------------------------------------------------------------------


async def test_bytes_come_back_as_they_went_in(api: ImageApi, owner: httpx.AsyncClient) -> None:
    data = os.urandom(3_333_333)
    image_id = await made(owner, data)
    image = (await owner.get(f"/images/{image_id}")).json()
    assert image["status"] == "active"
    assert (image["size"], image["virtual_size"]) == (len(data), len(data))
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", hashlib.sha512(data).hexdigest())
    answer = await owner.get(f"/images/{image_id}/file")
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-md5"] == image["checksum"]
    assert answer.headers["content-type"] == "application/octet-stream"
    head = await owner.head(f"/images/{image_id}/file")
    assert head.headers["content-length"] == str(len(data)) and head.content == b""


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=90-", 90, 99), ("bytes=-7", 93, 99), ("bytes=95-500", 95, 99), ("bytes=-500", 0, 99)],
)
async def test_a_part_of_the_bytes(owner: httpx.AsyncClient, header: str, first: int, last: int) -> None:
    data = bytes(range(100))
    image_id = await made(owner, data)
    answer = await owner.get(f"/images/{image_id}/file", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == data[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/100"
    assert "content-md5" not in answer.headers


@pytest.mark.parametrize(("header", "status"), [("bytes=100-", 416), ("bytes=-0", 416)])
async def test_a_part_beyond_the_end(owner: httpx.AsyncClient, header: str, status: int) -> None:
    image_id = await made(owner, bytes(100))
    assert (await owner.get(f"/images/{image_id}/file", headers={"Range": header})).status_code == status


@pytest.mark.parametrize(
    "header", ["bytes=5-1", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "x", "bytes=" + "9" * 30 + "-"]
)
async def test_ranges_that_are_none_are_ignored(owner: httpx.AsyncClient, header: str) -> None:
    image_id = await made(owner, bytes(100))
    answer = await owner.get(f"/images/{image_id}/file", headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, 100)


async def test_bytes_are_given_once(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"first")
    answer = await owner.put(f"/images/{image_id}/file", content=b"second", headers=OCTETS)
    assert answer.status_code == 409
    assert (await owner.get(f"/images/{image_id}/file")).content == b"first"
    assert len(api.kept()) == 1


async def test_an_upload_must_be_octets(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    answer = await owner.put(f"/images/{image_id}/file", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def slowly(*pieces: bytes, gate: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    async def pour() -> AsyncIterator[bytes]:
        for number, piece in enumerate(pieces):
            if number and gate is not None:
                await gate.wait()
            yield piece

    return pour()


async def status_becomes(client: httpx.AsyncClient, image_id: str, status: str) -> None:
    async with asyncio.timeout(10):
        while (await client.get(f"/images/{image_id}")).json()["status"] != status:
            await asyncio.sleep(0.01)


async def test_of_two_uploads_at_once_one_wins(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    gate = asyncio.Event()
    first = asyncio.create_task(
        owner.put(f"/images/{image_id}/file", content=slowly(b"a" * 10, b"b" * 10, gate=gate), headers=OCTETS)
    )
    await status_becomes(owner, image_id, "saving")
    answer = await owner.put(f"/images/{image_id}/file", content=b"second", headers=OCTETS)
    assert answer.status_code == 409 and "saving" in answer.text
    gate.set()
    assert (await first).status_code == 204
    assert (await owner.get(f"/images/{image_id}/file")).content == b"a" * 10 + b"b" * 10


async def test_of_many_uploads_at_the_same_moment_one_wins(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    contents = [bytes([n]) * 100_000 for n in range(8)]
    answers = await asyncio.gather(
        *(owner.put(f"/images/{image_id}/file", content=content, headers=OCTETS) for content in contents)
    )
    codes = [answer.status_code for answer in answers]
    assert sorted(codes) == [204] + [409] * 7
    assert (await owner.get(f"/images/{image_id}/file")).content == contents[codes.index(204)]
    assert len(api.kept()) == 1


async def begin_upload(api: ImageApi, image_id: str, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the beginning of five million bytes. (httpx does not listen before it has sent all.)"""
    stream, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    head = (
        f"PUT /image/v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: u:p1:member,reader\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    return stream, writer


async def test_a_broken_upload_can_be_begun_again(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    _, writer = await begin_upload(api, image_id, b"x" * 2_000_000)
    await status_becomes(owner, image_id, "saving")
    assert any(name.endswith(".part") for name in api.kept())
    writer.close()
    await status_becomes(owner, image_id, "queued")
    async with asyncio.timeout(5):
        while api.kept():
            await asyncio.sleep(0.01)
    assert (await owner.put(f"/images/{image_id}/file", content=b"again", headers=OCTETS)).status_code == 204
    assert (await owner.get(f"/images/{image_id}/file")).content == b"again"


async def test_an_upload_that_falls_silent_is_let_go(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, http=HttpOptions(body_idle_timeout_s=0.3)).start()
    async with api.client() as client:
        image_id = await made(client)
        stream, writer = await begin_upload(api, image_id, b"x" * 2_000_000)
        assert b" 408 " in await asyncio.wait_for(stream.readline(), 10)
        await status_becomes(client, image_id, "queued")
        assert api.kept() == []
        writer.close()
    await api.stop()


async def test_an_image_deleted_under_its_upload(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    gate = asyncio.Event()
    upload = asyncio.create_task(
        owner.put(f"/images/{image_id}/file", content=slowly(b"a" * 10, b"b" * 10, gate=gate), headers=OCTETS)
    )
    await status_becomes(owner, image_id, "saving")
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204
    gate.set()
    assert (await upload).status_code == 410
    assert api.kept() == []
    assert (await owner.get("/info/usage")).json()["usage"]["image_size_total"]["usage"] == 0


async def test_an_upload_that_died_silently_gives_way(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(upload_lease_s=60)).start()
    async with api.client() as client:
        image_id = await made(client)
        long_ago = datetime.now(UTC) - timedelta(seconds=61)
        assert await api.store.run(images.begin_upload, image_id, NOBODY, at=long_ago, silent_since=long_ago)
        assert (await client.put(f"/images/{image_id}/file", content=b"new", headers=OCTETS)).status_code == 204
        assert not await api.store.run(images.keep_upload, image_id, NOBODY, at=long_ago)
        assert not await api.store.run(images.give_up_upload, image_id, NOBODY, at=long_ago)
        assert (await client.get(f"/images/{image_id}/file")).content == b"new"
    await api.stop()


async def test_an_upload_that_lives_keeps_its_image(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(upload_lease_s=0.5)).start()

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(15):
            yield b"drop"
            await asyncio.sleep(0.1)

    async with api.client() as client:
        image_id = await made(client)
        upload = asyncio.create_task(client.put(f"/images/{image_id}/file", content=trickle(), headers=OCTETS))
        await asyncio.sleep(1.0)
        answer = await client.put(f"/images/{image_id}/file", content=b"new", headers=OCTETS)
        assert answer.status_code == 409
        assert await api.images.sweep(alone=False) == 0
        assert (await upload).status_code == 204
        assert (await client.get(f"/images/{image_id}/file")).content == b"drop" * 15
    await api.stop()


# ---- what is not taken ------------------------------------------------------------------------------


def disk(path: Path, disk_format: str, *options: str) -> bytes:
    command = ["qemu-img", "create", "-q", "-f", disk_format, *options, str(path), "8M"]
    subprocess.run(command, check=True, cwd=path.parent)
    return path.read_bytes()


async def test_formats_are_declared_and_not_guessed(api: ImageApi, owner: httpx.AsyncClient, tmp_path: Path) -> None:
    plain = disk(tmp_path / "plain", "qcow2")
    (tmp_path / "base").write_bytes(bytes(8 * 1024**2))
    cases = [
        ("raw", plain, "qcow2"),
        ("qcow2", b"\0" * 200_000, "no header of qcow2"),
        ("qcow2", b"", "no header of qcow2"),
        ("qcow2", disk(tmp_path / "overlay", "qcow2", "-b", "base", "-F", "raw"), "backing file"),
        ("qcow2", disk(tmp_path / "split", "qcow2", "-o", "data_file=other"), "another file"),
        ("raw", disk(tmp_path / "vmdk", "vmdk"), "vmdk"),
        ("raw", disk(tmp_path / "vhd", "vpc"), "vhd"),
    ]
    for declared, data, word in cases:
        image_id = await made(owner, disk_format=declared)
        answer = await owner.put(f"/images/{image_id}/file", content=data, headers=OCTETS)
        assert answer.status_code == 400 and word in answer.text, (declared, word, answer.text)
        assert (await owner.get(f"/images/{image_id}")).json()["status"] == "queued"
    assert api.kept() == []
    image_id = await made(owner, plain, disk_format="qcow2")
    image = (await owner.get(f"/images/{image_id}")).json()
    assert (image["size"], image["virtual_size"]) == (len(plain), 8 * 1024**2)
    image_id = await made(owner, plain, container_format="ova", disk_format="vmdk")
    assert (await owner.get(f"/images/{image_id}")).json()["virtual_size"] is None


async def test_a_wrong_header_ends_the_upload_early(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, disk_format="qcow2")
    kept: list[list[str]] = []

    async def long() -> AsyncIterator[bytes]:
        for number in range(800):
            if number > 600:
                kept.append(api.kept())
            yield bytes(65536)

    answer = await owner.put(f"/images/{image_id}/file", content=long(), headers=OCTETS)
    assert answer.status_code == 400
    assert kept and not any(kept), "nothing was written any more, though the client went on sending"


async def test_too_large_is_too_large(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(image_size_cap=1000, virtual_size_cap_gib=1)).start()
    async with api.client() as client:
        image_id = await made(client)
        announced = await client.put(f"/images/{image_id}/file", content=bytes(1001), headers=OCTETS)
        assert announced.status_code == 413 and "1000" in announced.text
        unannounced = await client.put(
            f"/images/{image_id}/file", content=slowly(bytes(600), bytes(600)), headers=OCTETS
        )
        assert unannounced.status_code == 413
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
        assert (await client.put(f"/images/{image_id}/file", content=bytes(1000), headers=OCTETS)).status_code == 204
    await api.stop()


async def test_a_small_file_cannot_unfold_to_a_huge_disk(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(virtual_size_cap_gib=100)).start()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "huge"), "101G"], check=True)
    async with api.client() as client:
        image_id = await made(client, disk_format="qcow2")
        data = (tmp_path / "huge").read_bytes()
        answer = await client.put(f"/images/{image_id}/file", content=data, headers=OCTETS)
        assert answer.status_code == 400 and str(100 * 1024**3) in answer.text
    await api.stop()


async def test_the_announced_size_must_be_right(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    path = f"/images/{image_id}/file"
    said = {**OCTETS, "X-OpenStack-Image-Size": "7"}
    assert (await owner.put(path, content=slowly(b"12345"), headers=said)).status_code == 400
    assert (await owner.put(path, content=b"12345", headers=said)).status_code == 400
    assert (await owner.put(path, content=b"", headers={**OCTETS, "X-OpenStack-Image-Size": "x"})).status_code == 400
    assert (await owner.put(path, content=slowly(b"1234567"), headers=said)).status_code == 204


async def test_an_image_of_nothing_is_an_image(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"")
    image = (await owner.get(f"/images/{image_id}")).json()
    assert (image["status"], image["size"]) == ("active", 0)
    answer = await owner.get(f"/images/{image_id}/file")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 8 MiB on it."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("keep_free_mib", [0, 1])
async def test_a_full_disk_is_said_so_and_left_clean(small_disk: Path, keep_free_mib: int) -> None:
    api = await ImageApi(small_disk, ImageOptions(keep_free_mib=keep_free_mib)).start()
    async with api.client() as client:
        image_id = await made(client)
        answer = await client.put(f"/images/{image_id}/file", content=bytes(9 * 1024**2), headers=OCTETS)
        assert answer.status_code == 413 and "full" in answer.text
        await status_becomes(client, image_id, "queued")
        assert api.kept() == []
        assert (await client.put(f"/images/{image_id}/file", content=bytes(1024), headers=OCTETS)).status_code == 204
    await api.stop()


async def test_room_is_kept_for_others(tmp_path: Path) -> None:
    api = await ImageApi(tmp_path, ImageOptions(keep_free_mib=1 << 40)).start()
    async with api.client() as client:
        image_id = await made(client)
        answer = await client.put(f"/images/{image_id}/file", content=b"x", headers=OCTETS)
        assert answer.status_code == 413
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
    await api.stop()


async def test_quotas_of_count_and_size(api: ImageApi, owner: httpx.AsyncClient) -> None:
    await api.store.run(quotas.set_limits, "p1", {"image_count_total": 2, "image_size_total": 3})
    first = await made(owner, bytes(2 * 1024**2 + 1))
    second = await made(owner)
    answer = await owner.post("/images", json={})
    assert answer.status_code == 413 and "image_count_total" in answer.text
    answer = await owner.put(f"/images/{second}/file", content=b"x", headers=OCTETS)
    assert answer.status_code == 413 and "image_size_total" in answer.text
    assert (await owner.get(f"/images/{second}")).json()["status"] == "queued"
    assert len(api.kept()) == 1
    await owner.delete(f"/images/{first}")
    assert (await owner.put(f"/images/{second}/file", content=b"x", headers=OCTETS)).status_code == 204
    usage = (await owner.get("/info/usage")).json()["usage"]
    assert usage["image_size_total"] == {"usage": 1, "limit": 3}


# ---- crashes, memory --------------------------------------------------------------------------------


async def test_kill_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from tests.support.image_api import ImageApi
        async def main():
            api = await ImageApi(Path({str(tmp_path)!r})).start()
            Path({str(tmp_path / "port")!r}).write_text(str(api.server.port))
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=root, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        while not (tmp_path / "port").exists() or not (tmp_path / "port").read_text():
            await asyncio.sleep(0.05)
    base = f"http://127.0.0.1:{(tmp_path / 'port').read_text()}/image/v2"
    gate = asyncio.Event()
    async with httpx.AsyncClient(base_url=base, headers={"X-Auth-Token": "u:p1:member,reader"}) as client:
        kept = await made(client, b"kept")
        image_id = await made(client)
        upload = asyncio.create_task(
            client.put(f"/images/{image_id}/file", content=slowly(bytes(3_000_000), b"", gate=gate), headers=OCTETS)
        )
        await status_becomes(client, image_id, "saving")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        gate.set()
        with pytest.raises(httpx.TransportError):
            await upload
    (tmp_path / "images" / f"{NOBODY}.{NOBODY}").write_bytes(b"published, and killed before it was recorded")
    api = await ImageApi(tmp_path).start()
    async with api.client() as client:
        assert len(api.kept()) == 1
        assert (await client.get(f"/images/{kept}/file")).content == b"kept"
        assert (await client.get(f"/images/{image_id}")).json()["status"] == "queued"
        assert (await client.put(f"/images/{image_id}/file", content=b"again", headers=OCTETS)).status_code == 204
        assert (await client.get(f"/images/{image_id}/file")).content == b"again"
    await api.stop()


async def test_memory_does_not_depend_on_the_size(owner: httpx.AsyncClient) -> None:
    size = 200 * 1024**2
    piece = bytes(256 * 1024)
    most = 0
    before = rss()

    async def pour() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(size // len(piece)):
            most = max(most, rss() - before)
            yield piece

    image_id = await made(owner)
    answer = await owner.put(f"/images/{image_id}/file", content=pour(), headers=OCTETS)
    assert answer.status_code == 204
    count = 0
    async with owner.stream("GET", f"/images/{image_id}/file") as stream:
        async for received in stream.aiter_raw():
            count += len(received)
            most = max(most, rss() - before)
    assert count == size
    assert most < 40 * 1024**2, f"{most / 1024**2:.0f} MiB more than before"


async def test_a_client_that_leaves_a_download_leaves_no_file_open(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, bytes(30_000_000))

    def open_files() -> int:
        return sum(str(api.files) in str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir())

    for _ in range(3):
        async with owner.stream("GET", f"/images/{image_id}/file") as stream:
            await anext(stream.aiter_raw(1000))
            assert open_files() == 1
        await owner.head(f"/images/{image_id}/file")
        async with asyncio.timeout(5):
            while open_files():
                await asyncio.sleep(0.01)


async def test_lost_bytes_are_not_found_and_no_bug(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"bytes")
    for path in api.files.iterdir():
        path.unlink()
    assert (await owner.get(f"/images/{image_id}/file")).status_code == 404
    assert (await owner.delete(f"/images/{image_id}")).status_code == 204


# ---- tickets, and the way to a host -----------------------------------------------------------------


async def test_a_ticket_opens_one_image_for_a_while(api: ImageApi, owner: httpx.AsyncClient) -> None:
    image_id = await made(owner, b"bytes", visibility="private")
    other_id = await made(owner, b"other", visibility="private")
    now = datetime.now(UTC)
    good = api.tickets.sign(image_id, now + timedelta(minutes=1))
    async with httpx.AsyncClient(base_url=f"{api.server.url}/image/v2") as host:

        async def fetch(image: str, ticket: str) -> httpx.Response:
            return await host.get(f"/images/{image}/file", headers={"X-Kilonova-Ticket": ticket})

        assert (await fetch(image_id, good)).content == b"bytes"
        for image, ticket in (
            (other_id, good),
            (image_id, api.tickets.sign(image_id, now - timedelta(seconds=1))),
            (image_id, good[:-1]),
            (image_id, good.replace(good.split(".")[0], "9999999999")),
            (image_id, ""),
            (image_id, "x.y"),
            (image_id, "9" * 400 + ".x"),
        ):
            assert (await fetch(image, ticket)).status_code == 401
        assert (await host.get(f"/images/{image_id}", headers={"X-Kilonova-Ticket": good})).status_code == 401
        await owner.post(f"/images/{image_id}/actions/deactivate")
        assert (await fetch(image_id, good)).status_code == 403
        await owner.delete(f"/images/{image_id}")
        assert (await fetch(image_id, good)).status_code == 404


async def test_from_the_record_to_a_copy_on_a_host(api: ImageApi, owner: httpx.AsyncClient, tmp_path: Path) -> None:
    references = ImageReferences(api.store, api.tickets, api.clock, api.options, api_url=lambda: api.server.url)
    data = disk(tmp_path / "disk", "qcow2")
    image_id = await made(owner, data, disk_format="qcow2", visibility="private", min_disk=3, hw_disk_bus="virtio")
    ref = await references(image_id)
    assert (ref.disk_format, ref.min_disk_gib, ref.properties) == ("qcow2", 3, {"hw_disk_bus": "virtio"})
    cache = ImageCache(tmp_path / "cache", httpx.AsyncClient, api.clock)
    paths = {await cache.path_of(ref) for _ in range(3)}
    assert [Path(path).read_bytes() for path in paths] == [data]
    assert cache.bytes_fetched == len(data)
    await owner.delete(f"/images/{image_id}")
    with pytest.raises(NotFound):
        await references(image_id)
    with pytest.raises(ImageUnusable):
        await ImageCache(tmp_path / "elsewhere", httpx.AsyncClient, api.clock).path_of(ref)
    await cache.close()


async def test_what_no_server_can_start_from_has_no_reference(api: ImageApi, owner: httpx.AsyncClient) -> None:
    references = ImageReferences(api.store, api.tickets, api.clock, api.options, api_url=lambda: api.server.url)
    ova = await made(owner, b"x", container_format="ova")
    for image_id in (await made(owner), await made(owner, b""), ova, await made(owner, b"x", disk_format="aki")):
        with pytest.raises(ImageUnusable):
            await references(image_id)


# ---- documents --------------------------------------------------------------------------------------


async def test_versions_and_documents(api: ImageApi, owner: httpx.AsyncClient) -> None:
    root = await owner.get(f"{api.server.url}/image")
    assert root.status_code in (200, 300)
    assert any(version["status"] == "CURRENT" for version in root.json()["versions"])
    schema = (await owner.get("/schemas/image")).json()
    assert schema["name"] == "image" and schema["additionalProperties"] == {"type": "string"}
    assert schema["properties"]["disk_format"]["enum"][0] is None
    image = (await owner.get(f"/images/{await made(owner)}")).json()
    assert image.keys() <= schema["properties"].keys()
    for name in ("images", "member", "members"):
        assert (await owner.get(f"/schemas/{name}")).json()["name"] == name
    assert (await owner.get("/info/import")).json()["import-methods"]["value"] == []
    assert (await owner.get("/info/stores")).json() == {"stores": [{"id": "file", "default": "true"}]}
    assert (await owner.get("/info/stores/detail")).status_code == 403


async def test_web_downloads_are_not_offered(owner: httpx.AsyncClient) -> None:
    image_id = await made(owner)
    body = {"method": {"name": "web-download", "uri": "http://169.254.169.254/"}}
    assert (await owner.post(f"/images/{image_id}/import", json=body)).status_code == 404
