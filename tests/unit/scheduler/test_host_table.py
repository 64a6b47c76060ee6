"""The table says what the feed says, less what has been promised."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_builders import a_host, a_request, aggregate_states, host_table

from kilonova.scheduler.columns import Group
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable


def free(table: HostTable, name: str = "h0") -> tuple[int, int, int]:
    row = table.row_of[name]
    return int(table.free_vcpus[row]), int(table.free_memory_mib[row]), int(table.free_disk_gib[row])


def test_free_is_what_ratio_and_reservation_leave() -> None:
    table = HostTable()
    table.apply(
        [
            a_host(
                vcpus=8, vcpus_reserved=1, vcpus_ratio=2.5, vcpus_used=3,
                memory_mib=1000, memory_reserved_mib=100, memory_ratio=1.5, memory_used_mib=50,
                disk_gib=10, disk_reserved_gib=3, disk_ratio=1.0, disk_used_gib=9,
            )
        ]
    )  # fmt: skip
    assert free(table) == (17 - 3, 1350 - 50, 7 - 9)  # 7 * 2.5 is 17.5: half a CPU is nobody's


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(0, 512),
    reserved=st.integers(0, 64),
    ratio=st.floats(0.01, 64),
    used=st.integers(0, 4096),
    amount=st.integers(1, 256),
)
def test_what_fits_here_fits_in_the_claims_own_condition(
    total: int, reserved: int, ratio: float, used: int, amount: int
) -> None:
    table = HostTable()
    table.apply([a_host(vcpus=total, vcpus_reserved=reserved, vcpus_ratio=ratio, vcpus_used=used)])
    assert bool(table.free_vcpus[0] >= amount) == (used + amount <= (total - reserved) * ratio)


def test_an_older_row_changes_nothing() -> None:
    table = HostTable()
    table.apply([a_host(seq=5, vcpus_used=5)])
    table.apply([a_host(seq=4, vcpus_used=4), a_host(seq=5, vcpus_used=6)])
    assert table.vcpus_used.tolist() == [5]
    assert table.seq == 5


def test_the_later_of_two_rows_of_one_page_counts() -> None:
    table = HostTable()
    table.apply([a_host(seq=1, vcpus_used=1), a_host(seq=2, vcpus_used=2)])
    assert len(table) == 1
    assert table.vcpus_used.tolist() == [2]


def test_rows_of_hosts_that_left_are_used_again() -> None:
    table = host_table(3)
    table.apply([a_host("h1", seq=9, id=101, deleted=True)])
    assert len(table) == 2
    assert table.alive.tolist() == [True, False, True]
    table.apply([a_host("new", seq=10, id=300, io_ops=7)])
    assert table.size == 3
    assert table.row_of["new"] == 1
    assert table.io_ops.tolist() == [0, 7, 0]
    assert "h1" not in table.row_of


def test_a_host_that_came_and_went_in_one_page_is_not_there() -> None:
    table = HostTable()
    table.apply([a_host("x", seq=1), a_host("x", seq=2, deleted=True), a_host("y", seq=3)])
    assert list(table.row_of) == ["y"]
    assert table.alive.sum() == 1


def test_a_deleted_host_may_come_back() -> None:
    table = host_table(1)
    table.apply([a_host("h0", seq=2, deleted=True)])
    table.apply([a_host("h0", seq=3, vcpus_used=4)])
    assert table.alive[table.row_of["h0"]]
    assert table.vcpus_used[table.row_of["h0"]] == 4


def test_columns_grow_and_keep_what_they_have() -> None:
    table = HostTable(capacity=2)
    table.apply([a_host(f"h{n}", seq=n + 1, id=n, io_ops=n) for n in range(1000)])
    assert len(table.io_ops) == table.size == 1000
    assert table.io_ops.tolist() == list(range(1000))


def test_what_changed_can_be_asked_by_rows_and_groups() -> None:
    table = host_table(3)

    def changed_by(**values: Any) -> tuple[list[int], Group]:
        before = table.version
        table.apply([a_host("h1", seq=table.seq + 1, id=101, **values)])
        rows = table.changed_rows(before)
        assert rows is not None
        return rows.tolist(), Group(table.changed_groups(before))

    usage = Group.USAGE
    assert changed_by(vcpus_used=1) == ([1], usage)
    assert changed_by(vcpus_used=1, is_up=False) == ([1], usage | Group.LIVENESS)
    assert changed_by(vcpus_used=1, is_up=False, hypervisor_version=9) == ([1], usage | Group.FACTS)
    assert changed_by(vcpus_used=1, is_up=False, hypervisor_version=9, vcpus_ratio=3.0) == ([1], usage | Group.FACTS)


def test_choices_change_usage() -> None:
    table = host_table(3)
    start = table.version
    table.take(needs_of(a_request()), "s1", 2)
    table.take(needs_of(a_request()), "s2", 0)
    table.settle(["s1"])
    rows = table.changed_rows(start)
    assert rows is not None and rows.tolist() == [0, 2]
    assert table.changed_groups(start) == Group.USAGE
    assert table.changed_groups(table.version) == 0


def test_new_hosts_and_aggregates_change_everything() -> None:
    table = host_table(3)
    start = table.version
    table.set_aggregates(1, [])
    assert table.changed_rows(start) is None
    start = table.version
    table.apply([a_host("new", seq=99, id=9)])
    assert table.changed_rows(start) is None


# ---- aggregates ------------------------------------------------------------------------------------------------


def test_the_smallest_value_of_a_hosts_aggregates_counts() -> None:
    table = host_table(
        aggregates={"a": {"limit": "5"}, "b": {"limit": "3"}, "c": {"limit": "many"}, "d": {}},
        member=[{"a", "b"}, {"a"}, {"a", "c"}, {"d"}, set()],
    )
    assert table.aggregate_min("limit", 9).tolist() == [3, 5, 9, 9, 9]
    [complaint] = table.complaints
    assert "'c'" in complaint and "'many'" in complaint


def test_new_hosts_find_their_aggregates() -> None:
    table = host_table(aggregates={"a": {"limit": "5"}}, member=[{"a"}, set(), {"a"}])
    table.set_aggregates(2, aggregate_states({"b": {"limit": "2"}}, [set(), set(), set(), {"b"}]))
    assert table.aggregate_min("limit", 9).tolist() == [9, 9, 9]
    table.apply([a_host("h3", seq=50, id=103)])
    assert table.aggregate_min("limit", 9).tolist() == [9, 9, 9, 2]


# ---- choices of ours -------------------------------------------------------------------------------------------


def test_a_choice_is_deducted_until_its_claim_is_seen() -> None:
    table = host_table(1)
    table.take(needs_of(a_request("s1", vcpus=4, memory_mib=2048, root_gib=20)), "s1", 0)
    assert free(table) == (12, 30720, 480)
    assert (table.num_instances[0], table.io_ops[0]) == (1, 1)
    # A newer row that does not have the claim yet takes nothing away ...
    table.apply([a_host("h0", seq=2, id=100, vcpus_used=1)])
    assert free(table) == (11, 30720, 480)
    # ... and one that has it replaces the deduction.
    table.apply([a_host("h0", seq=3, id=100, vcpus_used=5, memory_used_mib=2048, disk_used_gib=20, num_instances=1)])
    table.settle({"s1": 100})
    assert free(table) == (11, 30720, 480)
    assert (table.num_instances[0], table.io_ops[0]) == (1, 0)
    assert not table.pending


def test_a_claim_on_an_alternate_frees_the_first_choice() -> None:
    table = host_table(2)
    table.take(needs_of(a_request("s1", vcpus=4)), "s1", 0)
    table.apply([a_host("h1", seq=9, id=101, vcpus_used=4)])
    table.settle({"s1": 101})
    assert table.free_vcpus.tolist() == [16, 12]


def test_a_servers_newer_choice_replaces_the_older() -> None:
    table = host_table(2)
    table.take(needs_of(a_request("s1", vcpus=4)), "s1", 0)
    table.take(needs_of(a_request("s1", vcpus=4)), "s1", 1)
    assert table.free_vcpus.tolist() == [16, 12]
    table.take(needs_of(a_request("s1", vcpus=2)), "s1", 1)
    assert table.free_vcpus.tolist() == [16, 14]


def test_choices_that_were_never_claimed_are_forgotten() -> None:
    table = host_table(1)
    table.take(needs_of(a_request("old")), "old", 0, at=10.0)
    table.take(needs_of(a_request("new")), "new", 0, at=20.0)
    assert table.expire(before=15.0) == 1
    assert set(table.pending) == {"new"}
    assert table.free_vcpus.tolist() == [15]


def test_doubtful_choices_can_be_left_out_for_a_moment() -> None:
    table = host_table(1)
    table.take(needs_of(a_request("old", vcpus=10)), "old", 0, at=10.0)
    table.take(needs_of(a_request("new", vcpus=3)), "new", 0, at=20.0)
    with table.without_doubtful(before=15.0) as there_are_some:
        assert there_are_some
        assert table.free_vcpus.tolist() == [13]
    assert table.free_vcpus.tolist() == [3]
    with table.without_doubtful(before=5.0) as there_are_some:
        assert not there_are_some


def test_a_host_that_leaves_takes_its_choices_along() -> None:
    table = host_table(1)
    table.take(needs_of(a_request("s1", vcpus=4)), "s1", 0)
    table.apply([a_host("h0", seq=2, id=100, deleted=True)])
    assert not table.pending
    table.apply([a_host("other", seq=3, id=7)])
    assert table.free_vcpus.tolist() == [16]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_free_is_limit_less_used_less_pending(data: st.DataObject) -> None:
    """A model with plain dictionaries goes through the same story."""
    table = HostTable(capacity=2)
    used: dict[str, int] = {}
    pending: dict[str, tuple[str, int]] = {}
    for seq in range(1, data.draw(st.integers(2, 31))):
        name = data.draw(st.sampled_from(["a", "b", "c"]))
        match data.draw(st.sampled_from(["row", "row", "gone", "take", "take", "settle"])):
            case "row":
                used[name] = data.draw(st.integers(0, 16))
                table.apply([a_host(name, seq=seq, id=ord(name), vcpus_used=used[name])])
            case "gone":
                if name in used:
                    del used[name]
                    pending = {s: p for s, p in pending.items() if p[0] != name}
                table.apply([a_host(name, seq=seq, id=ord(name), deleted=True)])
            case "take" if name in used:
                server, vcpus = data.draw(st.sampled_from("xyz")), data.draw(st.integers(1, 5))
                pending[server] = (name, vcpus)
                table.take(needs_of(a_request(server, vcpus=vcpus)), server, table.row_of[name])
            case "settle" if pending:
                server = data.draw(st.sampled_from(sorted(pending)))
                del pending[server]
                table.settle({server: 1})
            case _:
                pass
    assert set(table.row_of) == set(used)
    for name, taken in used.items():
        promised = sum(vcpus for host, vcpus in pending.values() if host == name)
        assert table.free_vcpus[table.row_of[name]] == 16 - taken - promised
    assert table.alive.sum() == len(used)


def test_profiles_that_nobody_has_are_forgotten() -> None:
    table = host_table(2)
    for n in range(500):
        table.apply([a_host("h0", seq=table.seq + 1, id=100, capabilities={"counter": n})])
    answers = table.by_profile("counter", lambda profile: profile.capabilities.get("counter", -1), np.int64)
    assert answers.tolist() == [499, -1]
    assert len(table._profiles.values) < 100


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_equal_hosts_share_a_profile(rows: int) -> None:
    table = host_table(rows)
    asked: list[str] = []
    table.by_profile("q", lambda profile: bool(asked.append(profile.name)))
    assert len(asked) == 1
