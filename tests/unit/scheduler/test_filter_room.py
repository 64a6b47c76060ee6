"""Filters of amounts: CPUs, memory, disk; by the host's ratio, by its aggregates', and exactly."""

from dataclasses import dataclass
from typing import Any

import pytest
from scheduler_builders import a_request, host_table, only_complaint, passing

from kilonova.scheduler.table import HostTable


@dataclass(frozen=True)
class Kind:
    """One resource under the names of its filters, of the table's columns, and of the request's field."""

    plain: str
    aggregate: str
    exact: str
    total: str
    reserved: str
    ratio: str
    used: str
    asked: str
    key: str
    class_name: str

    def table(self, **columns: list[Any]) -> HostTable:
        """`columns`: total, reserved, ratio, used, and those of `host_table`."""
        return host_table(**{getattr(self, name, name): values for name, values in columns.items()})

    def hosts(self, which: str, table: HostTable, amount: int, **more: Any) -> list[str]:
        return passing(getattr(self, which), table, a_request(**{"root_gib": 0, self.asked: amount, **more}))


CORE = Kind(
    "CoreFilter", "AggregateCoreFilter", "ExactCoreFilter",
    "vcpus", "vcpus_reserved", "vcpus_ratio", "vcpus_used", "vcpus", "cpu_allocation_ratio", "VCPU",
)  # fmt: skip
RAM = Kind(
    "RamFilter", "AggregateRamFilter", "ExactRamFilter",
    "memory_mib", "memory_reserved_mib", "memory_ratio", "memory_used_mib", "memory_mib", "ram_allocation_ratio",
    "MEMORY_MB",
)  # fmt: skip
DISK = Kind(
    "DiskFilter", "AggregateDiskFilter", "ExactDiskFilter",
    "disk_gib", "disk_reserved_gib", "disk_ratio", "disk_used_gib", "root_gib", "disk_allocation_ratio", "DISK_GB",
)  # fmt: skip

each_kind = pytest.mark.parametrize("kind", [CORE, RAM, DISK], ids=lambda kind: kind.plain)
both = pytest.mark.parametrize("which", ["plain", "aggregate"])


@each_kind
@both
def test_free_is_by_ratio_less_what_is_reserved_and_used(kind: Kind, which: str) -> None:
    table = kind.table(
        total=[10, 10, 10, 10, 10],
        reserved=[0, 0, 2, 0, 2],
        ratio=[1.0, 1.0, 1.0, 1.5, 1.5],
        used=[6, 7, 4, 11, 9],  # free: 4, 3, 4, 4, 3
    )
    assert kind.hosts(which, table, 4) == ["h0", "h2", "h3"]


@each_kind
@both
def test_the_last_unit_fits_and_no_more(kind: Kind, which: str) -> None:
    table = kind.table(total=[8, 8], used=[0, 0], reserved=[0, 1])
    assert kind.hosts(which, table, 8) == ["h0"]
    assert kind.hosts(which, table, 7) == ["h0", "h1"]


@each_kind
@both
def test_a_server_over_commits_no_host_against_itself(kind: Kind, which: str) -> None:
    table = kind.table(total=[4, 5], ratio=[16.0, 1.0], aggregates={"a": {kind.key: "16.0"}}, member=[{"a"}, set()])
    assert kind.hosts(which, table, 5) == ["h1"]


@each_kind
@both
def test_parts_of_a_unit_do_not_count(kind: Kind, which: str) -> None:
    table = kind.table(total=[5], ratio=[1.5], used=[3])  # 7.5: 4 and a half are free
    assert kind.hosts(which, table, 4) == ["h0"]
    assert kind.hosts(which, table, 5) == []


@each_kind
@both
def test_who_asks_for_nothing_passes_full_hosts_too(kind: Kind, which: str) -> None:
    table = kind.table(total=[4], used=[9])
    assert kind.hosts(which, table, 0) == ["h0"]


@each_kind
@both
def test_a_host_without_inventory_passes_nobody(kind: Kind, which: str) -> None:
    assert kind.hosts(which, kind.table(total=[0]), 1) == []


def test_disk_is_root_ephemeral_and_swap_together() -> None:
    table = host_table(disk_gib=[15, 16, 17])
    assert passing("DiskFilter", table, a_request(root_gib=10, ephemeral_gib=5, swap_mib=1025)) == ["h2"]
    assert passing("DiskFilter", table, a_request(root_gib=10, ephemeral_gib=5, swap_mib=1024)) == ["h1", "h2"]


def test_cpus_of_the_servers_own_do_not_count_as_virtual_ones() -> None:
    pinned = a_request(vcpus=8, extra_specs={"hw:cpu_policy": "dedicated"})
    assert passing("CoreFilter", host_table(vcpus=[4]), pinned) == ["h0"]


def test_another_amount_may_be_asked_for_by_resource_class() -> None:
    spec = a_request(memory_mib=9999, extra_specs={"resources:MEMORY_MB": "512"})
    assert passing("RamFilter", host_table(memory_mib=[256, 512]), spec) == ["h1"]


# ---- ratios of aggregates --------------------------------------------------------------------------------------


@each_kind
def test_of_several_aggregates_the_smallest_ratio_counts(kind: Kind) -> None:
    table = kind.table(
        total=[10] * 4,
        used=[18] * 4,
        ratio=[1.0] * 4,
        aggregates={"big": {kind.key: "4.0"}, "small": {kind.key: "1.5"}, "other": {"color": "red"}},
        member=[{"big"}, {"big", "small"}, {"other"}, {"big", "other"}],
    )
    assert kind.hosts("aggregate", table, 2) == ["h0", "h3"]
    assert kind.hosts("plain", table, 2) == [], "that one does not read aggregates"


@each_kind
def test_an_aggregates_ratio_may_be_the_stricter_one(kind: Kind) -> None:
    table = kind.table(total=[10] * 2, ratio=[4.0] * 2, aggregates={"a": {kind.key: "0.5"}}, member=[{"a"}, set()])
    assert kind.hosts("aggregate", table, 6) == ["h1"]


@each_kind
@pytest.mark.parametrize("text", ["many", "", "nan", "inf", "1,2"])
def test_with_a_ratio_that_cannot_be_read_the_hosts_own_counts(kind: Kind, text: str) -> None:
    table = kind.table(
        total=[10] * 3,
        used=[11] * 3,
        ratio=[1.0, 2.0, 1.0],
        aggregates={"bad": {kind.key: text}, "good": {kind.key: "8.0"}},
        member=[{"bad"}, {"bad", "good"}, {"good"}],
    )
    assert kind.hosts("aggregate", table, 2) == ["h1", "h2"]
    assert kind.hosts("aggregate", table, 3) == ["h1", "h2"]
    assert only_complaint(table).startswith(f"aggregate 'bad': {kind.key} is '{text}', which is no number")


@each_kind
def test_a_negative_ratio_leaves_nothing(kind: Kind) -> None:
    table = kind.table(total=[10], aggregates={"a": {kind.key: "-1"}}, member=[{"a"}])
    assert kind.hosts("aggregate", table, 1) == []


# ---- exactly ---------------------------------------------------------------------------------------------------


@each_kind
def test_exactly_what_is_free_passes_and_neither_more_nor_less(kind: Kind) -> None:
    table = kind.table(total=[8, 9, 7, 12], used=[0, 0, 0, 4])
    assert kind.hosts("exact", table, 8) == ["h0", "h3"]


@each_kind
def test_what_a_host_keeps_for_itself_is_not_free(kind: Kind) -> None:
    table = kind.table(total=[8, 10], reserved=[2, 2])
    assert kind.hosts("exact", table, 8) == ["h1"]


@each_kind
def test_ratios_do_not_count_for_exact_hosts(kind: Kind) -> None:
    table = kind.table(total=[8], ratio=[2.0], aggregates={"a": {kind.key: "2.0"}}, member=[{"a"}])
    assert kind.hosts("exact", table, 16) == []
    assert kind.hosts("exact", table, 8) == ["h0"]


def test_exact_disk_is_of_all_disks_together() -> None:
    table = host_table(disk_gib=[16, 17])
    assert passing("ExactDiskFilter", table, a_request(root_gib=10, ephemeral_gib=5, swap_mib=1500)) == ["h1"]
