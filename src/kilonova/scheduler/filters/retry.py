"""Not where it failed before."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Group, HostTable, Mask, RequestSpec, Shortfall
from kilonova.scheduler.steps import named


@dataclass(frozen=True)
class RetryFilter:
    """Pass hosts on which this build was not tried before.

    Every decision leaves these hosts out anyway (`excluded_hosts`); the name is kept for old configurations.
    """

    name: str = "RetryFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.excluded_hosts else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return ~named(hosts, spec.excluded_hosts)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left on which this build has not failed before")
