"""What an operator can set for the choice of hosts. Names and defaults are those that operators of Nova know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from kilonova.model.pci import aliases
from kilonova.model.request_spec import PciRequest


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """``[scheduler]`` of kilonova.conf."""

    section: ClassVar[str] = "scheduler"

    driver: str = "filter_scheduler"
    """How hosts are chosen: ``filter_scheduler``, ``caching_scheduler``, ``chance_scheduler``, ``fake_scheduler``,
    or the name of an entry point in ``kilonova.schedulers`` or a class path ``package.module:Class``."""

    max_candidates: int = 5
    """Hosts returned for a server, best first. A claim that finds the first full takes the next."""

    refresh_interval: float = 1.0
    """Seconds between two looks at the feed of host changes when nobody asks."""

    pending_doubtful_after: float = 2.0
    """Seconds after which a choice that no claim has confirmed no longer makes a request fail."""

    pending_forgotten_after: float = 30.0
    """Seconds after which a choice that no claim has confirmed is forgotten altogether."""


@dataclass(frozen=True, kw_only=True)
class FilterSchedulerOptions:
    """``[filter_scheduler]`` of kilonova.conf."""

    section: ClassVar[str] = "filter_scheduler"

    enabled_filters: tuple[str, ...] = (
        "ComputeFilter",
        "AvailabilityZoneFilter",
        "ComputeCapabilitiesFilter",
        "ImagePropertiesFilter",
        "CoreFilter",
        "RamFilter",
        "DiskFilter",
        "ServerGroupAntiAffinityFilter",
        "ServerGroupAffinityFilter",
        "SameHostFilter",
        "DifferentHostFilter",
        "PciPassthroughFilter",
        "NUMATopologyFilter",
    )
    """Filters in the order in which they are asked: classic class names, names of entry points in
    ``kilonova.filters``, or class paths ``package.module:Class``."""

    weight_classes: tuple[str, ...] = ("all_weighers",)
    """Weighers, named like filters (entry points in ``kilonova.weighers``). ``all_weighers`` is all that come along."""

    host_subset_size: int = 1
    """Choose at random among this many best hosts. More spreads parallel schedulers; 1 is strict."""

    shuffle_best_same_weighed_hosts: bool = False
    """Choose at random among hosts with the same best weight; otherwise the first of them."""

    ram_weight_multiplier: float = 1.0
    """Positive spreads servers over hosts by free memory, negative packs them."""

    cpu_weight_multiplier: float = 1.0
    """As for memory, by free virtual CPUs."""

    disk_weight_multiplier: float = 1.0
    """As for memory, by free disk."""

    io_ops_weight_multiplier: float = -1.0
    """Negative prefers hosts with little disk-heavy work in flight."""

    build_failure_weight_multiplier: float = 1000000.0
    """How strongly hosts on which builds failed lately are avoided."""

    soft_affinity_weight_multiplier: float = 1.0
    """How strongly members of a server group with policy soft-affinity are put together."""

    soft_anti_affinity_weight_multiplier: float = 1.0
    """How strongly members of a server group with policy soft-anti-affinity are kept apart."""

    pci_weight_multiplier: float = 1.0
    """How strongly hosts with free PCI devices are kept for servers that want some."""

    cross_cell_move_weight_multiplier: float = 1000000.0
    """How strongly a server that moves stays in its cell."""

    hypervisor_version_weight_multiplier: float = 1.0
    """Positive prefers new hypervisors, negative old ones."""

    num_instances_weight_multiplier: float = 0.0
    """Negative spreads servers over hosts by their number, positive packs them."""

    image_props_weight_multiplier: float = 0.0
    """Positive prefers hosts whose servers have images like this one's, negative avoids them."""

    image_props_weight_setting: tuple[str, ...] = ()
    """Which image properties count how much for that (``os_distro=2,os_version=1``); all alike, if empty."""

    max_io_ops_per_host: int = 8
    """Builds, resizes, snapshots and migrations in flight at which IoOpsFilter drops a host."""

    max_instances_per_host: int = 50
    """Servers at which NumInstancesFilter drops a host."""

    isolated_hosts: tuple[str, ...] = ()
    """Hosts that IsolatedHostsFilter keeps for `isolated_images`."""

    isolated_images: tuple[str, ...] = ()
    """Ids of images that run on `isolated_hosts` alone."""

    restrict_isolated_hosts_to_isolated_images: bool = True
    """Whether other images stay away from `isolated_hosts`."""

    image_properties_default_architecture: str = ""
    """For ImagePropertiesFilter: the architecture of images that name none. Empty: such images run anywhere."""

    aggregate_image_properties_isolation_namespace: str = ""
    """If set, AggregateImagePropertiesIsolation looks only at metadata keys that begin with this ..."""

    aggregate_image_properties_isolation_separator: str = "."
    """... and this."""


@dataclass(frozen=True, kw_only=True)
class ZoneOptions:
    """``[DEFAULT]`` of kilonova.conf."""

    section: ClassVar[str] = "DEFAULT"

    default_availability_zone: str = "nova"
    """The zone of hosts that no aggregate puts into one."""


@dataclass(frozen=True, kw_only=True)
class MetricsOptions:
    """``[metrics]`` of kilonova.conf."""

    section: ClassVar[str] = "metrics"

    weight_setting: tuple[str, ...] = ()
    """Metrics by which hosts are weighed, with their ratios: ``cpu.percent=-1.0,net.free=0.5``."""

    weight_multiplier: float = 1.0
    """How strongly metrics count beside other weighers."""

    required: bool = True
    """Whether a host must have all metrics. MetricsFilter, if enabled, removes those that lack one."""

    weight_of_unavailable: float = -10000.0
    """Score of a host that lacks a metric."""

    def ratios(self) -> dict[str, float]:
        """`weight_setting`, read."""
        return ratios(self.weight_setting)


@dataclass(frozen=True, kw_only=True)
class PciOptions:
    """``[pci]`` of kilonova.conf."""

    section: ClassVar[str] = "pci"

    alias: str = ""
    """Names for kinds of PCI devices, for flavors: a JSON list of objects in one line, such as
    ``[{"name": "gpu", "vendor_id": "10de", "product_id": "1db4", "numa_policy": "preferred"}]``."""

    def aliases(self) -> Mapping[str, PciRequest]:
        """`alias`, read: name to a request for one such device."""
        return _aliases(self.alias)


@lru_cache(maxsize=8)
def _aliases(text: str) -> Mapping[str, PciRequest]:
    return aliases([text] if text else [])


def ratios(setting: Sequence[str]) -> dict[str, float]:
    """``name=ratio`` texts, read; what cannot be read is left out (it is refused where options are loaded)."""
    found = {}
    for text in setting:
        name, _, ratio = text.partition("=")
        try:
            found[name.strip()] = float(ratio)
        except ValueError:
            continue
    return found
