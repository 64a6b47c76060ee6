"""A scheduler that asks nobody: one host after the other."""

from typing import Self

from kilonova.model.request_spec import Candidate, Choice, Explanation, RequestSpec
from kilonova.scheduler.drivers.base import Setup
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable


class RoundRobin:
    """``driver = round_robin``: hosts that are up, in the order of their names, each in its turn."""

    reads_feed_each_time = True

    def __init__(self) -> None:
        self._turn = 0

    @classmethod
    def make(cls, setup: Setup) -> Self:
        return cls()

    def select(self, table: HostTable, spec: RequestSpec, *, now: float) -> list[Choice]:
        return [self._next(table, spec, server_id, now) for server_id in spec.server_ids]

    def _next(self, table: HostTable, spec: RequestSpec, server_id: str, now: float) -> Choice:
        hosts = sorted(host for host, row in table.row_of.items() if table.is_up[row] and table.is_enabled[row])
        counts = (("", len(table)), ("up", len(hosts)))
        if not hosts:
            return Choice(
                server_id=server_id, candidates=(), explanation=Explanation(filters=counts, missing="No host.")
            )
        host = hosts[self._turn % len(hosts)]
        self._turn += 1
        row = table.row_of[host]
        table.take(needs_of(spec), server_id, row, at=now)
        chosen = Candidate(host_id=int(table.host_id[row]), host=host, weight=0.0)
        return Choice(
            server_id=server_id, candidates=(chosen,), explanation=Explanation(filters=counts, chosen=(host,))
        )
