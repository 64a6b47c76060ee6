"""Hosts and the flavors that may run there."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.model.host import HostState
from kilonova.scheduler.aggregates import Combination, split_values
from kilonova.scheduler.operators import fault_of, matches
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall

_SCOPE = "aggregate_instance_extra_specs"
_IGNORED = "hide_hypervisor_id"  # speaks to the hypervisor, and never had a scope
_FLAVORS = "instance_type"


@dataclass(frozen=True)
class AggregateInstanceExtraSpecsFilter:
    """Pass hosts whose aggregates' metadata meet the flavor's extra specs.

    Keys with the scope ``aggregate_instance_extra_specs:`` count, and keys without any scope. For each, one of
    the values in the host's aggregates (a comma separates several) must match; a host without the key does
    not pass.
    """

    name: str = "AggregateInstanceExtraSpecsFilter"
    reads: Group = Group.AGGREGATES

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return _demands(spec) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        demands = _demands(spec)
        if not demands:
            return hosts.everywhere(True)
        for key, requirement in demands:
            if fault := fault_of(requirement):
                hosts.complain(f"flavor '{spec.flavor_name}': {key} is '{requirement}', but {fault}; no host is so")

        def meets(aggregates: Combination) -> bool:
            return all(
                any(matches(value, requirement) for value in split_values(aggregates, key))
                for key, requirement in demands
            )

        return hosts.by_aggregates((self.name, demands), meets)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        demands = ", ".join(f"{key} = '{requirement}'" for key, requirement in _demands(spec))
        return Shortfall(f"is in aggregates that meet the flavor's demands {demands}")


def _demands(spec: RequestSpec) -> tuple[tuple[str, str], ...]:
    found = []
    for key, requirement in spec.extra_specs.items():
        scope, colon, rest = key.partition(":")
        if not colon and key != _IGNORED:
            found.append((key, requirement))
        elif scope == _SCOPE:
            found.append((rest, requirement))
    return tuple(found)


@dataclass(frozen=True)
class AggregateTypeAffinityFilter:
    """Pass hosts whose aggregates list the flavor's name under ``instance_type``, or list none at all."""

    name: str = "AggregateTypeAffinityFilter"
    reads: Group = Group.AGGREGATES

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.flavor_name if _FLAVORS in hosts.aggregates.keys else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        def lists(aggregates: Combination) -> bool:
            listed = split_values(aggregates, _FLAVORS)
            return not listed or spec.flavor_name in listed

        return hosts.by_aggregates((self.name, spec.flavor_name), lists)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"takes servers of flavor '{spec.flavor_name}'")


@dataclass(frozen=True)
class TypeAffinityFilter:
    """Pass hosts that have no server of another flavor."""

    name: str = "TypeAffinityFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.flavor_name

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        def has_no_other(state: HostState) -> bool:
            return set(state.server_flavors) <= {spec.flavor_name}

        return hosts.by_servers((self.name, spec.flavor_name), has_no_other)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"is empty or has servers of flavor '{spec.flavor_name}' alone")
