from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
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


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """Every line logged, as its fields."""
    lines: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> Any:
        lines.append({**event, "level": level})
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    yield lines
    structlog.configure(**before)
