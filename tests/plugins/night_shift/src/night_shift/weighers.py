"""Two weighers: one is asked for each host, the other answers for all hosts at once."""

from dataclasses import dataclass

from kilonova.model.host import HostState
from kilonova.scheduler.plugin import Column, HostTable, HostView, RequestSpec


class OldestFirst:
    """Prefer hosts with old hypervisors: what is new is kept free for the day."""

    weight_multiplier = 2.0

    def weigh_host(self, host_state: HostView, spec: RequestSpec) -> float:
        return -float(host_state.hypervisor_version)


@dataclass(frozen=True)
class RowWeigher:
    """Prefer rows late in the alphabet. Aggregates may set ``row_weight_multiplier``."""

    name: str = "RowWeigher"
    multiplier_option: str = "row_weight_multiplier"
    multiplier: float = 0.5

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        def place(profile: HostState) -> float:
            return float(ord(profile.capabilities.get("row", "a")[0]))

        return hosts.by_profile(self.name, place, float)
