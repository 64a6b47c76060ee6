"""A task's row, and the record of a step."""

from datetime import datetime
from typing import Any

import msgspec


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, where: becomes the server's fault."""

    step: str
    host: str | None
    code: str
    """Of the error, see `kilonova.model.errors`."""
    message: str
    facts: dict[str, Any] = {}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A live task, as its worker sees it. `payload` is what its steps hand on to one another."""

    id: str
    kind: str
    subject: str
    step: int
    undoing: bool
    payload: dict[str, Any]
    failure: Failure | None
    attempt: int
    tries: int
    take_overs: int
    """Workers whose lease ended before they could say what became of the step that is next."""
    epoch: int
    request_id: str


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step that was done, failed, or will be tried again."""

    task_id: str
    step: str
    undoing: bool
    attempt: int
    host: str | None
    started_at: datetime
    finished_at: datetime
    result: str
    detail: str
