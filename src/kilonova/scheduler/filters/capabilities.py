"""Extra specs of a flavor against what hosts can do."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilonova.model.host import HostState
from kilonova.scheduler.operators import fault_of, matches
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, HostView, Mask, RequestSpec, Shortfall

_SCOPE = "capabilities"

_OF_PROFILE = frozenset(
    {"arch", "hypervisor_type", "hypervisor_version", "vm_mode", "supported_instances", "capabilities", "traits"}
    | {"cpu_info"}
)
"""Attributes that hosts with the same profile share."""

_OF_ROW = frozenset(
    name for name, kind in vars(HostView).items() if isinstance(kind, property) and not name.startswith("_")
) - (_OF_PROFILE | {"state", "aggregates"})
"""Attributes that are each host's own."""


@dataclass(frozen=True)
class ComputeCapabilitiesFilter:
    """Pass hosts that are as the flavor's extra specs demand.

    Looked at are keys ``capabilities:<attribute>[:<key>…]`` and keys without a scope; other scopes belong to
    others. An attribute that is no property of hosts is searched in the host's reported capabilities. A host that
    lacks what a scoped key names does not pass; a key without a scope says nothing of hosts that lack it.
    """

    name: str = "ComputeCapabilitiesFilter"
    reads: Group = Group.EVERYTHING

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return demands(spec.extra_specs) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask = hosts.everywhere(True)
        for demand in demands(spec.extra_specs):
            if fault := fault_of(demand.requirement):
                hosts.complain(f"flavor '{spec.flavor_name}': {demand}, but {fault}; no host is so")
            mask &= self._answer(hosts, demand)
        return mask

    def _answer(self, hosts: HostTable, demand: "Demand") -> Mask:
        path, requirement = demand.path, demand.requirement
        if path[0] in _OF_ROW:
            mask = hosts.everywhere(False)
            for row in np.flatnonzero(hosts.alive):
                value = _follow(getattr(HostView(hosts, int(row)), path[0]), path[1:])
                mask[row] = value is not None and matches(str(value), requirement)
            return mask

        def is_met(profile: HostState) -> bool:
            first = getattr(profile, path[0]) if path[0] in _OF_PROFILE else profile.capabilities.get(path[0])
            value = _follow(first, path[1:])
            return demand.lenient if value is None else matches(str(value), requirement)

        return hosts.by_profile((self.name, demand), is_met)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        for demand in demands(spec.extra_specs):
            if not (self._answer(hosts, demand) & among).any():
                return Shortfall(f"meets the flavor's demand {demand}", fault_of(demand.requirement))
        return Shortfall("meets all demands of the flavor on capabilities at once")


@dataclass(frozen=True)
class Demand:
    """What one extra spec says of hosts."""

    path: tuple[str, ...]
    """Attribute, and keys into it."""
    requirement: str
    lenient: bool = False
    """Whether hosts pass that lack the attribute."""

    def __str__(self) -> str:
        return f"{':'.join(self.path)} = '{self.requirement}'"


def demands(extra_specs: dict[str, str]) -> tuple[Demand, ...]:
    """Those of the extra specs that speak of hosts."""
    found = []
    for key, requirement in sorted(extra_specs.items()):
        scope, *rest = key.split(":")
        if not rest:
            found.append(Demand((scope,), requirement, lenient=scope not in _OF_ROW and scope not in _OF_PROFILE))
        elif scope == _SCOPE:
            found.append(Demand(tuple(rest), requirement))
    return tuple(found)


def _follow(value: Any, keys: tuple[str, ...]) -> Any:
    """Go into mappings (or their JSON text) by `keys`; None where there is nothing."""
    for key in keys:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
