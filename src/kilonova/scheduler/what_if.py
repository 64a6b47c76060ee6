"""Where servers would go, without claiming anything: decisions on the live table, taken back at once."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from kilonova.model.request_spec import Choice, Explanation, RequestSpec, WhatIf
from kilonova.scheduler.drivers.base import SchedulerDriver
from kilonova.scheduler.table import HostTable

MOST_TRIED: Final = 1_000
"""Servers tried for one question at most."""

PATIENCE_S: Final = 0.2
"""Seconds after which no more is tried: other requests wait meanwhile."""


def try_out(
    driver: SchedulerDriver, table: HostTable, spec: RequestSpec, *, most: int, now: Callable[[], float]
) -> WhatIf:
    """Decide for up to `most` servers such as `spec` asks for, one after the other, then forget it all.

    Args:
        now: the monotonic clock.
    """
    started = now()
    tried: list[str] = []
    hosts: Counter[str] = Counter()
    first: Choice | None = None
    last: Explanation | None = None
    try:
        while len(tried) < max(most, 1) and (not tried or now() - started < PATIENCE_S):
            server_id = f"what-if-{len(tried)}"
            tried.append(server_id)
            [choice] = driver.select(table, msgspec.structs.replace(spec, server_ids=(server_id,)), now=now())
            first = first or choice
            if not choice.candidates:
                last = choice.explanation
                break
            hosts[choice.candidates[0].host] += 1
    finally:
        table.settle(tried)
    assert first is not None
    return WhatIf(first=first, hosts=dict(hosts), is_all=last is not None, last=last)
