"""How conductors ask for hosts.

1.0  select, refresh
1.1  what_if
"""

from typing import ClassVar, Protocol

from kilonova.model.request_spec import Choice, RequestSpec, WhatIf
from kilonova.rpc.client import Target


class SchedulerAPI(Protocol):
    """Any scheduler can answer; none of them writes."""

    topic: ClassVar[str] = "scheduler"
    version: ClassVar[str] = "1.1"
    quiet: ClassVar[frozenset[str]] = frozenset({"refresh"})

    async def select(self, spec: RequestSpec) -> list[Choice]:
        """One ranked choice of hosts for each of `spec.server_ids`, in their order.

        A choice without candidates means: no valid host; its explanation says why.
        """
        ...

    async def what_if(self, spec: RequestSpec, *, most: int) -> WhatIf:
        """Where up to `most` servers such as `spec` asks for would go now. Nothing is taken."""
        ...

    async def refresh(self) -> None:
        """Read the feed of host changes now. A hint, sent to all; losing it costs only freshness."""
        ...


class SchedulerClient(SchedulerAPI):
    """Sends to ``scheduler``."""

    def __init__(self, target: Target) -> None:
        self._target = target.at("1.0")
        self._newest = target

    async def select(self, spec: RequestSpec) -> list[Choice]:
        choices: list[Choice] = await self._target.call("select", spec=spec, deadline_s=30, returns=list[Choice])
        return choices

    async def what_if(self, spec: RequestSpec, *, most: int) -> WhatIf:
        found: WhatIf = await self._newest.call("what_if", spec=spec, most=most, deadline_s=30, returns=WhatIf)
        return found

    async def refresh(self) -> None:
        await self._target.fanout("refresh")
