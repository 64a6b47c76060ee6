"""Task rows: insert, lease, renew, commit a step, end. Knows nothing of what tasks do.

A *subject* (a server's id) has at most one live task. Its epoch grows with every lease, so that whoever
worked on it before can be told from whoever works on it now, here and on the agents.

Whoever takes over from a task, leases it or ends it locks its row first, and the row of its subject after that; what
else a transaction locks, as the server that it is about, comes before both (see `servers.lock`).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.errors import Busy
from kilonova.model.task import Failure, StepRecord, Task
from kilonova.store.tables.servers import servers
from kilonova.store.tables.tasks import task_steps, task_subjects, tasks
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows, update_rows

_t = tasks.c
_s = task_subjects.c


_TAKE_SUBJECT = (
    sa.update(task_subjects)
    .where(_s.subject == sa.bindparam("who"))
    .values(live_task=sa.bindparam("task"), epoch=_s.epoch + 1)
)
_TAKE_FREE_SUBJECT = _TAKE_SUBJECT.where(_s.live_task.is_(None))
_TAKE_SUBJECT_OVER = _TAKE_SUBJECT.where(_s.live_task == sa.bindparam("ended"))
_LIVE_TASK = sa.select(_s.live_task).where(_s.subject == sa.bindparam("who"))


def idle_of(tx: Tx, subjects: Sequence[str]) -> list[str]:
    """Those of `subjects` that had a task once and have none now."""
    found: list[str] = []
    for start in range(0, len(subjects), 500):  # databases limit the length of a list
        some = subjects[start : start + 500]
        found += tx.execute(sa.select(_s.subject).where(_s.subject.in_(some), _s.live_task.is_(None))).scalars()
    return found


SUPERSEDED = "superseded"
"""Outcome of a task whose subject a newer one took over."""


class LeaseLost(Exception):
    """Another worker, or a task that superseded this one, has the subject now; or the task stands elsewhere already.

    Nothing was written.
    """


def insert(
    tx: Tx,
    *,
    task_id: str,
    kind: str,
    subject: str,
    payload: Mapping[str, Any],
    request_id: str,
    at: datetime,
    supersede: bool = False,
) -> None:
    """Record a task that is due now.

    Args:
        supersede: end the subject's live task, if any, in favour of this one.

    Raises:
        Busy: the subject has a live task.
    """
    is_ours = _take_over(tx, subject, task_id, at=at) if supersede else _take_free(tx, subject, task_id)
    if not is_ours:
        raise Busy(subject=subject)
    insert_row(
        tx,
        tasks,
        {
            "id": task_id,
            "kind": kind,
            "subject": subject,
            "step": 0,
            "undoing": False,
            "payload": dict(payload),
            "failure": None,
            "attempt": 1,
            "tries": 0,
            "epoch": 0,
            "due_at": at,
            "request_id": request_id,
            "created_at": at,
        },
    )


def _take_free(tx: Tx, subject: str, task_id: str) -> bool:
    if tx.execute(_TAKE_FREE_SUBJECT, {"who": subject, "task": task_id}).rowcount:
        return True
    return insert_if_absent(tx, task_subjects, {"subject": subject, "epoch": 1, "live_task": task_id})


def _take_over(tx: Tx, subject: str, task_id: str, *, at: datetime) -> bool:
    """Make the subject this task's, and end the one that it had."""
    for _ in range(_LOOKS):
        current = tx.execute(_LIVE_TASK, {"who": subject}).scalar()
        if current is None:
            if _take_free(tx, subject, task_id):
                return True
            continue
        # Whoever works on the old task learns by the epoch that it has lost.
        _end(tx, current, outcome=SUPERSEDED, at=at)
        # Between the look and this moment it may have ended by itself, and another may have begun.
        if tx.execute(_TAKE_SUBJECT_OVER, {"who": subject, "task": task_id, "ended": current}).rowcount:
            return True
    return False


_LOOKS = 10
"""Others who come first, each time since the last look, before one who wants to take over gives way."""


def lease_due(tx: Tx, *, owner: str, now: datetime, until: datetime, limit: int, kinds: Collection[str]) -> list[Task]:
    """Lease up to `limit` tasks that are due and in nobody's hands, oldest first."""
    due, take, leased = _leasing(tuple(kinds), tx.dialect)
    rows = tx.execute(due, {"now": now, "most": limit}).all()
    if not rows:
        return []
    ids = [row.id for row in rows]
    # In order of subjects, so that two workers who bump the same ones wait for each other and do not lock up.
    for subject in sorted({row.subject for row in rows}):
        tx.execute(_BUMP_EPOCH, {"who": subject})
    tx.execute(take, {"tasks": ids, "mine": owner, "ends": until})
    return [_task(row) for row in tx.execute(leased, {"tasks": ids})]


@lru_cache(maxsize=8)
def _leasing(kinds: tuple[str, ...], dialect: str) -> tuple[sa.Select[Any], sa.Update, sa.Select[Any]]:
    """The three statements of `lease_due`: find, take, read."""
    now = sa.bindparam("now", type_=_t.due_at.type)
    due = (
        sa.select(_t.id, _t.subject)
        .where(
            _t.outcome.is_(None),
            _t.due_at <= now,
            sa.or_(_t.lease_until.is_(None), _t.lease_until < now),
            _t.kind.in_(kinds),
        )
        .order_by(_t.due_at)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
    if dialect != "sqlite":  # which has one writer at a time
        due = due.with_for_update(skip_locked=True)
    of_these = _t.id.in_(sa.bindparam("tasks", expanding=True))
    take = (
        sa.update(tasks)
        .where(of_these)
        .values(
            lease_owner=sa.bindparam("mine"),
            lease_until=sa.bindparam("ends", type_=_t.lease_until.type),
            take_overs=sa.case((_t.lease_until.is_(None), _t.take_overs), else_=_t.take_overs + 1),
            epoch=sa.select(_s.epoch).where(_s.subject == _t.subject).scalar_subquery(),
        )
    )
    leased = (
        sa.select(
            _t.id, _t.kind, _t.subject, _t.step, _t.undoing, _t.payload, _t.failure, _t.attempt, _t.tries,
            _t.take_overs, _t.epoch, _t.request_id,
        )
        .where(of_these)
        .order_by(_t.due_at)
    )  # fmt: skip
    return due, take, leased


_BUMP_EPOCH = sa.update(task_subjects).where(_s.subject == sa.bindparam("who")).values(epoch=_s.epoch + 1)


_EPOCH = sa.select(_s.epoch).where(_s.subject == sa.bindparam("who"))


def _task(row: Any) -> Task:
    return Task(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        step=row.step,
        undoing=row.undoing,
        payload=row.payload,
        failure=None if row.failure is None else msgspec.convert(row.failure, Failure),
        attempt=row.attempt,
        tries=row.tries,
        take_overs=row.take_overs,
        epoch=row.epoch,
        request_id=row.request_id,
    )


def renew(tx: Tx, *, owner: str, task_ids: Collection[str], until: datetime) -> set[str]:
    """Prolong the leases of `owner` on these tasks; the ids of those that are still its own."""
    mine = sa.and_(_t.id.in_(task_ids), _t.lease_owner == owner, _t.outcome.is_(None))
    tx.execute(sa.update(tasks).where(mine).values(lease_until=until))
    return {row.id for row in tx.execute(sa.select(_t.id).where(mine))}


def standing(tx: Tx, task_id: str) -> tuple[Task, str | None, bool] | None:
    """A task as it stands, its outcome if it has ended, and whether a worker has it in hand. None: there is none."""
    row = select_rows(tx, tasks, {"id": task_id}).first()
    return None if row is None else (_task(row), row.outcome, row.lease_owner is not None)


def stand_alike(one: Task, other: Task) -> bool:
    """Whether a task is at the same place in both."""
    return all(getattr(one, name) == getattr(other, name) for name in _PLACE)


def release_leases(tx: Tx) -> int:
    """Free every lease. Only for a process that knows that no other worker lives (one process, one database)."""
    return tx.execute(
        sa.update(tasks)
        .where(_t.outcome.is_(None), _t.lease_owner.is_not(None))
        .values(lease_owner=None, lease_until=None, take_overs=_t.take_overs + 1)
    ).rowcount


def advance(
    tx: Tx,
    task: Task,
    *,
    step: int,
    undoing: bool,
    payload: Mapping[str, Any],
    attempt: int,
    tries: int = 0,
    failure: Failure | None = None,
    due_at: datetime | None = None,
) -> None:
    """Move a task on from where `task` has it. With `due_at` it is put back until then, in nobody's hands.

    Raises:
        LeaseLost
    """
    values: dict[str, Any] = {
        "step": step,
        "undoing": undoing,
        "payload": dict(payload),
        "attempt": attempt,
        "tries": tries,
        "take_overs": 0,
        "failure": None if failure is None else msgspec.to_builtins(failure),
    }
    if due_at is not None:
        values |= {"due_at": due_at, "lease_owner": None, "lease_until": None}
    _guarded(tx, task, values)


def renew_epoch(tx: Tx, task: Task) -> int:
    """Give a leased task a new epoch: whatever was ordered for it before is refused by who hears of this one.

    To be called after `advance`, which locks the task.
    """
    tx.execute(_BUMP_EPOCH, {"who": task.subject})
    epoch: int = tx.execute(_EPOCH, {"who": task.subject}).scalar_one()
    update_rows(tx, tasks, {"id": task.id}, {"epoch": epoch})
    return epoch


def finish(tx: Tx, task: Task, *, outcome: str, at: datetime) -> None:
    """End a task; its subject is free for the next.

    Raises:
        LeaseLost
    """
    _guarded(
        tx,
        task,
        {"outcome": outcome, "finished_at": at, "payload": {}, "lease_owner": None, "lease_until": None},
    )
    update_rows(tx, task_subjects, {"subject": task.subject, "live_task": task.id}, {"live_task": None})


def _guarded(tx: Tx, task: Task, values: Mapping[str, Any]) -> None:
    parameters = {f"new_{name}": value for name, value in values.items()}
    parameters |= {f"from_{name}": getattr(task, name) for name in _PLACE}
    moved = tx.execute(_guarded_update(tuple(values)), {"task": task.id, "of_epoch": task.epoch, **parameters})
    if moved.rowcount == 0:
        raise LeaseLost(task.id)


_PLACE = ("step", "undoing", "attempt", "tries")
"""Where a task stands. A commit that arrives twice, or late, finds it elsewhere and writes nothing."""


@lru_cache(maxsize=64)
def _guarded_update(names: tuple[str, ...]) -> sa.Update:
    return (
        sa.update(tasks)
        .where(
            _t.id == sa.bindparam("task"),
            _t.epoch == sa.bindparam("of_epoch"),
            _t.outcome.is_(None),
            _t.lease_owner.is_not(None),
            *(_t[name] == sa.bindparam(f"from_{name}", type_=_t[name].type) for name in _PLACE),
        )
        .values({name: sa.bindparam(f"new_{name}", type_=_t[name].type) for name in names})
    )


def _end(tx: Tx, task_id: str, *, outcome: str, at: datetime) -> None:
    tx.execute(
        sa.update(tasks)
        .where(_t.id == task_id, _t.outcome.is_(None))
        .values(outcome=outcome, finished_at=at, payload={}, lease_owner=None, lease_until=None)
    )


def record_step(tx: Tx, record: StepRecord) -> None:
    """Write one line of a task's log."""
    insert_row(tx, task_steps, msgspec.structs.asdict(record))


def steps_of(tx: Tx, task_ids: Sequence[str]) -> dict[str, list[StepRecord]]:
    """The logs of some tasks, each in order."""
    logs: dict[str, list[StepRecord]] = {task_id: [] for task_id in task_ids}
    rows = tx.execute(sa.select(task_steps).where(task_steps.c.task_id.in_(task_ids)).order_by(task_steps.c.id))
    for row in rows:
        values = dict(row._mapping)
        del values["id"]
        logs[row.task_id].append(StepRecord(**values))
    return logs


def live_count(tx: Tx) -> int:
    """How many tasks are under way or due."""
    return int(tx.execute(sa.select(sa.func.count()).where(_t.outcome.is_(None))).scalar_one())


def has_due(tx: Tx, *, now: datetime, kinds: Collection[str]) -> bool:
    """Whether `lease_due` would find something."""
    free = sa.or_(_t.lease_until.is_(None), _t.lease_until < now)
    due = sa.select(_t.id).where(_t.outcome.is_(None), _t.due_at <= now, free, _t.kind.in_(kinds)).limit(1)
    return tx.execute(due).first() is not None


def prune(tx: Tx, *, before: datetime, limit: int = 500) -> int:
    """Forget tasks that ended before `before`, with their logs; how many."""
    ids = [
        row.id
        for row in tx.execute(sa.select(_t.id).where(_t.finished_at < before).order_by(_t.finished_at).limit(limit))
    ]
    if ids:
        tx.execute(sa.delete(task_steps).where(task_steps.c.task_id.in_(ids)))
        tx.execute(sa.delete(tasks).where(_t.id.in_(ids)))
    return len(ids)


def prune_subjects(tx: Tx, *, before: datetime, limit: int = 500) -> int:
    """Forget the epochs of servers that were deleted before `before`; how many. Those of others must last."""
    gone = sa.select(servers.c.id).where(servers.c.deleted_at < before)
    subjects = [
        row.subject
        for row in tx.execute(
            sa.select(_s.subject).where(_s.live_task.is_(None), _s.subject.in_(gone)).order_by(_s.subject).limit(limit)
        )
    ]
    if subjects:
        tx.execute(sa.delete(task_subjects).where(_s.subject.in_(subjects), _s.live_task.is_(None)))
    return len(subjects)


def epochs_of(tx: Tx, subjects: Sequence[str]) -> dict[str, int]:
    """The highest epoch of each subject that ever had a task."""
    if not subjects:
        return {}
    rows = tx.execute(sa.select(_s.subject, _s.epoch).where(_s.subject.in_(subjects)))
    return {row.subject: row.epoch for row in rows}
