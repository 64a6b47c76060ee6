"""Whether servers change by the table of states, and tasks change hands as told: from one look to the next."""

from collections.abc import Iterator, Sequence
from typing import Final

from kilonova.conductor.invariants import AT_REST, Violation
from kilonova.model.states import RULES, TaskState, VMState
from kilonova.sim.database import Change
from kilonova.store.queries.invariants import Books

State = tuple[VMState, TaskState | None]

_LATER: Final = {TaskState.REBUILD_SPAWNING: TaskState.REBUILDING}
"""What follows on the beginning of an action, while it goes on."""

_BUILD: Final = (TaskState.SCHEDULING, TaskState.NETWORKING, TaskState.SPAWNING)


def is_allowed(before: State | None, after: State | None) -> bool:
    """Whether one transaction may take a server from a state to another. None: it is not there."""
    if before == after:
        return True
    if before is None:
        return after == (VMState.BUILDING, TaskState.SCHEDULING)
    if after is None:
        return before[1] is TaskState.DELETING
    (vm_state, task_state), (new_vm_state, new_task_state) = before, after
    if new_task_state is not None and vm_state is new_vm_state:  # something begins, or a build goes on
        if vm_state is VMState.BUILDING and task_state in _BUILD and new_task_state in _BUILD:
            return True
        if task_state is not None and _LATER.get(new_task_state) is task_state:
            return True
        return any(
            rule.during is new_task_state and vm_state in rule.allowed and (task_state is None or rule.during_task)
            for rule in RULES.values()
        )
    if new_task_state is not None:
        return False
    if task_state is None:  # the hypervisor was found otherwise than recorded
        return vm_state in AT_REST and (new_vm_state in AT_REST or new_vm_state is VMState.ERROR)
    if task_state in _BUILD:
        return new_vm_state in (VMState.ACTIVE, VMState.ERROR)
    if task_state is TaskState.DELETING:
        return new_vm_state is VMState.ERROR
    if task_state in (TaskState.REBUILDING, TaskState.REBUILD_SPAWNING) and new_vm_state in (*AT_REST, VMState.ERROR):
        return True
    return new_vm_state is vm_state or any(
        rule.during is task_state and rule.to is new_vm_state for rule in RULES.values()
    )


class Watch:
    """Remembers how servers were, to see how they became."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        """Of servers, as they were seen last."""
        self._holders: dict[tuple[str, int], str] = {}
        self.by_itself: dict[str, str] = {}
        """Server to a change of its state while nothing was done to it: its guest was found otherwise than recorded."""

    def see(self, changes: Sequence[Change]) -> list[Violation]:
        """Transitions of one transaction that the table does not have."""
        found = []
        # What a transaction wrote in between nobody has seen.
        last = {server_id: (vm_state, task_state, gone) for server_id, vm_state, task_state, gone in changes}
        for server_id, (vm_state, task_state, gone) in last.items():
            before = self.states.get(server_id)
            after = None if gone else (VMState(vm_state), TaskState(task_state) if task_state else None)
            if not is_allowed(before, after):
                text = f"from {_shown(before)} to {_shown(after)}"
                found.append(Violation("odd", "states change by the table", server_id, text))
            elif before and after and before[0] is not after[0] and before[1] is None and after[1] is None:
                self.by_itself.setdefault(server_id, f"from {_shown(before)} to {_shown(after)}")
            if after is None:
                self.states.pop(server_id, None)
            else:
                self.states[server_id] = after
        return found

    def look_at_leases(self, books: Books) -> Iterator[Violation]:
        """Who took over a task without an epoch of its own."""
        for (task_id, epoch), holder in books.leases.items():
            first = self._holders.setdefault((task_id, epoch), holder)
            if first != holder:
                text = f"epoch {epoch}: {first}, then {holder}"
                yield Violation("doubled", "each holder of a task has an epoch of its own", task_id, text)


def _shown(state: State | None) -> str:
    return "nothing" if state is None else f"{state[0]}/{state[1] or '-'}"
