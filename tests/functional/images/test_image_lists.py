"""Lists of images: filters, order, pages."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.image_api import NOBODY, ImageApi, made, names

from kilonova.images.options import ImageOptions


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
