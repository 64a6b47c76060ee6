"""Filter, weigh, choose, explain: what comes out of a decision."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scheduler_builders import a_request, host_table

from kilonova.model.request_spec import Choice, RequestSpec
from kilonova.scheduler.decide import Rules, Scale, Weighted, decide, rank
from kilonova.scheduler.drivers.filter import FilterScheduler
from kilonova.scheduler.filters.liveness import ComputeFilter
from kilonova.scheduler.filters.room import CoreFilter, DiskFilter, RamFilter
from kilonova.scheduler.filters.zones import AvailabilityZoneFilter
from kilonova.scheduler.table import Column, HostTable, Mask
from kilonova.scheduler.weighers.room import CPUWeigher, DiskWeigher, RAMWeigher
from kilonova.scheduler.weighers.work import BuildFailureWeigher, IoOpsWeigher

FILTERS = (ComputeFilter(), AvailabilityZoneFilter(), CoreFilter(), RamFilter(), DiskFilter())


def choice_of(table: HostTable, spec: RequestSpec | None = None, **rules: Any) -> Choice:
    spec = spec or a_request()
    rules.setdefault("filters", FILTERS)
    return decide(table, spec, Rules(**rules), random.Random(1), server_id=spec.server_ids[0])


def hosts_of(choice: Choice) -> list[str]:
    return [candidate.host for candidate in choice.candidates]


@dataclass(frozen=True)
class Scored:
    """A weigher with given scores."""

    scores: tuple[float, ...]
    name: str = "Scored"
    multiplier_option: str = "scored_multiplier"

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return np.array(self.scores, dtype=float)


@dataclass(frozen=True)
class Never:
    name: str = "Never"

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        return hosts.everywhere(False)


# ---- filters ---------------------------------------------------------------------------------------------------


def test_each_filters_survivors_and_removals_are_told() -> None:
    table = host_table(4, is_up=[True, False, True, True], vcpus=[1, 16, 1, 16])
    choice = choice_of(table, a_request(vcpus=2))
    assert choice.explanation.filters == (
        ("", 4),
        ("ComputeFilter", 3),
        ("AvailabilityZoneFilter", 3),
        ("CoreFilter", 1),
        ("RamFilter", 1),
        ("DiskFilter", 1),
    )
    assert choice.explanation.removed == {"ComputeFilter": ("h1",), "CoreFilter": ("h0", "h2")}
    assert hosts_of(choice) == ["h3"]
    assert choice.explanation.chosen == ("h3",)
    assert choice.explanation.missing == ""


def test_at_most_so_many_removed_hosts_are_named() -> None:
    choice = choice_of(host_table(50), filters=(Never(),))
    assert choice.explanation.filters == (("", 50), ("Never", 0))
    assert len(choice.explanation.removed["Never"]) == 20


def test_rows_without_a_host_are_never_chosen() -> None:
    table = host_table(2)
    table._forget("h0", 0)
    choice = choice_of(table, filters=())
    assert hosts_of(choice) == ["h1"]
    assert choice.explanation.filters[0] == ("", 1)


def test_without_room_no_host_is_chosen_even_if_no_filter_asks_for_it() -> None:
    choice = choice_of(host_table(2, disk_gib=[5, 50]), filters=())
    assert hosts_of(choice) == ["h1"]
    assert choice.explanation.removed == {"room: DISK_GB": ("h0",)}


def test_a_forced_host_skips_all_filters() -> None:
    table = host_table(2, is_enabled=[False, True])
    choice = choice_of(table, a_request(force_host="h0"))
    assert hosts_of(choice) == ["h0"]
    assert choice.explanation.filters == (("", 2), ("force_host", 1))
    unknown = choice_of(table, a_request(force_host="nowhere"))
    assert unknown.candidates == ()
    assert "not known" in unknown.explanation.missing and "nowhere" not in unknown.explanation.missing


def test_a_requested_host_must_pass_the_filters() -> None:
    table = host_table(3, is_enabled=[False, True, True])
    assert hosts_of(choice_of(table, a_request(requested_host="h2"))) == ["h2"]
    refused = choice_of(table, a_request(requested_host="h0"))
    assert refused.candidates == ()
    assert refused.explanation.filters == (("", 3), ("requested_host", 1), ("ComputeFilter", 0))
    assert choice_of(table, a_request(requested_host="nowhere")).candidates == ()


def test_hosts_where_the_build_failed_are_left_out() -> None:
    table = host_table(3)
    assert hosts_of(choice_of(table, a_request(excluded_hosts=("h0", "gone")))) == ["h1", "h2"]
    nothing = choice_of(table, a_request(excluded_hosts=("h0", "h1", "h2")))
    assert nothing.explanation.missing == (
        "No host is left on which this build has not failed before (excluded_hosts)."
    )


# ---- weights ---------------------------------------------------------------------------------------------------


def test_scores_are_as_calculated_by_hand() -> None:
    table = host_table(
        3,
        memory_mib=[8192, 4096, 2048],  # 1, 0.5, 0.25
        vcpus=[2, 4, 8],  #               0.25, 0.5, 1
        disk_gib=[100, 100, 50],  #       1, 1, 0.5
        io_ops=[4, 0, 1],  #              1, 0, 0.25
        failed_builds=[0, 0, 3],  #       0, 0, 1
    )
    weighers = (
        Weighted(RAMWeigher(), 1.0, minimum=0.0),
        Weighted(CPUWeigher(), 2.0, minimum=0.0),
        Weighted(DiskWeigher(), -1.0, minimum=0.0),
        Weighted(IoOpsWeigher(), -1.0, minimum=0.0),
        Weighted(BuildFailureWeigher(), -1000.0),
    )
    choice = choice_of(table, weighers=weighers)
    scores = choice.explanation.scores
    names = ("RAMWeigher", "CPUWeigher", "DiskWeigher", "IoOpsWeigher", "BuildFailureWeigher")
    assert [scores["h0"][name] for name in names] == [1.0, 0.5, -1.0, -1.0, 0.0]
    assert [scores["h1"][name] for name in names] == [0.5, 1.0, -1.0, 0.0, 0.0]
    assert [scores["h2"][name] for name in names] == [0.25, 2.0, -0.5, -0.25, -1000.0]
    assert [(c.host, c.weight) for c in choice.candidates] == [("h1", 0.5), ("h0", -0.5), ("h2", -998.5)]


def test_only_hosts_that_passed_set_the_scale() -> None:
    table = host_table(3, is_up=[True, True, False], memory_mib=[2048, 4096, 1 << 20])
    choice = choice_of(table, weighers=(Weighted(RAMWeigher(), 1.0, minimum=0.0),))
    assert [(c.host, c.weight) for c in choice.candidates] == [("h1", 1.0), ("h0", 0.5)]


def test_a_multipliers_sign_turns_spreading_into_packing() -> None:
    table = host_table(3, memory_used_mib=[0, 1024, 2048])
    spread = choice_of(table, weighers=(Weighted(RAMWeigher(), 1.0, minimum=0.0),))
    pack = choice_of(table, weighers=(Weighted(RAMWeigher(), -1.0, minimum=0.0),))
    assert hosts_of(spread) == ["h0", "h1", "h2"]
    assert hosts_of(pack) == ["h2", "h1", "h0"]


def scaled(raw: list[float], minimum: float | None, maximum: float | None) -> list[float]:
    weighted = Weighted(Scored(tuple(raw)), 1.0, minimum, maximum)
    scale = Scale.of(weighted, weighted.clamped(np.array(raw)), np.arange(len(raw)), 1.0)
    return scale.part(np.arange(len(raw))).tolist()


def test_equal_scores_count_for_nothing() -> None:
    assert scaled([7.0, 7.0], None, None) == [0.0, 0.0]
    assert scaled([0.0, 0.0], 0.0, None) == [0.0, 0.0]


def test_scores_do_not_leave_the_given_ends() -> None:
    assert scaled([-4.0, 1.0, 2.0], 0.0, None) == [0.0, 0.5, 1.0]
    assert scaled([0.0, 1.0, 4.0], None, 2.0) == [0.0, 0.5, 1.0]


def test_an_aggregates_multiplier_wins_and_of_several_the_smallest() -> None:
    table = host_table(
        aggregates={
            "a": {"ram_weight_multiplier": "10"},
            "b": {"ram_weight_multiplier": "4"},
            "c": {"ram_weight_multiplier": "no"},
        },
        member=[{"a"}, {"a", "b"}, set(), {"c"}],
    )
    choice = choice_of(table, weighers=(Weighted(RAMWeigher(), 2.0, minimum=0.0),))
    assert {c.host: c.weight for c in choice.candidates} == {"h0": 10.0, "h1": 4.0, "h2": 2.0, "h3": 2.0}


def test_an_aggregates_build_failure_multiplier_pushes_away_too() -> None:
    table = host_table(
        failed_builds=[0, 1, 1],
        aggregates={"a": {"build_failure_weight_multiplier": "5"}},
        member=[set(), {"a"}, set()],
    )
    choice = choice_of(table, weighers=(Weighted(BuildFailureWeigher(), -1000.0),))
    assert {c.host: c.weight for c in choice.candidates} == {"h0": 0.0, "h1": -5.0, "h2": -1000.0}


# ---- choosing --------------------------------------------------------------------------------------------------


def test_of_equal_hosts_the_first_is_taken() -> None:
    assert rank(np.zeros(5), 5, Rules(filters=()), random.Random(1)) == [0, 1, 2, 3, 4]


def test_the_list_is_as_long_as_asked_for() -> None:
    assert rank(np.array([1.0, 3.0, 2.0]), 3, Rules(filters=(), max_candidates=2), random.Random(1)) == [1, 2]


def test_equal_best_hosts_are_shuffled_and_worse_ones_never_first() -> None:
    rules = Rules(filters=(), shuffle_best=True, max_candidates=4)
    rng = random.Random(7)
    orders = [rank(np.array([5.0, 1.0, 5.0, 5.0]), 4, rules, rng) for _ in range(600)]
    firsts = Counter(order[0] for order in orders)
    assert set(firsts) == {0, 2, 3}
    assert all(150 < count < 250 for count in firsts.values())
    assert all(sorted(order) == [0, 1, 2, 3] and order[-1] == 1 for order in orders)


def test_the_first_is_drawn_from_the_best_few() -> None:
    rules = Rules(filters=(), host_subset_size=3, max_candidates=2)
    rng = random.Random(7)
    orders = [rank(np.array([1.0, 4.0, 3.0, 2.0]), 4, rules, rng) for _ in range(600)]
    firsts = Counter(order[0] for order in orders)
    assert set(firsts) == {1, 2, 3}
    assert all(150 < count < 250 for count in firsts.values())
    assert {tuple(order) for order in orders} == {(1, 2), (2, 1), (3, 1)}


# ---- several servers at once ---------------------------------------------------------------------------------


def scheduler(**rules: Any) -> FilterScheduler:
    rules.setdefault("filters", FILTERS)
    rules.setdefault("weighers", (Weighted(RAMWeigher(), 1.0, minimum=0.0),))
    return FilterScheduler(Rules(**rules), random.Random(1))


def test_a_thousand_servers_fill_a_thousand_places_exactly() -> None:
    table = host_table(100, vcpus=[10] * 100)
    choices = scheduler().select(table, a_request(*(f"s{n}" for n in range(1001))), now=0.0)
    placed = Counter(choice.candidates[0].host for choice in choices if choice.candidates)
    assert placed == {f"h{n}": 10 for n in range(100)}
    assert [choice.server_id for choice in choices if not choice.candidates] == ["s1000"]


def test_servers_of_one_request_come_out_as_if_asked_one_by_one() -> None:
    memory = [random.Random(3).randrange(4096, 65536) for _ in range(40)]
    together, apart = host_table(40, memory_mib=memory), host_table(40, memory_mib=memory)
    ids = tuple(f"s{n}" for n in range(100))
    batch = scheduler().select(together, a_request(*ids), now=0.0)
    single = [choice for each in ids for choice in scheduler().select(apart, a_request(each), now=0.0)]
    assert batch == single


def test_what_was_promised_long_ago_and_never_claimed_refuses_nobody() -> None:
    table = host_table(1, vcpus=[4])
    driver = scheduler()
    [first] = driver.select(table, a_request("s1", vcpus=4), now=100.0)
    assert first.candidates
    [second] = driver.select(table, a_request("s2", vcpus=4), now=101.0)
    assert not second.candidates
    [third] = driver.select(table, a_request("s3", vcpus=4), now=103.0)
    assert third.candidates
    [fourth] = driver.select(table, a_request("s4", vcpus=4), now=103.0)
    assert not fourth.candidates, "s3 was chosen just now"


def test_what_is_promised_steers_as_long_as_there_is_another_host() -> None:
    table = host_table(2, vcpus=[4, 4])
    driver = scheduler()
    [first] = driver.select(table, a_request("s1", vcpus=4), now=100.0)
    [second] = driver.select(table, a_request("s2", vcpus=4), now=120.0)
    assert {first.candidates[0].host, second.candidates[0].host} == {"h0", "h1"}


# ---- what was missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_values", "sentence"),
    [
        ({"vcpus": 17}, "No host has 17 free vCPUs; the largest free is 16, on 2 hosts (CoreFilter)."),
        (
            {"memory_mib": 65536},
            "No host has 65536 MiB of free memory; the largest free is 32768 MiB, on 3 hosts (RamFilter).",
        ),
        ({"availability_zone": "az9"}, "No host is in availability zone 'az9' (AvailabilityZoneFilter)."),
        (
            {"availability_zone": "az1", "vcpus": 16},
            "No host in availability zone 'az1' has 16 free vCPUs; the largest free is 8, on 1 host (CoreFilter).",
        ),
    ],
)
def test_the_missing_is_told_with_the_nearest_that_would_do(request_values: dict[str, Any], sentence: str) -> None:
    table = host_table(vcpus=[8, 16, 16], aggregates={"z": {"availability_zone": "az1"}}, member=[{"z"}, set(), set()])
    choice = choice_of(table, a_request(**request_values))
    assert choice.explanation.missing == sentence


def test_a_smaller_change_elsewhere_is_told_too() -> None:
    # h0 fails at CPUs and memory; h1 fails at its zone alone.
    table = host_table(
        vcpus=[2, 16],
        memory_mib=[1024, 32768],
        aggregates={"z": {"availability_zone": "az1"}},
        member=[{"z"}, set()],
    )
    choice = choice_of(table, a_request(vcpus=4, memory_mib=4096, availability_zone="az1"))
    assert choice.explanation.missing == (
        "No host in availability zone 'az1' has 4 free vCPUs; the largest free is 2, on 1 host (CoreFilter)."
        " All else fits on 1 host, but none of these is in availability zone 'az1' (AvailabilityZoneFilter)."
    )


def test_no_host_is_ever_named_to_users() -> None:
    table = host_table(5, vcpus=[1] * 5)
    for spec in (
        a_request(vcpus=2),
        a_request(requested_host="h1", vcpus=2),
        a_request(excluded_hosts=("h1",), vcpus=2),
    ):
        missing = choice_of(table, spec).explanation.missing
        assert missing
        assert not any(f"h{n}" in missing.split() for n in range(5))


def test_an_empty_cloud_says_so() -> None:
    assert choice_of(HostTable()).explanation.missing == "The cloud has no hosts."


def test_a_filter_that_tells_nothing_is_at_least_named() -> None:
    assert choice_of(host_table(2), filters=(Never(),)).explanation.missing == "No host passes Never (Never)."
