"""Lets the simulated hypervisor know by which order it is called, so that it can see whether orders are overtaken."""

from contextvars import ContextVar
from typing import Any

_epoch: ContextVar[int | None] = ContextVar("epoch_of_this_command", default=None)


def epoch_of_command() -> int | None:
    """The epoch of the command that is being carried out; None: nobody commanded it."""
    return _epoch.get()


class Watched:
    """An endpoint whose methods are called as they are, each with its epoch in the context."""

    def __init__(self, endpoint: object) -> None:
        self._endpoint = endpoint

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._endpoint, name)

        async def command(*args: Any, **named: Any) -> Any:
            before = _epoch.set(named.get("epoch"))
            try:
                return await function(*args, **named)
            finally:
                _epoch.reset(before)

        return command
