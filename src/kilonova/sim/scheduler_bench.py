"""What a scheduling decision costs: decisions a second, how long the slow ones take, CPU time, memory.

Each decision is deducted from the table; every `FEED` decisions, the feed confirms the oldest claims, ends as
many servers as were placed (so that the cloud stays as full as it is), and tells of hosts that changed. What the
feed costs is in the figures.

`double_booked` is counted apart from the scheduler, with plain numbers: servers chosen for a host that had no
room for them.
"""

import gc
import random
import resource
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from kilonova.base.config import Config
from kilonova.launch.plugins import build_rules
from kilonova.scheduler.drivers.filter import FilterScheduler
from kilonova.scheduler.table import HostTable
from kilonova.sim.scheduler_load import Account, hosts_of, requests_of

CLASSIC = (
    "AllHostsFilter",
    "ImagePropertiesFilter",
    "AvailabilityZoneFilter",
    "ComputeCapabilitiesFilter",
    "AggregateInstanceExtraSpecsFilter",
    "ComputeFilter",
    "AggregateCoreFilter",
    "IsolatedHostsFilter",
    "JsonFilter",
    "AggregateRamFilter",
    "AggregateDiskFilter",
    "NumInstancesFilter",
    "AggregateNumInstancesFilter",
    "IoOpsFilter",
    "AggregateIoOpsFilter",
    "PciPassthroughFilter",
    "SimpleCIDRAffinityFilter",
    "DifferentHostFilter",
    "SameHostFilter",
    "RetryFilter",
    "AggregateTypeAffinityFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
    "AggregateMultiTenancyIsolation",
    "AggregateImagePropertiesIsolation",
    "MetricsFilter",
    "NUMATopologyFilter",
)
"""Every filter of the classic system."""

FEW = ("ComputeFilter", "AvailabilityZoneFilter", "CoreFilter", "RamFilter", "DiskFilter")

FEED = 64
"""Decisions between two pages of the feed."""

FILTER_SETS = {"classic": CLASSIC, "default": (), "few": FEW}


def measure(count: int, filters: Sequence[str], seconds: float) -> dict[str, Any]:
    """Decide for `seconds` on `count` hosts."""
    rng = random.Random(42)  # noqa: S311 - the same stream each time
    config = Config(
        overrides={
            "filter_scheduler": {"enabled_filters": tuple(filters)} if filters else {},
            "metrics": {"weight_setting": ("cpu.percent=-1.0",)},
            "pci": {"alias": '[{"name": "gpu", "vendor_id": "10de", "product_id": "1db4"}]'},
        }
    )
    driver = FilterScheduler(build_rules(config), rng)
    states, aggregates = hosts_of(count, rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = HostTable()
    table.set_aggregates(1, aggregates)
    table.apply(states)
    for spec in (specs := requests_of(2_000, rng, table.names))[:500]:
        driver.select(table, msgspec.structs.replace(spec, server_ids=(f"warm-{spec.server_ids[0]}",)), now=0.0)
    table.settle(list(table.pending))
    account = Account({state.name: state for state in states})
    specs = requests_of(20_000, rng, table.names)
    # The bench's own hundred thousands of objects are not the scheduler's garbage to look through.
    gc.collect()
    gc.freeze()
    times: list[float] = []
    refused = decided = 0
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = specs[decided % len(specs) :][:FEED]
        for spec in batch:
            server_id = f"{decided}-{spec.server_ids[0]}"
            spec = msgspec.structs.replace(spec, server_ids=(server_id,))
            begin = time.perf_counter()
            [choice] = driver.select(table, spec, now=0.0)
            times.append(time.perf_counter() - begin)
            decided += 1
            if choice.candidates:
                account.give(server_id, choice.candidates[0].host, spec)
            else:
                refused += 1
        rows, claimed = account.page(table.seq)
        table.apply(rows)
        table.settle(claimed)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    times.sort()
    refresh = [
        msgspec.structs.replace(s, seq=s.seq + 10_000_000, memory_used_mib=s.memory_used_mib + 1)
        for s in account.states.values()
    ]
    refresh_cpu = time.process_time()
    table.apply(refresh)
    refresh_cpu = time.process_time() - refresh_cpu
    return {
        "hosts": count,
        "filters": len(driver.rules.filters),
        "weighers": len(driver.rules.weighers),
        "decisions": decided,
        "refused": refused,
        "decisions_per_s": round(decided / took),
        "p50_ms": round(times[len(times) // 2] * 1e3, 3),
        "p99_ms": round(times[len(times) * 99 // 100] * 1e3, 3),
        "max_ms": round(times[-1] * 1e3, 3),
        "cpu_us_per_decision": round(cpu / decided * 1e6),
        "table_mb": round(table.nbytes / 1e6, 1),
        "rss_growth_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "refresh_all_ms": round(refresh_cpu * 1e3, 1),
        "double_booked": account.double_booked,
    }
