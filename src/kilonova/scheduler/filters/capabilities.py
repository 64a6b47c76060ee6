"""Extra specs of a flavor against what hosts can do."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilonova.model.host import HostState
from kilonova.scheduler.operators import matches
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

    Looked at are keys ``capabilities:<attribute>[:<key>…]`` and, without a scope, keys that name an
    attribute of hosts; other scopes belong to others. An attribute that is no property of hosts is
    searched in the host's reported capabilities. A host that lacks what a scoped key names does not pass.
    """

    name: str = "ComputeCapabilitiesFilter"
    reads: Group = Group.EVERYTHING

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return tuple(demands(spec.extra_specs)) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask = hosts.everywhere(True)
        for path, requirement in demands(spec.extra_specs):
            mask &= self._answer(hosts, path, requirement)
        return mask

    def _answer(self, hosts: HostTable, path: tuple[str, ...], requirement: str) -> Mask:
        if path[0] in _OF_ROW:
            mask = hosts.everywhere(False)
            for row in np.flatnonzero(hosts.alive):
                value = _follow(getattr(HostView(hosts, int(row)), path[0]), path[1:])
                mask[row] = value is not None and matches(str(value), requirement)
            return mask

        def is_met(profile: HostState) -> bool:
            first = getattr(profile, path[0]) if path[0] in _OF_PROFILE else profile.capabilities.get(path[0])
            value = _follow(first, path[1:])
            return value is not None and matches(str(value), requirement)

        return hosts.by_profile((self.name, path, requirement), is_met)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        for path, requirement in demands(spec.extra_specs):
            if not (self._answer(hosts, path, requirement) & among).any():
                return Shortfall(f"meets the flavor's demand {':'.join(path)} = '{requirement}'")
        return Shortfall("meets all demands of the flavor on capabilities at once")


def demands(extra_specs: dict[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """Path of attribute and keys, and requirement, of the extra specs that speak of hosts."""
    found: list[tuple[tuple[str, ...], str]] = []
    if not extra_specs:
        return found
    for key, requirement in sorted(extra_specs.items()):
        scope, *rest = key.split(":")
        if not rest:
            if scope in _OF_ROW or scope in _OF_PROFILE:
                found.append(((scope,), requirement))
        elif scope == _SCOPE:
            found.append((tuple(rest), requirement))
    return found


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
