"""A worker that breaks down, a database that fails, a clock that jumps: tasks are carried on all the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.model.errors import Unavailable
from kilonova.store.engine import Store
from kilonova.store.queries import tasks
from kilonova.tasks.engine import Engine, TaskOptions
from kilonova.tasks.kinds import Run, Step, TaskKind

QUICK = TaskOptions(lease_s=3.0, sweep_interval_s=0.02, retry_base_s=0.01)


class FailingStore(Store):
    """A real store whose database is away when `away` says so."""

    away: Callable[[str], Exception | None] = staticmethod(lambda name: None)

    async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if (fault := self.away(fn.__name__)) is not None:
            raise fault
        return await super().run(fn, *args, **kwargs)

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if (fault := self.away(fn.__name__)) is not None:
            raise fault
        return await super().read(fn, *args, **kwargs)


class JumpingClock(SystemClock):
    """The machine's clock, set forward or back by hand."""

    def __init__(self) -> None:
        self.by = timedelta()

    def now(self) -> datetime:
        return super().now() + self.by


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FailingStore]:
    opened = FailingStore.open(f"sqlite:///{tmp_path / 'db.sqlite'}")
    assert isinstance(opened, FailingStore)
    opened.create_all()
    yield opened
    opened.away = lambda name: None
    await opened.close()


def times(count: int, names: tuple[str, ...], fault: Exception) -> Callable[[str], Exception | None]:
    """Fail the next `count` transactions of these names."""
    left = [fault] * count
    return lambda called: left.pop() if called in names and left else None


def kind_of(do: Any, tries: int = 4) -> TaskKind[None]:
    return TaskKind("toy", steps=(Step("only", do, deadline_s=5, tries=tries),))


async def begin(store: Store, subject: str = "s") -> None:
    at = SystemClock().now()
    new = {"task_id": SystemIds().uuid(), "kind": "toy", "subject": subject, "payload": {}, "request_id": "r"}
    await store.run(tasks.insert, at=at, **new)  # type: ignore[arg-type]


async def settle(store: Store, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while await store.read(tasks.live_count):
            await asyncio.sleep(0.01)


async def test_a_task_whose_worker_broke_down_passes_on_when_its_lease_ends(store: FailingStore) -> None:
    done: list[int] = []

    async def do(run: Run[None]) -> None:
        done.append(run.epoch)
        if len(done) == 1:
            # Neither "done" nor "to be tried again" can be written: the worker has nowhere to go.
            store.away = times(2, ("_done", "_again_later"), Unavailable())

    engine = Engine(store, SystemClock(), SystemIds(), QUICK, (kind_of(do),), None)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert len(done) == 2
    assert done[1] > done[0]


@pytest.mark.parametrize("fault", [Unavailable(), OSError("disk I/O error")])
@pytest.mark.parametrize("moment", ["has_due", "lease_due", "renew"])
async def test_the_engine_outlives_faults_of_the_database(store: FailingStore, moment: str, fault: Exception) -> None:
    finish = asyncio.Event()
    begun: list[int] = []

    async def do(run: Run[None]) -> None:
        begun.append(run.epoch)
        await finish.wait()

    engine = Engine(store, SystemClock(), SystemIds(), QUICK, (kind_of(do),), None)
    await engine.start()
    if moment != "renew":
        store.away = times(2, (moment,), fault)
    await begin(store)
    async with asyncio.timeout(30):
        while not begun:
            await asyncio.sleep(0.01)
    if moment == "renew":
        store.away = times(1, (moment,), fault)
    await asyncio.sleep(QUICK.lease_s * 1.5)  # the lease must have been renewed at least once to hold so long
    finish.set()
    await settle(store)
    await engine.stop()
    assert len(begun) == 1


async def test_two_engines_share_a_task_that_outlasts_its_lease_without_doing_it_twice(store: FailingStore) -> None:
    begun: list[int] = []

    async def do(run: Run[None]) -> None:
        begun.append(run.epoch)
        await asyncio.sleep(QUICK.lease_s * 2)

    engines = [Engine(store, SystemClock(), SystemIds(), QUICK, (kind_of(do),), None) for _ in range(2)]
    for engine in engines:
        await engine.start()
    await begin(store)
    await settle(store)
    for engine in engines:
        await engine.stop()
    assert len(begun) == 1


async def test_a_clock_that_jumps_forward_repeats_a_step_under_a_new_epoch_and_loses_nothing(
    store: FailingStore,
) -> None:
    clock, begun, ended = JumpingClock(), [], []

    async def do(run: Run[None]) -> None:
        begun.append(run.epoch)
        if len(begun) == 1:
            clock.by += timedelta(hours=1)  # every lease looks as if it had ended long ago
            await asyncio.sleep(5)
        ended.append(run.epoch)

    engine = Engine(store, clock, SystemIds(), QUICK, (kind_of(do),), None)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert ended == begun[1:] == [max(begun)]
