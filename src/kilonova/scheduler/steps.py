"""The steps of a decision that are always there, whatever filters are enabled."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from kilonova.model.host import HostState
from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, Group, Shortfall
from kilonova.scheduler.table import HostTable, Mask
from kilonova.scheduler.words import count, largest

CONSIDERED = ""
FORCED = "force_host"
"""Names, in explanations, of what is no step: how many hosts there are; that an administrator skipped all steps."""


@dataclass(frozen=True)
class RequestedHost:
    """Pass the one host that was asked for, filters included."""

    name: str = "requested_host"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return NOT_ASKED if spec.requested_host is None else ONCE

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.everywhere(True) if spec.requested_host is None else named(hosts, (spec.requested_host,))

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is the one that was asked for")


@dataclass(frozen=True)
class ExcludedHosts:
    """Pass hosts on which this build has not failed before."""

    name: str = "excluded_hosts"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return ONCE if spec.excluded_hosts else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return ~named(hosts, spec.excluded_hosts)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is left on which this build has not failed before")


@dataclass(frozen=True)
class Traits:
    """Pass hosts with all required traits and none that is forbidden.

    ``trait:NAME`` = ``required`` or ``forbidden`` stands in the flavor's extra specs or the image's
    properties; other values say nothing.
    """

    name: str = "traits"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return _traits(spec) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        wanted = _traits(spec)
        if not wanted:
            return hosts.everywhere(True)

        def has(profile: HostState) -> bool:
            return all((trait in profile.traits) == (demand == "required") for trait, demand in wanted)

        return hosts.by_profile((self.name, wanted), has)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        demands = [trait if demand == "required" else f"not {trait}" for trait, demand in _traits(spec)]
        return Shortfall(f"has the traits {', '.join(demands)}")


def _traits(spec: RequestSpec) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted(
            {
                (key.removeprefix("trait:"), str(value))
                for given in (spec.extra_specs, spec.image_properties)
                for key, value in given.items()
                if key.startswith("trait:") and value in ("required", "forbidden")
            }
        )
    )


@dataclass(frozen=True)
class Room:
    """Pass hosts on which the claim would find room now: of each resource class, what the server takes is free.

    A server does not over-commit a host against itself: it never gets more than the host has in total.
    """

    name: str = "room"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return tuple(spec.amounts().items())

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask = hosts.everywhere(True)
        for resource_class, amount in spec.amounts().items():
            mask &= hosts.free_of(resource_class) >= amount
            mask &= hosts.total_of(resource_class) >= amount
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        for resource_class, amount in spec.amounts().items():
            free = hosts.free_of(resource_class)
            if not (among & (free >= amount) & (hosts.total_of(resource_class) >= amount)).any():
                return Shortfall(f"has {count(amount, 'free unit')} of {resource_class}", largest(free, among))
        return Shortfall("has room for all that the flavor asks for at once")


def named(hosts: HostTable, names: Iterable[str]) -> Mask:
    """The hosts of these names."""
    mask = hosts.everywhere(False)
    mask[[hosts.row_of[name] for name in names if name in hosts.row_of]] = True
    return mask
