"""Who sees which image, and may do what with it; images that are shared."""

import asyncio
from pathlib import Path

import httpx
from tests.support.image_api import (
    NOBODY,
    OCTETS,
    ImageApi,
    made,
    names,
    patch,
    replace,
)

from kilonova.images.options import ImageOptions

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
