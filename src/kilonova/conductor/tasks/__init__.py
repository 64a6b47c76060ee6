"""Every kind of long work: one file a kind, its table of steps at the end."""

from kilonova.conductor.hands import Hands
from kilonova.conductor.tasks.boot import BOOT
from kilonova.conductor.tasks.delete import DELETE
from kilonova.conductor.tasks.power import REBOOT, START, STOP
from kilonova.conductor.tasks.rebuild import REBUILD
from kilonova.tasks.kinds import TaskKind

KINDS: tuple[TaskKind[Hands], ...] = (BOOT, DELETE, STOP, START, REBOOT, REBUILD)
