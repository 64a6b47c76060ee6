from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from http_sample import Client, sample_app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(*sample_app()) as found:
        yield found


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """Every line logged, as the fields that it would be written with."""
    from kilonova.base.log import bound

    lines: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> Any:
        lines.append({**bound(), **event, "level": level})
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    yield lines
    structlog.configure(**before)
