import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from identity_rig import World
from tests.support.stores import fresh_store, on_sqlite

from kilonova.store.engine import Store


@pytest.fixture(scope="session")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Awaitable[tuple[Path, str]]]:
    """A database of SQLite as it is after the first start, and the administrator's password; made once."""
    folder = tmp_path_factory.mktemp("first-day")
    password = ""

    async def made() -> tuple[Path, str]:
        nonlocal password
        if not password:
            store = fresh_store(folder)
            password = (await World(store).begin()).admin_password
            await store.close()
        return folder / "db.sqlite", password

    return made


@pytest.fixture
async def world(tmp_path: Path, first_day: Callable[[], Awaitable[tuple[Path, str]]]) -> AsyncIterator[World]:
    if on_sqlite():  # a copy: making all tables anew would take most of the time
        file, password = await first_day()
        shutil.copy(file, tmp_path / "db.sqlite")
        store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}")
        found = World(store, admin_password=password)
        found.admin = await found.login("admin", password, "admin")
    else:
        store = fresh_store(tmp_path)
        found = await World(store).begin()
    yield found
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
