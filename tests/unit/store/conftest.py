"""A store on a real SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kilonova.store.engine import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}")
    store.create_all()
    yield store
    await store.close()
