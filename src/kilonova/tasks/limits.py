"""How long steps may take and how often they are tried, where an operator wants it otherwise than the code has it."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import TypeVar

from kilonova.base.config import ConfigError
from kilonova.tasks.kinds import TaskKind

S = TypeVar("S")

_LIMIT = re.compile(r"([a-z_.]+)\.([a-z_]+)=(\d+(?:\.\d+)?)(?:/(\d+))?")


class LimitError(ConfigError):
    """A limit cannot be read, or names no step there is; the message says which, and what there is."""


def with_limits(kinds: Sequence[TaskKind[S]], texts: Sequence[str]) -> tuple[TaskKind[S], ...]:
    """The kinds with ``server.boot.spawn=1800/6`` in force: 1,800 seconds for each try, six tries.

    Raises:
        LimitError
    """
    changed = {kind.name: kind for kind in kinds}
    names = [f"{kind.name}.{step.name}" for kind in kinds for step in kind.steps]
    for text in texts:
        match = _LIMIT.fullmatch(text.strip())
        if match is None:
            raise LimitError(f"[tasks] limits: '{text}' is not of the form server.boot.spawn=1800/6 (seconds/tries).")
        kind_name, step_name, seconds, tries = match.groups()
        if f"{kind_name}.{step_name}" not in names:
            [nearest] = difflib.get_close_matches(f"{kind_name}.{step_name}", names, n=1, cutoff=0.0)
            raise LimitError(f"[tasks] limits: there is no step '{kind_name}.{step_name}'. The nearest is '{nearest}'.")
        if float(seconds) <= 0 or tries == "0":
            raise LimitError(f"[tasks] limits: '{text}' leaves no time, or no try.")
        kind = changed[kind_name]
        steps = tuple(
            dataclasses.replace(step, deadline_s=float(seconds), tries=int(tries or step.tries))
            if step.name == step_name
            else step
            for step in kind.steps
        )
        changed[kind_name] = dataclasses.replace(kind, steps=steps)
    return tuple(changed.values())
