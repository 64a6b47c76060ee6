"""Availability zones: an aggregate with ``availability_zone`` in its metadata puts its hosts into that zone."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.aggregates import Combination, split_values
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall

_KEY = "availability_zone"


@dataclass(frozen=True)
class AvailabilityZoneFilter:
    """Pass hosts in the zone that was asked for; all, if none was.

    A host's zones are the values of ``availability_zone`` in the metadata of its aggregates (a comma
    separates several); a host without any is in `default_availability_zone`.
    """

    default_availability_zone: str = "nova"
    name: str = "AvailabilityZoneFilter"
    reads: Group = Group.AGGREGATES

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.availability_zone or NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        wanted = spec.availability_zone
        if not wanted:
            return hosts.everywhere(True)

        def is_in(aggregates: Combination) -> bool:
            zones = split_values(aggregates, _KEY)
            return wanted in zones if zones else wanted == self.default_availability_zone

        return hosts.by_aggregates((self, wanted), is_in)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall(f"is in availability zone '{spec.availability_zone}'")
