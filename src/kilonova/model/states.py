"""Server states, and the one table of which action is allowed when.

The API's 409 answers, the tasks and the documentation all read `RULES`. The state names are those of
the Compute API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class VMState(StrEnum):
    """What a server is, when nothing is being done to it."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    SOFT_DELETED = "soft-delete"
    DELETED = "deleted"
    ERROR = "error"


class TaskState(StrEnum):
    """What is being done to a server now. No task: None."""

    SCHEDULING = "scheduling"
    NETWORKING = "networking"
    SPAWNING = "spawning"
    POWERING_OFF = "powering-off"
    POWERING_ON = "powering-on"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    REBUILDING = "rebuilding"
    REBUILD_SPAWNING = "rebuild_spawning"
    DELETING = "deleting"


class PowerState(IntEnum):
    """What the hypervisor says of the guest; numbers as in the Compute API."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


@dataclass(frozen=True)
class Rule:
    """`action` is allowed from the vm_states `allowed`, sets task_state `during`, ends in vm_state `to`."""

    allowed: frozenset[VMState]
    during: TaskState
    to: VMState
    during_task: bool = False
    """Whether the action is accepted while another task works on the server (it takes over)."""


_ANY: Final = frozenset(VMState) - {VMState.DELETED}

RULES: Final[Mapping[str, Rule]] = {
    "stop": Rule(frozenset({VMState.ACTIVE, VMState.RESCUED, VMState.ERROR}), TaskState.POWERING_OFF, VMState.STOPPED),
    "start": Rule(frozenset({VMState.STOPPED}), TaskState.POWERING_ON, VMState.ACTIVE),
    "reboot_soft": Rule(frozenset({VMState.ACTIVE}), TaskState.REBOOTING, VMState.ACTIVE),
    "reboot_hard": Rule(
        frozenset({VMState.ACTIVE, VMState.STOPPED, VMState.PAUSED, VMState.SUSPENDED, VMState.ERROR}),
        TaskState.REBOOTING_HARD,
        VMState.ACTIVE,
    ),
    "rebuild": Rule(
        frozenset({VMState.ACTIVE, VMState.STOPPED, VMState.ERROR}),
        TaskState.REBUILDING,
        VMState.ACTIVE,
    ),
    "delete": Rule(_ANY, TaskState.DELETING, VMState.DELETED, during_task=True),
}


def api_status(vm_state: VMState, task_state: TaskState | None) -> str:
    """The ``status`` that the Compute API shows for a pair of states (API reference, "Server statuses")."""
    if task_state is TaskState.DELETING:
        return "ACTIVE" if vm_state is VMState.ACTIVE else _STATUS[vm_state]
    if task_state in (TaskState.REBUILDING, TaskState.REBUILD_SPAWNING):
        return "REBUILD"
    if vm_state is VMState.ACTIVE:
        return {TaskState.REBOOTING: "REBOOT", TaskState.REBOOTING_HARD: "HARD_REBOOT"}.get(task_state, "ACTIVE")  # type: ignore[arg-type]
    if task_state is TaskState.REBOOTING_HARD:
        return "HARD_REBOOT"
    return _STATUS[vm_state]


_STATUS: Final[Mapping[VMState, str]] = {
    VMState.BUILDING: "BUILD",
    VMState.ACTIVE: "ACTIVE",
    VMState.STOPPED: "SHUTOFF",
    VMState.PAUSED: "PAUSED",
    VMState.SUSPENDED: "SUSPENDED",
    VMState.RESCUED: "RESCUE",
    VMState.RESIZED: "VERIFY_RESIZE",
    VMState.SHELVED: "SHELVED",
    VMState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VMState.SOFT_DELETED: "SOFT_DELETED",
    VMState.DELETED: "DELETED",
    VMState.ERROR: "ERROR",
}

STATUSES: Final = _STATUS
"""API status of each vm_state at rest; the list filter ``?status=`` reads it backwards."""
