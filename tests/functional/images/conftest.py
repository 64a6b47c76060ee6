"""The Image API over a real socket, with real rules, database and files; and who uses it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.image_api import ImageApi


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
