from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from identity_rig import World
from tests.support.stores import fresh_store


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = fresh_store(tmp_path)
    yield await World(store).begin()
    await store.close()


@pytest.fixture
async def blue(world: World) -> str:
    """Id of a project in which ``bob`` (password ``pw``) is a member."""
    project_id = await world.make("project", "blue")
    await world.user("bob", "member", project_id)
    return project_id
