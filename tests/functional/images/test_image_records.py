"""Images without their bytes: made, shown, changed, deleted."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest
from tests.support.image_api import (
    NOBODY,
    OCTETS,
    PATCH,
    ImageApi,
    made,
    names,
    patch,
    replace,
)

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
