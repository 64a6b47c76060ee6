"""Does an amount fit? Shared by the filters of CPUs, memory and disk.

Free is (total - reserved) * allocation ratio, less what is used and promised. The claim asks the same of the
database and decides; filters only spare it the hosts that cannot win. A server does not over-commit a host
against itself: it never gets more than the host has in total.
"""

import numpy as np

from kilonova.scheduler.table import HostTable, IntColumn


def usable(hosts: HostTable, resource_class: str) -> IntColumn:
    """The largest amount that one more server could have on each host."""
    return np.minimum(hosts.free_of(resource_class), hosts.total_of(resource_class))


def usable_by_aggregates(hosts: HostTable, resource_class: str, ratio_key: str) -> IntColumn:
    """As `usable`, with the smallest ratio that a host's aggregates name; with its own, if they name none."""
    if ratio_key not in hosts.aggregates.keys:
        return usable(hosts, resource_class)
    total, reserved, own_ratio, used = {
        "VCPU": (hosts.vcpus, hosts.vcpus_reserved, hosts.vcpus_ratio, hosts.vcpus_used),
        "MEMORY_MB": (hosts.memory_mib, hosts.memory_reserved_mib, hosts.memory_ratio, hosts.memory_used_mib),
        "DISK_GB": (hosts.disk_gib, hosts.disk_reserved_gib, hosts.disk_ratio, hosts.disk_used_gib),
    }[resource_class]
    named = hosts.aggregate_min(ratio_key, np.nan)
    ratio = np.where(np.isnan(named), own_ratio, named)
    limit: IntColumn = np.floor((total - reserved) * ratio).astype(np.int64)
    most: IntColumn = np.minimum(limit - used, total)
    return most
