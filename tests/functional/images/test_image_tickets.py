"""The way of an image to a host, by tickets; and the documents of the API."""

# ruff: noqa: ASYNC240 - small files, and nobody else waits

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.support.image_api import ImageApi, disk, made

from kilonova.images.references import ImageReferences
from kilonova.model.errors import ImageUnusable, NotFound
from kilonova.virt.image_cache import ImageCache

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
