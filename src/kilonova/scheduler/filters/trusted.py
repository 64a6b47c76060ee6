"""Hosts whose integrity was attested."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.model.host import HostState
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall

_KEY = "trust:trusted_host"


@dataclass(frozen=True)
class TrustedFilter:
    """Pass hosts whose trust level is the one that the flavor demands (``trust:trusted_host``).

    The level (``trusted``, ``untrusted``) is what the host reports as capability ``trust_lvl``; without, it is
    ``unknown``.
    """

    name: str = "TrustedFilter"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.extra_specs.get(_KEY) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        wanted = spec.extra_specs.get(_KEY)
        if not wanted:
            return hosts.everywhere(True)

        def is_so(profile: HostState) -> bool:
            return bool(profile.capabilities.get("trust_lvl", "unknown") == wanted)

        return hosts.by_profile((self.name, wanted), is_so)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"has the trust level '{spec.extra_specs[_KEY]}'")
