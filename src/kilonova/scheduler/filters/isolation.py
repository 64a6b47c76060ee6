"""Hosts that are kept for some: for images, for projects, for kinds of images."""

from collections.abc import Hashable
from dataclasses import dataclass

from kilonova.scheduler.aggregates import Combination, split_values
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall
from kilonova.scheduler.steps import named

_TENANT = "filter_tenant_id"


@dataclass(frozen=True)
class IsolatedHostsFilter:
    """Keep `isolated_images` on `isolated_hosts`, and, unless told otherwise, all other images away from them."""

    isolated_hosts: tuple[str, ...] = ()
    isolated_images: tuple[str, ...] = ()
    restrict_isolated_hosts_to_isolated_images: bool = True
    name: str = "IsolatedHostsFilter"
    reads: Group = Group.LIVENESS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        if not self.isolated_hosts and not self.isolated_images:
            return NOT_ASKED
        return spec.image_id in self.isolated_images

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        isolated = named(hosts, self.isolated_hosts)
        if spec.image_id in self.isolated_images:
            return isolated
        return ~isolated if self.restrict_isolated_hosts_to_isolated_images else hosts.everywhere(True)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is open to this image")


@dataclass(frozen=True)
class AggregateMultiTenancyIsolation:
    """Keep hosts for the projects that ``filter_tenant_id`` of their aggregates names.

    Every metadata key that begins so counts, a comma separates projects; all aggregates of a host together say
    who may come. Hosts that name nobody are open to all.
    """

    name: str = "AggregateMultiTenancyIsolation"
    reads: Group = Group.AGGREGATES

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        keys = [key for key in hosts.aggregates.keys if key.startswith(_TENANT)]
        if not keys:
            return NOT_ASKED
        # Projects that are named nowhere get equal answers.
        is_named = any(spec.project_id in hosts.aggregates.values_of_key[key] for key in keys)
        return spec.project_id if is_named else None

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        project = self.key(hosts, spec)

        def is_open(aggregates: Combination) -> bool:
            keys = {key for aggregate in aggregates for key in aggregate.metadata if key.startswith(_TENANT)}
            tenants = {tenant for key in keys for tenant in split_values(aggregates, key)}
            return not tenants or project in tenants

        return hosts.by_aggregates((self.name, project), is_open)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("is open to this project")


@dataclass(frozen=True)
class AggregateImagePropertiesIsolation:
    """Pass hosts none of whose aggregates has another value for a property of the image.

    For each key that both the image and an aggregate of the host have, the image's value must be among the
    aggregates' (a comma separates several). With a namespace set, only keys ``<namespace><separator>…`` count.
    """

    aggregate_image_properties_isolation_namespace: str = ""
    aggregate_image_properties_isolation_separator: str = "."
    name: str = "AggregateImagePropertiesIsolation"
    reads: Group = Group.AGGREGATES

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return self._touched(hosts, spec) or NOT_ASKED

    def _touched(self, hosts: HostTable, spec: RequestSpec) -> tuple[tuple[str, str], ...]:
        namespace = self.aggregate_image_properties_isolation_namespace
        prefix = f"{namespace}{self.aggregate_image_properties_isolation_separator}" if namespace else ""
        return tuple(
            (key, str(value))
            for key, value in spec.image_properties.items()
            if value and key in hosts.aggregates.keys and key.startswith(prefix)
        )

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        touched = self._touched(hosts, spec)

        def agrees(aggregates: Combination) -> bool:
            return all(value in options for key, value in touched if (options := split_values(aggregates, key)))

        return hosts.by_aggregates((self.name, touched), agrees) if touched else hosts.everywhere(True)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        keys = ", ".join(sorted(key for key, _ in self._touched(hosts, spec)))
        return Shortfall(f"takes images with these values of {keys}")
