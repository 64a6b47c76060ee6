"""Runs tasks: leases what is due, does one step after the other, undoes what failed.

A worker holds a lease on its task and prolongs it; if it dies, the lease passes on and another worker
continues from the last committed step. Every commit is guarded by the task's epoch, so a worker that
lost its lease (or whose task was superseded) cannot write, and stops.

`wake` is only a hint. A sweep finds due tasks without it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

import msgspec.structs

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.log import bind, get_logger
from kilonova.model.errors import (
    ClaimLost,
    CloudError,
    HypervisorUnavailable,
    NetworkFailed,
    RemoteFault,
    StaleEpoch,
    Unavailable,
    WorkersDied,
)
from kilonova.model.task import Failure, StepRecord, Task
from kilonova.store.engine import Store
from kilonova.store.queries import tasks
from kilonova.store.queries.tasks import LeaseLost
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import LastResort, Run, Step, TaskKind, Write
from kilonova.tasks.limits import with_limits
from kilonova.tasks.metrics import TaskMetrics

S = TypeVar("S")
log = get_logger(__name__)

PASSING = (Unavailable, HypervisorUnavailable, NetworkFailed, ClaimLost)
"""Faults after which the same step may be tried again."""

_WORDS = 4000
"""Characters that are kept of each text of a failure."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """``[tasks]`` of kilonova.conf."""

    section: ClassVar[str] = "tasks"

    lease_s: float = 15.0
    """Seconds after which the tasks of a dead worker pass on to another."""

    sweep_interval_s: float = 1.0
    """Seconds between two looks for due tasks, when no bell rings."""

    max_running: int = 200
    """Tasks that one worker has in hand at most."""

    retry_base_s: float = 0.5
    """Seconds before the first repetition of a step after a passing fault; doubles with each further one."""

    limits: tuple[str, ...] = ()
    """Steps that may take longer, or be tried more often, than usual: `server.boot.spawn=1800/6`, which is seconds for
    each try, and tries. The steps are those that the fault of a failed server names."""

    max_take_overs: int = 20
    """Workers that may die in one try of a step, one after the other, before the step counts as failed: what kills its
    worker each time comes to an end, too."""

    keep_finished_days: float = 30.0
    """Days after which the record of an ended task is forgotten."""


def _nothing_more(tx: Tx, run: Run[Any], failure: Failure) -> None:
    """The task ends; nothing else is written."""


class Engine(Generic[S]):
    """One worker of tasks. Any number of them may share a database."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        options: TaskOptions,
        kinds: tuple[TaskKind[S], ...],
        services: S,
        metrics: TaskMetrics | None = None,
        *,
        last_resort: LastResort[S] = _nothing_more,
    ) -> None:
        """
        Args:
            last_resort: writes the end of a task whose kind cannot write it, which is a defect of the kind. What the
                first step's undo would write goes with that end: what it took stays taken until the subject is deleted.
        """
        self._metrics = metrics or TaskMetrics()
        self._last_resort = last_resort
        self._store = store
        self._clock = clock
        self._ids = ids
        self._options = options
        self._kinds: Mapping[str, TaskKind[S]] = {kind.name: kind for kind in with_limits(kinds, options.limits)}
        self._services = services
        self.owner = ids.uuid()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, _Worker[S]] = {}
        self._awake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self, *, alone: bool = False) -> None:
        """Begin to work. With `alone` nobody else works on this database, so all old leases are void."""
        if alone:
            freed = await self._store.run(tasks.release_leases)
            if freed:
                log.info("tasks taken over from an earlier run", tasks=freed)
        self._loops = [
            asyncio.create_task(self._lease_forever(), name="tasks.lease"),
            asyncio.create_task(self._renew_forever(), name="tasks.renew"),
        ]

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Take no new tasks, let running steps end for up to `drain_s` seconds, then let go.

        What is cut off is continued by another worker, or by this one after its next start.
        """
        self._stopping = True
        self._awake.set()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain_s)
        for task in [*self._running.values(), *self._loops]:
            task.cancel()
        await asyncio.gather(*self._running.values(), *self._loops, return_exceptions=True)

    def wake(self) -> None:
        """There may be due tasks."""
        self._awake.set()

    def inspect(self) -> list[str]:
        """Ids of the tasks in hand."""
        return sorted(self._running)

    def look(self) -> list[dict[str, object]]:
        """The tasks in hand, oldest first, as an operator wants to see them."""
        now = self._clock.now()
        return [
            {
                "task": worker.task.id,
                "kind": worker.task.kind,
                "subject": worker.task.subject,
                "step": worker.step_name,
                "undoing": worker.task.undoing,
                "attempt": worker.task.attempt,
                "tries": worker.task.tries,
                "seconds": (now - worker.since).total_seconds(),
            }
            for worker in self._workers.values()
        ]

    # ---- leases -------------------------------------------------------------------------------------

    async def _lease_forever(self) -> None:
        while not self._stopping:
            self._awake.clear()
            room = self._options.max_running - len(self._running)
            leased: list[Task] = []
            if room > 0:
                try:
                    leased = await self._lease(room)
                except Unavailable as error:
                    log.warning("cannot look for due tasks", cause=str(error))
                except Exception:  # this loop is the only one that begins work: it outlives any fault of the database
                    log.exception("cannot look for due tasks")
            for task in leased:
                self._launch(task)
            if len(leased) < room or room <= 0:
                await self._wait_for_bell()

    async def _lease(self, room: int) -> list[Task]:
        now = self._clock.now()
        # A look without the write lock first: most sweeps find nothing.
        due = await self._store.read(tasks.has_due, now=now, kinds=tuple(self._kinds))
        if not due:
            return []
        until = now + timedelta(seconds=self._options.lease_s)
        return await self._store.run(
            tasks.lease_due, owner=self.owner, now=now, until=until, limit=room, kinds=tuple(self._kinds)
        )

    async def _wait_for_bell(self) -> None:
        bell = asyncio.ensure_future(self._awake.wait())
        timer = asyncio.ensure_future(self._clock.sleep(self._options.sweep_interval_s))
        try:
            await asyncio.wait((bell, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()
            timer.cancel()

    def _launch(self, task: Task) -> None:
        if task.id in self._running:  # the earlier run of it lost its lease and is about to find out
            self._running[task.id].cancel()
        running = asyncio.create_task(self._work(task), name=f"task.{task.kind}.{task.subject}")
        self._running[task.id] = running
        running.add_done_callback(lambda done: self._ended(task.id, done))

    def _ended(self, task_id: str, done: asyncio.Task[None]) -> None:
        if self._running.get(task_id) is done:
            del self._running[task_id]
        if not done.cancelled() and done.exception() is not None:
            log.error("task worker failed", task=task_id, exc_info=done.exception())
        if not self._stopping:
            self._awake.set()

    async def _renew_forever(self) -> None:
        while True:
            await self._clock.sleep(self._options.lease_s / 3)
            # Only what is really in hand: a task whose worker broke down must pass on to another.
            held = dict(self._running)
            if not held:
                continue
            until = self._clock.now() + timedelta(seconds=self._options.lease_s)
            try:
                mine = await self._store.run(tasks.renew, owner=self.owner, task_ids=held.keys(), until=until)
            except Unavailable as error:
                log.warning("cannot renew leases", cause=str(error))
                continue
            except Exception:
                log.exception("cannot renew leases")
                continue
            for task_id in held.keys() - mine:
                if self._running.get(task_id) is held[task_id]:
                    held[task_id].cancel()

    # ---- one task -----------------------------------------------------------------------------------

    async def _work(self, task: Task) -> None:
        with bind(request_id=task.request_id, server=task.subject, task=task.kind):
            worker = _Worker(
                task,
                self._kinds[task.kind],
                self._store,
                self._clock,
                self._ids,
                self._options,
                self._services,
                self._metrics,
                self._last_resort,
            )
            self._workers[task.id] = worker
            try:
                await worker.run_to_the_end()
            except LeaseLost:
                log.info("task is in other hands now", step=worker.step_name)
            finally:
                if self._workers.get(task.id) is worker:
                    del self._workers[task.id]


class _PutBack(Exception):
    """The task waits for its next try, in nobody's hands."""


class _Worker(Generic[S]):
    """Carries one leased task through its steps."""

    def __init__(
        self,
        task: Task,
        kind: TaskKind[S],
        store: Store,
        clock: Clock,
        ids: Ids,
        options: TaskOptions,
        services: S,
        metrics: TaskMetrics,
        last_resort: LastResort[S],
    ) -> None:
        self._task = task
        self._metrics = metrics
        self._last_resort = last_resort
        self._kind = kind
        self._store = store
        self._clock = clock
        self._ids = ids
        self._options = options
        self._services = services
        self._finished = False
        self.since = clock.now()

    @property
    def task(self) -> Task:
        """The task as it is now."""
        return self._task

    @property
    def step_name(self) -> str:
        return self._kind.steps[self._task.step].name if self._task.step < len(self._kind.steps) else "end"

    def _run(self) -> Run[S]:
        task = self._task
        return Run(
            task_id=task.id,
            subject=task.subject,
            payload=task.payload,
            epoch=task.epoch,
            attempt=task.attempt,
            request_id=task.request_id,
            services=self._services,
            clock=self._clock,
            ids=self._ids,
            failure=task.failure,
        )

    async def run_to_the_end(self) -> None:
        try:
            while not self._finished:
                await (self._undo() if self._task.undoing else self._do())
        except _PutBack:
            return

    async def _do(self) -> None:
        step = self._kind.steps[self._task.step]
        started = self._clock.now()
        try:
            self._refuse_what_kills()
            async with asyncio.timeout(step.deadline_s):
                write = await step.do(self._run())
            await self._commit("done", self._done, step, write, started)
        except _PutBack:
            raise
        except (LeaseLost, StaleEpoch):
            raise LeaseLost(self._task.id) from None
        except Exception as error:
            await self._failed(step, error, started)
        else:
            log.info("step done", step=step.name, host=self._run().host)

    async def _failed(self, step: Step[S], error: Exception, started: datetime) -> None:
        failure = _describe(error, step.name, self._run().host)
        tries = self._task.tries + 1
        may_pass = isinstance(error, PASSING) or (step.insists and not isinstance(error, WorkersDied))
        if may_pass and tries < step.tries:
            log.info("step is tried again", step=step.name, cause=failure.message, tries=tries)
            pause = self._pause(tries) if not isinstance(error, ClaimLost) else 0.0
            await self._commit("retry", self._again_later, step, failure, started, tries, pause)
        elif step.may_fail:
            log.warning("step failed; the task goes on", step=step.name, cause=failure.message)
            await self._commit("failed", self._done, step, None, started, failure)
        else:
            known = isinstance(error, CloudError | TimeoutError)
            log.warning("step failed", step=step.name, cause=failure.message, exc_info=None if known else error)
            await self._commit("failed", self._turn_back, step, failure, started)

    async def _undo(self) -> None:
        step = self._kind.steps[self._task.step]
        started = self._clock.now()
        try:
            write = None
            self._refuse_what_kills()
            if step.undo is not None:
                async with asyncio.timeout(step.deadline_s):
                    write = await step.undo(self._run())
            await self._commit("undone", self._undone, step, write, started)
        except _PutBack:
            raise
        except (LeaseLost, StaleEpoch):
            raise LeaseLost(self._task.id) from None
        except Exception as error:
            failure = _describe(error, step.name, self._run().host)
            tries = self._task.tries + 1
            if tries < self._kind.undo_tries and not isinstance(error, WorkersDied):
                log.info("undo is tried again", step=step.name, cause=failure.message, tries=tries)
                pause = self._pause(tries)
                await self._commit("retry", self._again_later, step, failure, started, tries, pause)
            else:
                # What remains on the host is found and removed when its agent next compares.
                log.warning("undo is left to the host", step=step.name, cause=failure.message)
                await self._pass_over(step, failure, started)

    async def _pass_over(self, step: Step[S], failure: Failure, started: datetime) -> None:
        try:
            await self._commit("failed", self._undone, step, None, started, failure)
        except (LeaseLost, Unavailable):
            raise
        except Exception as error:
            if self._task.step > 0 or self._task.take_overs == 0:
                raise  # not of the kind's doing, or not surely: another worker tries once more
            log.exception("the end of a task cannot be written as its kind wants it", step=step.name)
            of_kind = _describe(error, step.name, self._run().host)
            await self._commit("failed", self._break_off, step, of_kind, started)

    def _refuse_what_kills(self) -> None:
        """
        Raises:
            WorkersDied: too many died in this step.
        """
        if self._task.take_overs > self._options.max_take_overs:
            raise WorkersDied(take_overs=self._task.take_overs)

    def _pause(self, tries: int) -> float:
        spread: float = 0.75 + self._ids.chance.random() / 2
        return min(30.0, self._options.retry_base_s * 2.0 ** (tries - 1)) * spread

    async def _commit(self, outcome: str, write: Any, step: Step[S], what: Any, started: datetime, *more: Any) -> None:
        now = self._clock.now()
        try:
            task, finished, put_back = await self._store.run(write, now, step, what, started, *more)
        except (Unavailable, LeaseLost):
            # It may be written all the same, now or by a try before, and only the answer be lost.
            written = await self._what_is_written()
            if written is None:
                raise
            task, finished, put_back = written
        self._task, self._finished = task, finished
        self._metrics.step(task.kind, step.name, outcome, seconds=(now - started).total_seconds())
        if finished:
            self._metrics.ended(task.kind, is_well=not task.undoing)
        if put_back:
            raise _PutBack

    async def _what_is_written(self) -> tuple[Task, bool, bool] | None:
        """The task as it stands (ended? put back?), if it is ours still and elsewhere than this worker knows."""
        found = await self._store.read(tasks.standing, self._task.id)
        if found is None:
            return None
        task, outcome, is_in_hand = found
        is_ours = task.epoch == self._task.epoch and outcome != tasks.SUPERSEDED
        if not is_ours or (outcome is None and tasks.stand_alike(task, self._task)):
            return None
        log.info("what was committed is found again", step=self.step_name)
        return task, outcome is not None, outcome is None and not is_in_hand

    # ---- transactions: each returns (the task as it now is, ended?, put back?) ------------------------

    def _done(
        self,
        tx: Tx,
        now: datetime,
        step: Step[S],
        write: Write | None,
        started: datetime,
        gave_up: Failure | None = None,
    ) -> tuple[Task, bool, bool]:
        task = self._task
        payload = self._apply(tx, task, write)
        after = task.step + 1
        result, detail = ("failed", gave_up.message) if gave_up else ("done", "")
        if after == len(self._kind.steps):
            tasks.finish(tx, task, outcome="done", at=now)
            self._record(tx, step, started, now, result, detail)
            return task, True, False
        moved = _moved(task, step=after, payload=payload, tries=0)
        self._store_move(tx, moved)
        self._record(tx, step, started, now, result, detail, host=payload.get("host"))
        return moved, False, False

    def _again_later(
        self,
        tx: Tx,
        now: datetime,
        step: Step[S],
        failure: Failure,
        started: datetime,
        tries: int,
        pause: float,
    ) -> tuple[Task, bool, bool]:
        moved = _moved(self._task, tries=tries)
        self._store_move(tx, moved, due_at=now + timedelta(seconds=pause) if pause else None)
        self._record(tx, step, started, now, "retry", failure.message)
        return moved, False, bool(pause)

    def _turn_back(
        self, tx: Tx, now: datetime, step: Step[S], failure: Failure, started: datetime
    ) -> tuple[Task, bool, bool]:
        moved = _moved(self._task, undoing=True, failure=failure, tries=0)
        self._store_move(tx, moved)
        # What was ordered and is still on its way must not be heard after its undo: that orders under a newer epoch.
        moved = msgspec.structs.replace(moved, epoch=tasks.renew_epoch(tx, moved))
        self._record(tx, step, started, now, "failed", failure.message)
        return moved, False, False

    def _undone(
        self,
        tx: Tx,
        now: datetime,
        step: Step[S],
        write: Write | None,
        started: datetime,
        gave_up: Failure | None = None,
    ) -> tuple[Task, bool, bool]:
        task = self._task
        payload = self._apply(tx, task, write)
        if step.undo is not None:
            self._record(tx, step, started, now, "failed" if gave_up else "done", gave_up.message if gave_up else "")
        if task.step > 0:
            moved = _moved(task, step=task.step - 1, payload=payload, tries=0)
            self._store_move(tx, moved)
            return moved, False, False
        run = dataclasses.replace(self._run(), payload=payload)
        failure = task.failure or Failure(step=step.name, host=run.host, code="task.failed", message="")
        again = self._kind.begin_again(run, failure)
        if again is not None:
            moved = _moved(task, step=0, undoing=False, payload=again, attempt=task.attempt + 1, tries=0)
            self._store_move(tx, moved)
            return moved, False, False
        end = self._kind.failed(run, failure)
        if end is not None:
            end(tx)
        tasks.finish(tx, task, outcome="failed", at=now)  # as everywhere, the task is locked after what it is about
        return task, True, False

    def _break_off(
        self, tx: Tx, now: datetime, step: Step[S], failure: Failure, started: datetime
    ) -> tuple[Task, bool, bool]:
        task = self._task
        self._last_resort(tx, self._run(), failure)
        self._record(tx, step, started, now, "failed", failure.message)
        tasks.finish(tx, task, outcome="failed", at=now)
        return task, True, False

    def _apply(self, tx: Tx, task: Task, write: Write | None) -> Mapping[str, Any]:
        more = write(tx) if write is not None else None
        return {**task.payload, **more} if more else task.payload

    def _store_move(self, tx: Tx, moved: Task, due_at: datetime | None = None) -> None:
        tasks.advance(
            tx,
            self._task,
            step=moved.step,
            undoing=moved.undoing,
            payload=moved.payload,
            attempt=moved.attempt,
            tries=moved.tries,
            failure=moved.failure,
            due_at=due_at,
        )

    def _record(
        self,
        tx: Tx,
        step: Step[S],
        started: datetime,
        now: datetime,
        result: str,
        detail: str = "",
        host: str | None = None,
    ) -> None:
        task = self._task
        tasks.record_step(
            tx,
            StepRecord(
                task_id=task.id,
                step=step.name,
                undoing=task.undoing,
                attempt=task.attempt,
                host=host or task.payload.get("host"),
                started_at=started,
                finished_at=now,
                result=result,
                detail=detail[:2000],
            ),
        )


def _moved(task: Task, **changes: Any) -> Task:
    return msgspec.structs.replace(task, take_overs=0, **changes)


def _describe(error: Exception, step: str, host: str | None) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(step=step, host=host, code="step.deadline", message="The step did not end in time.")
    told = error if isinstance(error, CloudError) else RemoteFault(type=type(error).__name__, detail=str(error))
    facts = told.facts() if told is error else {}
    return Failure(step=step, host=host, code=told.code, message=_storable(told.message), facts=_storable(facts))


def _storable(value: Any) -> Any:
    """Words that every database takes, whatever a tool printed: no NUL, no half of a character, not without end."""
    if isinstance(value, str):
        return value[:_WORDS].replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(name): _storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
