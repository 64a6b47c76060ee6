"""A store, on SQLite unless the environment says otherwise."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.stores import fresh_store

from kilonova.store.engine import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = fresh_store(tmp_path)
    yield store
    await store.close()
