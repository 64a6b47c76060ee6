"""Scheduler hints, as users give them."""

from typing import Any

from kilonova.model.request_spec import RequestSpec


def hint(spec: RequestSpec, name: str) -> Any:
    """What the user gave under `name`: a list of one is that one, nothing is None."""
    given = spec.scheduler_hints.get(name)
    if isinstance(given, list):
        return given[0] if len(given) == 1 else given or None
    return given


def hinted_servers(spec: RequestSpec, name: str) -> tuple[str, ...]:
    """The servers that a hint names."""
    given = hint(spec, name)
    if not given:
        return ()
    return tuple(map(str, given)) if isinstance(given, list) else (str(given),)
