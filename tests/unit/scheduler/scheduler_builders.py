"""Hosts, tables and requests for tests, with defaults where a test does not care."""

from collections.abc import Iterable, Mapping
from typing import Any

from kilonova.base.config import Config
from kilonova.launch.plugins import load_filter
from kilonova.model.host import AggregateState, HostState
from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.table import HostTable


def a_host(name: str = "h0", *, seq: int = 1, id: int = 0, **values: Any) -> HostState:
    """A healthy host with 16 CPUs, 32 GiB and 500 GiB, all free, ratios 1."""
    defaults: dict[str, Any] = {
        "uuid": f"uuid-{name}",
        "is_enabled": True,
        "is_up": True,
        "vcpus": 16,
        "vcpus_reserved": 0,
        "vcpus_ratio": 1.0,
        "vcpus_used": 0,
        "memory_mib": 32768,
        "memory_reserved_mib": 0,
        "memory_ratio": 1.0,
        "memory_used_mib": 0,
        "disk_gib": 500,
        "disk_reserved_gib": 0,
        "disk_ratio": 1.0,
        "disk_used_gib": 0,
        "num_instances": 0,
        "io_ops": 0,
        "failed_builds": 0,
        "arch": "x86_64",
        "hypervisor_type": "QEMU",
        "hypervisor_version": 8_002_000,
        "vm_mode": "hvm",
        "supported_instances": (("x86_64", "qemu", "hvm"),),
        "host_ip": "192.0.2.10",
    }
    return HostState(seq=seq, id=id, name=name, **{**defaults, **values})


def host_table(
    count: int | None = None, *, aggregates: dict[str, dict[str, str]] | None = None, **columns: Any
) -> HostTable:
    """A table of hosts h0, h1 …; each keyword is a column: `HostState`'s field to one value a host.

    `member` (a list of sets of aggregate names) puts hosts into `aggregates` (name to metadata).
    """
    member = columns.pop("member", None)
    lengths = {len(values) for values in columns.values()} | ({len(member)} if member is not None else set())
    if count is not None:
        lengths.add(count)
    [count] = lengths or {3}
    states = [
        a_host(f"h{n}", seq=n + 1, id=100 + n, **{name: values[n] for name, values in columns.items()})
        for n in range(count)
    ]
    table = HostTable(capacity=2)
    if aggregates is not None:
        table.set_aggregates(1, aggregate_states(aggregates, member or [set()] * count))
    table.apply(states)
    return table


def aggregate_states(aggregates: dict[str, dict[str, str]], member: list[set[str]]) -> list[AggregateState]:
    """Aggregates with ids 1, 2 …; `member[n]` names those that host ``h<n>`` is in."""
    return [
        AggregateState(
            id=number,
            name=name,
            hosts=tuple(f"h{n}" for n, names in enumerate(member) if name in names),
            metadata=metadata,
        )
        for number, (name, metadata) in enumerate(aggregates.items(), start=1)
    ]


def a_request(*server_ids: str, **values: Any) -> RequestSpec:
    """One server with 1 CPU, 1 GiB and 10 GiB."""
    defaults: dict[str, Any] = {
        "server_ids": server_ids or ("server-1",),
        "project_id": "project-1",
        "vcpus": 1,
        "memory_mib": 1024,
        "root_gib": 10,
    }
    return RequestSpec(**{**defaults, **values})


def passing(
    name: str,
    table: HostTable,
    spec: RequestSpec | None = None,
    *,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> list[str]:
    """Hosts that the filter of this name passes, by name.

    Args:
        options: of ``[filter_scheduler]``.
        sections: options of other sections.
    """
    each = load_filter(name, Config(overrides={"filter_scheduler": options, **(sections or {})}))
    mask = each.mask(table, spec if spec is not None else a_request())
    return sorted(host for host, row in table.row_of.items() if mask[row])


def only_complaint(table: HostTable) -> str:
    """The one thing that a rule complained about."""
    [complaint] = table.complaints
    return complaint


def chi_square(counts: Iterable[int]) -> float:
    """How far counts are from all being equal."""
    numbers = list(counts)
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 / mean for number in numbers)
