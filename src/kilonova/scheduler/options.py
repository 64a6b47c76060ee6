"""What an operator can set for the choice of hosts. Names and defaults are those that operators of Nova know."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """``[scheduler]`` of kilonova.conf."""

    section: ClassVar[str] = "scheduler"

    driver: str = "filter_scheduler"
    """How hosts are chosen: ``filter_scheduler``, ``caching_scheduler``, ``chance_scheduler``, ``fake_scheduler``,
    or the name of an entry point in ``kilonova.schedulers`` or a class path ``package.module:Class``."""

    max_candidates: int = 8
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


@dataclass(frozen=True, kw_only=True)
class ZoneOptions:
    """``[DEFAULT]`` of kilonova.conf."""

    section: ClassVar[str] = "DEFAULT"

    default_availability_zone: str = "nova"
    """The zone of hosts that no aggregate puts into one."""
