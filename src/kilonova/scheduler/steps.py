"""The steps of a decision that are always there, whatever filters are enabled."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from kilonova.model.host import HostState
from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.fitting import usable
from kilonova.scheduler.plugin import NOT_ASKED, ONCE, AtLeast, Group, IntColumn, Shortfall
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
class Room(AtLeast):
    """Pass hosts on which the claim would find room now for what the server takes of one resource class.

    A server does not over-commit a host against itself: it never gets more than the host has in total.
    """

    resource_class: str
    reads: Group = Group.USAGE | Group.FACTS

    @property
    def name(self) -> str:
        return f"room: {self.resource_class}"

    def level(self, hosts: HostTable) -> IntColumn:
        return usable(hosts, self.resource_class)

    def need(self, spec: RequestSpec) -> float:
        return spec.amounts().get(self.resource_class, 0)

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.amounts().get(self.resource_class) or NOT_ASKED

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        wanted = count(int(self.need(spec)), "free unit")
        return Shortfall(f"has {wanted} of {self.resource_class}", largest(self.level(hosts), among))


COMMON_CLASSES = ("VCPU", "MEMORY_MB", "DISK_GB")


@dataclass(frozen=True)
class RoomForMore:
    """As Room, for all resource classes that are not asked for by every server."""

    name: str = "room: more"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return tuple([each for each in spec.amounts().items() if each[0] not in COMMON_CLASSES]) or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask = hosts.everywhere(True)
        for resource_class, amount in spec.amounts().items():
            if resource_class not in COMMON_CLASSES:
                mask &= usable(hosts, resource_class) >= amount
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        for resource_class, amount in spec.amounts().items():
            level = usable(hosts, resource_class)
            if resource_class not in COMMON_CLASSES and not (among & (level >= amount)).any():
                return Shortfall(f"has {count(amount, 'free unit')} of {resource_class}", largest(level, among))
        return Shortfall("has room for all that the flavor asks for at once")


ROOM: tuple[Room | RoomForMore, ...] = (*(Room(each) for each in COMMON_CLASSES), RoomForMore())
"""What the claim will ask, in its order."""

SILENT = (RequestedHost, ExcludedHosts, Traits, Room, RoomForMore)
"""Steps that nobody enabled: explanations list them only where they removed hosts."""


def named(hosts: HostTable, names: Iterable[str]) -> Mask:
    """The hosts of these names."""
    mask = hosts.everywhere(False)
    mask[[hosts.row_of[name] for name in names if name in hosts.row_of]] = True
    return mask
