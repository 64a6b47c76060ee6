"""Whether a task leaves its server as it promised, at the commit where it ends.

Nothing newer can be in the way: a task ends as done or failed only while it is its server's own, and the next order is
accepted after that; a delete that takes over ends the task before it as superseded.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from kilonova.conductor.invariants import AT_REST, Violation
from kilonova.model.states import RULES, PowerState, TaskState, VMState
from kilonova.sim.database import Note
from kilonova.sim.hypervisor import SimulatedHypervisor
from kilonova.sim.transitions import State
from kilonova.sim.workload import IMAGES
from kilonova.store.engine import Store
from kilonova.store.queries.invariants import AfterTask, after_task

_ENDS_IN: Final = {
    "server.boot": VMState.ACTIVE,
    "server.stop": RULES["stop"].to,
    "server.start": RULES["start"].to,
    "server.reboot": RULES["reboot_hard"].to,
    "server.rebuild": RULES["rebuild"].to,
    "server.delete": RULES["delete"].to,
}

_POWER: Final = {**AT_REST, VMState.DELETED: PowerState.NOSTATE}

_IMAGE: Final = {"server.boot": IMAGES[0], "server.rebuild": IMAGES[1]}
"""What users order servers to be made of."""

_LAST_STEP_COMMANDS: Final = {"server.stop", "server.start", "server.reboot", "server.rebuild"}
"""Kinds whose last step is a command to the host: who ends the task has been told that it was carried out."""

_GOES_BACK: Final = {"server.stop", "server.start", "server.reboot"}
"""Kinds that leave the server as it was if they fail."""


class Outcomes:
    """Looks at ends of tasks."""

    def __init__(self, store: Store, hypervisors: Mapping[str, SimulatedHypervisor]) -> None:
        self._store = store
        self._hypervisors = hypervisors

    def see(self, notes: Sequence[Note], before: Mapping[str, State]) -> list[Violation]:
        """What is wrong with the ends of tasks in one transaction.

        Args:
            before: servers' states before it.
        """
        found: list[Violation] = []
        for name, *told in notes:
            if name == "ended":
                found += self._ended(*told, before=before)
        return found

    def _ended(
        self,
        task_id: str,
        kind: str,
        subject: str,
        outcome: str,
        epoch: int,
        payload: str,
        *,
        before: Mapping[str, State],
    ) -> Iterator[Violation]:
        after = self._store.run_now(after_task, task_id, subject)
        if after is None or kind not in _ENDS_IN:
            return
        told = msgspec.json.decode(payload)
        if outcome == "done":
            yield from self._done(kind, subject, epoch, told, after)
        elif outcome == "failed":
            wrong = _wrong_if_failed(kind, told, after, before.get(subject))
            if wrong:
                yield Violation("odd", "what fails leaves a server as it was, or in error", subject, f"{kind}: {wrong}")
            if not after.why:
                text = f"{kind} failed, its action does not say why"
                yield Violation("odd", "what was accepted is done, or says why not", subject, text)
        elif after.task_state is not TaskState.DELETING:
            text = f"{kind} was superseded, the server is {after.vm_state}/{after.task_state or '-'}"
            yield Violation("odd", "only a delete takes over", subject, text)

    def _done(
        self, kind: str, subject: str, epoch: int, payload: Mapping[str, Any], after: AfterTask
    ) -> Iterator[Violation]:
        to = VMState.STOPPED if kind == "server.rebuild" and not payload["power_on"] else _ENDS_IN[kind]
        wanted, image_id = (to, None, _POWER[to], to is VMState.DELETED), _IMAGE.get(kind, after.image_id)
        left = (after.vm_state, after.task_state, after.power_state, after.is_deleted)
        if left != wanted or after.image_id != image_id or after.why:
            state = f"{after.vm_state}/{after.task_state or '-'}, {after.power_state.name} of {after.image_id}"
            text = f"{kind} leaves {state}, ordered was {to} of {image_id}"
            yield Violation("odd", "what is done is as it was ordered", subject, text)
        if kind in _LAST_STEP_COMMANDS and not any(
            (subject, epoch) in hypervisor.carried_out for hypervisor in self._hypervisors.values()
        ):
            text = f"no host carried out {kind} of epoch {epoch}"
            yield Violation("lost", "what was accepted is done, or says why not", subject, text)
        hypervisor = self._hypervisors.get(after.host or "")
        if to is VMState.DELETED or hypervisor is None or subject in hypervisor.troubled:
            return
        guest = hypervisor.shown().get(subject)
        power_state = guest.power_state if guest else PowerState.NOSTATE
        # A server that failed to be rebuilt has one or the other disk, and can be stopped and started.
        made_of = hypervisor.image_of(subject) if kind in _IMAGE else image_id
        if power_state is not _POWER[to] or made_of != image_id:
            text = f"after {kind} the guest is {power_state.name} of {made_of}, the server {to} of {image_id}"
            yield Violation("odd", "what is done is so on its host", subject, text)


def _wrong_if_failed(kind: str, payload: Mapping[str, Any], after: AfterTask, before: State | None) -> str:
    """In words; empty if nothing is."""
    was = before[0] if before else None
    allowed = {was} if kind in _GOES_BACK else {was, VMState.ERROR} if kind == "server.rebuild" else {VMState.ERROR}
    if after.vm_state not in allowed or after.task_state is not None:
        return f"{was or 'nothing'} became {after.vm_state}/{after.task_state or '-'}"
    if kind == "server.rebuild" and after.vm_state is not VMState.ERROR:
        kept = payload["before"]["image_id"]
        return "" if after.image_id == kept else f"it keeps the disk of {kept}, and says {after.image_id}"
    return ""
