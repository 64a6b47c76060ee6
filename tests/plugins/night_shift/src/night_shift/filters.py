"""Two filters: one is asked for each host, the other answers for all hosts at once."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar

from kilonova.model.host import HostState
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, HostView, Mask, RequestSpec, Shortfall


@dataclass(frozen=True, kw_only=True)
class NightOptions:
    """``[night_shift]`` of kilonova.conf."""

    section: ClassVar[str] = "night_shift"

    most_servers: int = 5
    """Servers at which QuietHosts drops a host."""


@dataclass(frozen=True)
class QuietHosts:
    """Pass hosts with few servers."""

    options: NightOptions = field(default_factory=NightOptions)

    def host_passes(self, host_state: HostView, spec: RequestSpec) -> bool:
        return host_state.num_instances < self.options.most_servers


@dataclass(frozen=True)
class SameRow:
    """Hint ``row``: pass the hosts that report this row of racks as capability.

    `reads` and `key` are not needed. They let answers be kept until a host's abilities change, and `missing` tells
    users what there was none of.
    """

    name: str = "SameRow"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.scheduler_hints.get("row") or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        row = spec.scheduler_hints.get("row")
        if not row:
            return hosts.everywhere(True)

        def is_there(profile: HostState) -> bool:
            return bool(profile.capabilities.get("row") == row)

        return hosts.by_profile((self.name, row), is_there)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"stands in row '{spec.scheduler_hints['row']}'")
