"""How a kind of task is written down: steps, undo, and how it ends.

A step does its work outside and *returns what to write*: a plain function of the transaction. The
engine commits that write together with "this step is done", guarded by the task's epoch. The write may
return a mapping; it is merged into the task's payload in the same commit.

Undo runs upwards, beginning with the step that failed, for it may have half happened.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.model.task import Failure
from kilonova.store.transactions import Tx

S = TypeVar("S")

Write = Callable[[Tx], Mapping[str, Any] | None]


@dataclass
class Run(Generic[S]):
    """One task in the hands of a worker.

    Attributes:
        payload: what earlier steps wrote; read it, do not change it.
        epoch: goes with every command to an agent.
        attempt: of the whole task, from 1.
        services: what steps work with; the engine does not look inside.
        failure: why it is undone; None while it goes on.
    """

    task_id: str
    subject: str
    payload: Mapping[str, Any]
    epoch: int
    attempt: int
    request_id: str
    services: S
    clock: Clock
    ids: Ids
    failure: Failure | None = None

    @property
    def host(self) -> str | None:
        """Where the task's work happens, once a step has put it in the payload; told with steps and failures."""
        host: str | None = self.payload.get("host")
        return host


StepFunction = Callable[[Run[S]], Awaitable[Write | None]]

LastResort = Callable[[Tx, Run[S], Failure], None]


@dataclass(frozen=True)
class Step(Generic[S]):
    """One step. Both functions can be called twice with the effect of once.

    Attributes:
        deadline_s: seconds after which one try of `do` or `undo` is given up.
        tries: how often a passing fault (503, hypervisor unavailable, a network that cannot be set up, a lost claim) is
            tried before the task fails.
        insists: any fault is tried again, not only one that may pass.
        may_fail: when it was tried often enough, the task goes on without it.
    """

    name: str
    do: StepFunction[S]
    undo: StepFunction[S] | None = None
    deadline_s: float = 60.0
    tries: int = 4
    insists: bool = False
    may_fail: bool = False


def _no_payload(run: Run[Any], failure: Failure) -> Mapping[str, Any] | None:
    return None


def _no_write(run: Run[Any], failure: Failure) -> Write | None:
    return None


@dataclass(frozen=True)
class TaskKind(Generic[S]):
    """A kind of task. Its name and its steps' names are stored data: they are not renamed.

    Attributes:
        begin_again: asked when all is undone: the payload with which to begin anew, or None to end.
        failed: what to write when the task ends without success.
        undo_tries: how often an undo is tried before it is left to the agents' own reconciling.
    """

    name: str
    steps: tuple[Step[S], ...]
    begin_again: Callable[[Run[S], Failure], Mapping[str, Any] | None] = field(default=_no_payload)
    failed: Callable[[Run[S], Failure], Write | None] = field(default=_no_write)
    undo_tries: int = 4
