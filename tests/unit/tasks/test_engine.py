"""The task engine: every step once in effect, undone from where it failed, continued after a kill."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.stores import fresh_store

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.model.errors import Busy, GuestRejected, Unavailable
from kilonova.model.task import Failure
from kilonova.store.engine import Store
from kilonova.store.queries import quotas, tasks
from kilonova.store.transactions import Tx
from kilonova.tasks import engine as engine_module
from kilonova.tasks.engine import Engine, TaskOptions
from kilonova.tasks.kinds import Run, Step, TaskKind, Write

QUICK = TaskOptions(lease_s=0.6, sweep_interval_s=0.02, retry_base_s=0.01)
STEPS = ("one", "two", "three")


class World:
    """What steps do outside, and what is told to go wrong."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.made: set[str] = set()
        self.faults: dict[str, list[Exception]] = {}
        self.hang: dict[str, asyncio.Event] = {}
        self.epochs: list[int] = []

    async def do(self, name: str, run: Run["World"]) -> Write | None:
        self.calls.append(name)
        self.epochs.append(run.epoch)
        if name in self.hang:
            await self.hang[name].wait()
        self.made.add(name)  # half happened, even where it then fails
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        return partial(_count, run.subject, name)

    async def undo(self, name: str, run: Run["World"]) -> Write | None:
        self.calls.append(f"un{name}")
        self.epochs.append(run.epoch)
        if f"un{name}" in self.hang:
            await self.hang[f"un{name}"].wait()
        self.made.discard(name)
        if self.faults.get(f"un{name}"):
            raise self.faults[f"un{name}"].pop(0)
        return partial(_uncount, run.subject, name)


def _count(subject: str, name: str, tx: Tx) -> dict[str, Any]:
    quotas.take(tx, subject, {name: 1})
    return {name: True}


def _uncount(subject: str, name: str, tx: Tx) -> None:
    if quotas.used(tx, subject).get(name):
        quotas.give_back(tx, subject, {name: 1})


def _failed(run: Run[World], failure: Failure) -> Write:
    return lambda tx: quotas.take(tx, run.subject, {f"failed.{failure.step}": 1})


def a_kind(**options: Any) -> TaskKind[World]:
    return TaskKind(
        "toy",
        steps=tuple(
            Step(
                name,
                partial(_do, name),
                undo=partial(_undo, name),
                deadline_s=5,
            )
            for name in STEPS
        ),
        failed=_failed,
        **options,
    )


async def _do(name: str, run: Run[World]) -> Write | None:
    return await run.services.do(name, run)


async def _undo(name: str, run: Run[World]) -> Write | None:
    return await run.services.undo(name, run)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = fresh_store(tmp_path)
    yield store
    await store.close()


def an_engine(
    store: Store,
    world: World,
    kind: TaskKind[World] | None = None,
    options: TaskOptions = QUICK,
    **more: Any,
) -> Engine[World]:
    return Engine(store, SystemClock(), SystemIds(), options, (kind or a_kind(),), world, **more)


def with_step(name: str, **changes: Any) -> TaskKind[World]:
    """The toy kind, one step of which is otherwise."""
    kind = a_kind()
    steps = tuple(replace(step, **changes) if step.name == name else step for step in kind.steps)
    return replace(kind, steps=steps)


async def begin(store: Store, subject: str = "s1", *, supersede: bool = False) -> str:
    task_id = SystemIds().uuid()
    await store.run(
        tasks.insert,
        task_id=task_id,
        kind="toy",
        subject=subject,
        payload={},
        request_id="req-1",
        at=SystemClock().now(),
        supersede=supersede,
    )
    return task_id


async def settle(store: Store, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while await store.read(tasks.live_count):
            await asyncio.sleep(0.01)


async def kill(engine: Engine[World]) -> None:
    """As kill -9 leaves it: the lease stays, nothing is told."""
    for task in [*engine._running.values(), *engine._loops]:
        task.cancel()
    await asyncio.gather(*engine._running.values(), *engine._loops, return_exceptions=True)


async def test_steps_run_in_order_and_each_is_logged_once(store: Store) -> None:
    world = World()
    engine = an_engine(store, world)
    await engine.start()
    task_id = await begin(store)
    engine.wake()
    await settle(store)
    await engine.stop()
    assert world.calls == list(STEPS)
    log = (await store.read(tasks.steps_of, [task_id]))[task_id]
    assert [(line.step, line.result) for line in log] == [(name, "done") for name in STEPS]
    assert await store.read(quotas.used, "s1") == dict.fromkeys(STEPS, 1)


@pytest.mark.parametrize("failing", STEPS)
async def test_a_failed_step_is_undone_from_itself_upwards(store: Store, failing: str) -> None:
    world = World()
    world.faults[failing] = [GuestRejected("no")]
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    begun = STEPS[: STEPS.index(failing) + 1]
    assert world.calls == [*begun, *(f"un{name}" for name in reversed(begun))]
    assert world.made == set()
    used = await store.read(quotas.used, "s1")
    assert used.pop(f"failed.{failing}") == 1
    assert not any(used.values())


async def test_an_undo_has_a_newer_epoch_than_what_it_undoes(store: Store) -> None:
    world = World()
    world.faults["two"] = [GuestRejected("no")]
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls == ["one", "two", "untwo", "unone"]
    done, failed, *undone = world.epochs
    assert done == failed < undone[0] == undone[1]
    assert await store.read(tasks.epochs_of, ["s1"]) == {"s1": undone[1]}


@pytest.mark.parametrize("step", STEPS)
async def test_a_passing_fault_is_tried_again(store: Store, step: str) -> None:
    world = World()
    world.faults[step] = [Unavailable("not now"), Unavailable("not now")]
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls.count(step) == 3
    assert await store.read(quotas.used, "s1") == dict.fromkeys(STEPS, 1)


async def test_a_passing_fault_that_does_not_pass_ends_the_task(store: Store) -> None:
    world = World()
    world.faults["two"] = [Unavailable("not now") for _ in range(50)]
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert (await store.read(quotas.used, "s1"))["failed.two"] == 1


async def test_an_undo_that_fails_is_tried_again_and_in_the_end_left(store: Store) -> None:
    world = World()
    world.faults["three"] = [GuestRejected("no")]
    world.faults["untwo"] = [RuntimeError("odd") for _ in range(50)]
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls.count("untwo") == a_kind().undo_tries
    assert world.calls[-1] == "unone"


async def test_a_step_that_insists_is_tried_again_whatever_it_met(store: Store) -> None:
    world = World()
    world.faults["two"] = [RuntimeError("odd"), GuestRejected("no"), TimeoutError()]
    engine = an_engine(store, world, with_step("two", insists=True, tries=4))
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls == ["one", "two", "two", "two", "two", "three"]


async def test_a_task_goes_on_without_a_step_that_may_fail(store: Store) -> None:
    world = World()
    world.faults["two"] = [Unavailable("not now") for _ in range(50)]
    engine = an_engine(store, world, with_step("two", may_fail=True))
    await engine.start()
    task_id = await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls == ["one", "two", "two", "two", "two", "three"]
    assert await store.read(quotas.used, "s1") == {"one": 1, "three": 1}
    [log] = (await store.read(tasks.steps_of, [task_id])).values()
    assert [(record.step, record.result) for record in log][-2:] == [("two", "failed"), ("three", "done")]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("step", ["two", "untwo"])
async def test_what_kills_its_worker_each_time_comes_to_an_end(store: Store, step: str, alone: bool) -> None:
    """A process that is the only one frees its old lease at its start; of several, the next one waits for its end."""
    world = World()
    world.hang[step] = asyncio.Event()
    if step == "untwo":
        world.faults["three"] = [GuestRejected("no")]
    await begin(store)
    options = replace(QUICK, lease_s=0.3, max_take_overs=2)
    for _ in range(3):
        world.calls.clear()
        engine = an_engine(store, world, options=options)
        await engine.start(alone=alone)
        async with asyncio.timeout(5):
            while step not in world.calls:
                await asyncio.sleep(0.01)
        await kill(engine)
    world.calls.clear()
    engine = an_engine(store, world, options=options)
    await engine.start(alone=alone)
    await settle(store)
    await engine.stop()
    assert step not in world.calls and world.calls[-1] == "unone"
    assert (await store.read(quotas.used, "s1"))[f"failed.{'two' if step == 'two' else 'three'}"] == 1


@pytest.mark.parametrize("end", ["failed", "begin_again"])
async def test_a_kind_that_cannot_write_its_end_is_ended_by_the_last_resort(store: Store, end: str) -> None:
    def broken(run: Run[World], failure: Failure) -> Any:
        raise KeyError("payload")

    world = World()
    world.faults["two"] = [GuestRejected("no")]
    kind = replace(a_kind(), **{end: broken})
    engine = an_engine(store, world, kind, last_resort=_last_resort)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.made == set()
    # What is written with the end of the undoing goes with that end: the room is given back by the delete.
    assert await used(store) == {"last resort: rpc.remote_fault": 1, "one": 1}


def _once(store: Store, monkeypatch: pytest.MonkeyPatch, write: str, fault: Exception, *, written: bool) -> None:
    """The first transaction of the engine's `write` meets `fault`, before or after it is durable."""
    run = store.run
    faults = [fault]

    async def unreliable(fn: Any, *args: Any, **kwargs: Any) -> Any:
        is_it = faults and getattr(fn, "__name__", "") == write
        if not is_it or written:
            answer = await run(fn, *args, **kwargs)
        if is_it:
            raise faults.pop()
        return answer

    monkeypatch.setattr(store, "run", unreliable)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("write", ["_done", "_again_later", "_turn_back", "_undone"])
async def test_an_answer_of_the_database_that_is_lost_repeats_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, write: str, written: bool
) -> None:
    """What was written is found again, and the task goes on from there; what was not is done once more."""
    _once(store, monkeypatch, write, Unavailable("It is not known whether it was written."), written=written)
    world = World()
    world.faults["two"] = [Unavailable("later")]
    world.faults["three"] = [] if write in ("_done", "_again_later") else [GuestRejected("no")]
    engine = an_engine(store, world, options=replace(QUICK, lease_s=1.5))
    await engine.start()
    task_id = await begin(store)
    await settle(store)
    await engine.stop()
    log = (await store.read(tasks.steps_of, [task_id]))[task_id]
    done = [(record.step, record.undoing) for record in log if record.result == "done"]
    there = [("one", False), ("two", False)]
    assert done == (
        [*there, ("three", False)] if world.made else [*there, ("three", True), ("two", True), ("one", True)]
    )
    if written and write == "_done":
        assert world.calls == ["one", "two", "two", "three"]


async def test_an_error_of_the_database_in_the_middle_of_undoing_ends_no_task(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undoing is passed over for the step that cannot be undone, never for those before it."""
    world = World()
    world.faults = {"three": [GuestRejected("no")], "unthree": [GuestRejected("no")] * 4}
    engine = an_engine(store, world, last_resort=_last_resort)
    pass_over = engine_module._Worker._pass_over

    async def in_trouble(self: Any, *args: Any) -> None:
        _once(store, monkeypatch, "_undone", RuntimeError("The disk is full."), written=False)
        monkeypatch.setattr(engine_module._Worker, "_pass_over", pass_over)
        await pass_over(self, *args)

    monkeypatch.setattr(engine_module._Worker, "_pass_over", in_trouble)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls[-2:] == ["untwo", "unone"]
    assert await used(store) == {"failed.three": 1}


async def test_a_store_that_is_away_at_the_end_is_not_the_kinds_defect(store: Store) -> None:
    world = World()
    world.faults["two"] = [GuestRejected("no")]
    away = [Unavailable("the database is away")] * 6

    def failed(run: Run[World], failure: Failure) -> Write:
        if away:
            raise away.pop()
        return _failed(run, failure)

    engine = an_engine(store, world, replace(a_kind(), failed=failed), replace(QUICK, lease_s=0.1))
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert (await store.read(quotas.used, "s1"))["failed.two"] == 1


@pytest.mark.parametrize("words", ["a\0b", "half \ud83d", "long " * 100_000])
async def test_whatever_a_tool_says_can_be_written_down(store: Store, words: str) -> None:
    world = World()
    world.faults["two"] = [GuestRejected(words)]
    kind = replace(a_kind(), failed=lambda run, failure: lambda tx: _words_told(tx, run.subject, failure.message))
    engine = an_engine(store, world, kind)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert await used(store) == {"words": 1}


async def used(store: Store) -> dict[str, int]:
    return {name: count for name, count in (await store.read(quotas.used, "s1")).items() if count}


def _last_resort(tx: Tx, run: Run[World], failure: Failure) -> None:
    quotas.take(tx, run.subject, {f"last resort: {failure.code}": 1})


def _words_told(tx: Tx, subject: str, words: str) -> None:
    assert words and len(words) <= 4000 and "\0" not in words
    quotas.take(tx, subject, {"words": 1})


async def test_it_begins_again_if_the_kind_wants(store: Store) -> None:
    world = World()
    world.faults["two"] = [GuestRejected("bad host")]
    kind = a_kind(begin_again=lambda run, failure: {"second": True} if run.attempt < 3 else None)
    engine = an_engine(store, world, kind)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert world.calls == ["one", "two", "untwo", "unone", "one", "two", "three"]
    assert "failed.two" not in await store.read(quotas.used, "s1")


@pytest.mark.parametrize("step", STEPS)
async def test_another_worker_continues_after_a_kill(store: Store, step: str) -> None:
    world = World()
    world.hang[step] = asyncio.Event()
    first = an_engine(store, world)
    await first.start()
    await begin(store)
    while step not in world.calls:
        await asyncio.sleep(0.01)
    await kill(first)
    del world.hang[step]
    second = an_engine(store, world)
    await second.start()
    await settle(store)
    await second.stop()
    assert world.calls.count(step) == 2
    assert [name for name in world.calls if name != step] == [name for name in STEPS if name != step]
    assert await store.read(quotas.used, "s1") == dict.fromkeys(STEPS, 1)
    assert world.epochs == sorted(world.epochs)
    assert world.epochs[-1] > world.epochs[0]


async def test_a_worker_that_lost_its_lease_cannot_write(store: Store) -> None:
    world = World()
    gate = world.hang["two"] = asyncio.Event()
    slow = an_engine(store, world)
    await slow.start()
    await begin(store)
    while "two" not in world.calls:
        await asyncio.sleep(0.01)
    slow._loops[1].cancel()  # it no longer renews: its machine sleeps
    quick = an_engine(store, world)
    await quick.start()
    while world.calls.count("two") < 2:
        await asyncio.sleep(0.01)
    gate.set()
    await settle(store)
    await asyncio.gather(slow.stop(), quick.stop())
    assert await store.read(quotas.used, "s1") == dict.fromkeys(STEPS, 1)


async def test_a_long_step_keeps_its_lease(store: Store) -> None:
    world = World()
    gate = world.hang["two"] = asyncio.Event()
    patient = replace(QUICK, lease_s=2.0)  # renewed every 0.7 s: a machine that is busy for a second harms nobody
    engine, rival = an_engine(store, world, options=patient), an_engine(store, world, options=patient)
    await engine.start()
    await begin(store)
    while "two" not in world.calls:
        await asyncio.sleep(0.01)
    await rival.start()
    await asyncio.sleep(1.5 * patient.lease_s)
    gate.set()
    await settle(store)
    await asyncio.gather(engine.stop(), rival.stop())
    assert world.calls == list(STEPS)


async def test_one_subject_has_one_live_task(store: Store) -> None:
    await begin(store)
    with pytest.raises(Busy):
        await begin(store)
    await begin(store, "another")


async def test_a_superseding_task_takes_over_and_the_old_one_cannot_write(store: Store) -> None:
    world = World()
    gate = world.hang["two"] = asyncio.Event()
    engine = an_engine(store, world)
    await engine.start()
    await begin(store)
    while "two" not in world.calls:
        await asyncio.sleep(0.01)
    await begin(store, supersede=True)
    gate.set()
    await settle(store)
    await engine.stop()
    # The first wrote "one" and lost "two"; the second did all three.
    assert await store.read(quotas.used, "s1") == {"one": 2, "two": 1, "three": 1}


async def test_a_step_over_its_deadline_fails_the_task(store: Store) -> None:
    world = World()
    world.hang["two"] = asyncio.Event()
    step = Step("two", partial(_do, "two"), undo=partial(_undo, "two"), deadline_s=0.05)
    kind = TaskKind("toy", steps=(step,), failed=_failed)
    engine = an_engine(store, world, kind)
    await engine.start()
    await begin(store)
    await settle(store)
    await engine.stop()
    assert (await store.read(quotas.used, "s1"))["failed.two"] == 1


async def test_workers_share_many_tasks_and_do_each_once(store: Store) -> None:
    worlds = [World(), World(), World()]
    engines = [an_engine(store, world, options=replace(QUICK, lease_s=5.0)) for world in worlds]
    for number in range(60):
        await begin(store, f"s{number}")
    for engine in engines:
        await engine.start()
    await settle(store, 30)
    await asyncio.gather(*(engine.stop() for engine in engines))
    assert sum(len(world.calls) for world in worlds) == 60 * len(STEPS)
    for number in range(60):
        assert await store.read(quotas.used, f"s{number}") == dict.fromkeys(STEPS, 1)


async def test_alone_takes_over_at_once_without_waiting_for_the_lease(store: Store) -> None:
    world = World()
    world.hang["two"] = asyncio.Event()
    long_lease = TaskOptions(lease_s=3600, sweep_interval_s=0.02)
    first = Engine(store, SystemClock(), SystemIds(), long_lease, (a_kind(),), world)
    await first.start()
    await begin(store)
    while "two" not in world.calls:
        await asyncio.sleep(0.01)
    await kill(first)
    world.hang.clear()
    second = Engine(store, SystemClock(), SystemIds(), long_lease, (a_kind(),), world)
    await second.start(alone=True)
    await settle(store)
    await second.stop()
    assert world.calls == ["one", "two", "two", "three"]


async def test_finished_tasks_are_forgotten_after_their_time(store: Store) -> None:
    world = World()
    engine = an_engine(store, world)
    await engine.start()
    task_id = await begin(store)
    await settle(store)
    await engine.stop()
    assert await store.run(tasks.prune, before=SystemClock().now()) == 1
    assert await store.read(tasks.steps_of, [task_id]) == {task_id: []}
