"""The columns of the table: their types, where a feed's row has them, and which of them change together."""

import enum
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from kilonova.model.host import HostState


class Group(enum.IntFlag):
    """Columns that change together."""

    LIVENESS = 1
    """Hosts come, go, stop, or are switched off."""
    USAGE = 2
    """Used and free amounts, servers, work in flight, failures, metrics: changes with every choice."""
    FACTS = 4
    """Capacity, hypervisor, abilities: changes when an operator or a new agent changes them."""
    AGGREGATES = 8
    """Aggregates, their metadata, and which host is in which."""
    EVERYTHING = 15


PLAIN: tuple[tuple[str, npt.DTypeLike], ...] = (
    ("vcpus", np.int64),
    ("vcpus_reserved", np.int64),
    ("vcpus_ratio", np.float64),
    ("vcpus_used", np.int64),
    ("memory_mib", np.int64),
    ("memory_reserved_mib", np.int64),
    ("memory_ratio", np.float64),
    ("memory_used_mib", np.int64),
    ("disk_gib", np.int64),
    ("disk_reserved_gib", np.int64),
    ("disk_ratio", np.float64),
    ("disk_used_gib", np.int64),
    ("num_instances", np.int64),
    ("io_ops", np.int64),
    ("failed_builds", np.int64),
    ("hypervisor_version", np.int64),
    ("is_enabled", np.bool_),
    ("is_up", np.bool_),
)
"""Columns that are fields of the feed's rows, and their types. What is pending comes on top of what is used."""

DERIVED: tuple[tuple[str, npt.DTypeLike], ...] = (
    ("vcpus_limit", np.int64),
    ("memory_limit_mib", np.int64),
    ("disk_limit_gib", np.int64),
    ("free_vcpus", np.int64),
    ("free_memory_mib", np.int64),
    ("free_disk_gib", np.int64),
    ("alive", np.bool_),
    ("profile", np.int32),
    ("combination", np.int32),
    ("devices", np.int32),
    ("servers", np.int32),
    ("host_id", np.int64),
    ("row_version", np.int64),
)
"""Columns that the table works out."""

LIMITS = (
    ("vcpus_limit", "vcpus", "vcpus_reserved", "vcpus_ratio", "vcpus_used", "free_vcpus"),
    ("memory_limit_mib", "memory_mib", "memory_reserved_mib", "memory_ratio", "memory_used_mib", "free_memory_mib"),
    ("disk_limit_gib", "disk_gib", "disk_reserved_gib", "disk_ratio", "disk_used_gib", "free_disk_gib"),
)
"""Of each common resource class the columns: limit, total, reserved, ratio, used, free."""

CLASSES = {
    "VCPU": ("vcpus", "vcpus_used", "free_vcpus"),
    "MEMORY_MB": ("memory_mib", "memory_used_mib", "free_memory_mib"),
    "DISK_GB": ("disk_gib", "disk_used_gib", "free_disk_gib"),
}
"""Resource class to its columns: total, used, free. Other classes have columns ``total:…`` and ``free:…``."""

row_values = attrgetter(*(name for name, _ in PLAIN))
of_profile = attrgetter(
    "arch",
    "hypervisor_type",
    "hypervisor_version",
    "vm_mode",
    "supported_instances",
    "capabilities",
    "cpu_info",
    "traits",
    "cell",
)
of_servers = attrgetter("server_flavors", "server_image_properties")
_LIVENESS, USAGE, _FACTS = Group.LIVENESS.value, Group.USAGE.value, Group.FACTS.value  # plain numbers are quicker
groups_of: tuple[tuple[int, Callable[[HostState], Any]], ...] = (
    (_LIVENESS, attrgetter("is_up", "is_enabled")),
    (
        _FACTS,
        attrgetter("vcpus", "vcpus_reserved", "vcpus_ratio", "memory_mib", "memory_reserved_mib", "memory_ratio",
                   "disk_gib", "disk_reserved_gib", "disk_ratio", "host_ip"),
    ),
    (_FACTS, of_profile),
)  # fmt: skip
seldom = attrgetter(
    "is_up", "is_enabled", "vcpus", "vcpus_reserved", "vcpus_ratio", "memory_mib", "memory_reserved_mib",
    "memory_ratio", "disk_gib", "disk_reserved_gib", "disk_ratio", "host_ip", "arch", "hypervisor_type",
    "hypervisor_version", "vm_mode", "supported_instances", "capabilities", "cpu_info", "traits", "cell",
    "server_flavors", "server_image_properties",
)  # fmt: skip
"""All that changes seldom. What is not in here is usage, and is taken for changed with each row."""
