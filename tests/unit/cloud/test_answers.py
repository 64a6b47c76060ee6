"""What is kept of requests that shall have one effect, and what a crash in the middle leaves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.stores import fresh_store

from kilonova.cloud.answers import Answers, once
from kilonova.model.context import RequestContext
from kilonova.model.errors import Conflict, Repeated
from kilonova.store.engine import Store
from kilonova.store.queries import answers as rows
from kilonova.store.transactions import Tx


class Time:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = fresh_store(tmp_path)
    yield opened
    await opened.close()


def work(tx: Tx, effects: list[int]) -> int:
    effects.append(1)
    return len(effects)


CTX = RequestContext(request_id="r", user_id="u", project_id="p")


async def test_the_effect_and_the_key_come_together_and_the_answer_later(store: Store) -> None:
    time, effects = Time(), list[int]()
    answers = Answers(store, time)
    key = answers.once(CTX, "POST /x", "k", b"{}")
    assert await answers.find(key) is None
    ctx = RequestContext(request_id="r", once=answers.once(CTX, "POST /x", "k", b"{}"))
    assert await store.run(once(ctx, time, work), effects) == 1
    # The process died here: who comes again is told so, and nothing is done twice.
    with pytest.raises(Conflict, match="its answer was lost"):
        await answers.find(key)
    ctx = RequestContext(request_id="r", once=answers.once(CTX, "POST /x", "k", b"{}"))
    with pytest.raises(Repeated):
        await store.run(once(ctx, time, work), effects)
    assert effects == [1]
    await answers.keep(key, 201, [{"Location": "/x/1"}, {"adminPass": "hidden"}])
    assert await answers.find(key) == (201, [{"Location": "/x/1"}, {"adminPass": "hidden"}])
    row = await store.read(rows.find, key.key, at=time.now())
    assert "hidden" not in str(row) and "adminPass" not in str(row)


async def test_a_key_stands_for_a_day(store: Store) -> None:
    time, effects = Time(), list[int]()
    answers = Answers(store, time)
    for expected in (1, 2):
        ctx = RequestContext(request_id="r", once=answers.once(CTX, "POST /x", "k", b"{}"))
        assert await store.run(once(ctx, time, work), effects) == expected
        time.at += timedelta(hours=25)
    assert await store.run(rows.prune, before=time.now() - rows.KEPT) == 1


async def test_an_answer_that_can_be_told_at_once_is_kept_with_the_effect(store: Store) -> None:
    time, effects = Time(), list[int]()
    answers = Answers(store, time)
    record = answers.once(CTX, "POST /x", "k", b"{}")
    record.render = lambda made: (201, [{}, {"made": made}])
    ctx = RequestContext(request_id="r", once=record)
    await store.run(once(ctx, time, work, gives=lambda count: f"{count} thing"), effects)
    # The process died here.
    assert await answers.find(answers.once(CTX, "POST /x", "k", b"{}")) == (201, [{}, {"made": "1 thing"}])
