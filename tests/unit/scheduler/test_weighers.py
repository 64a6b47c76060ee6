"""Weighers: what each prefers, how scores become parts of a total, whose multiplier counts, and who is drawn."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from scheduler_builders import a_request, chi_square, host_table

from kilonova.base.config import Config
from kilonova.launch.plugins import build_rules, own_weighers
from kilonova.model.host import PciPool
from kilonova.model.request_spec import Choice, RequestSpec, ServerGroup
from kilonova.scheduler.decide import Rules, decide
from kilonova.scheduler.drivers.filter import FilterScheduler
from kilonova.scheduler.table import HostTable


@dataclass(frozen=True)
class Case:
    """Three hosts of which a weigher gives h0 the lowest score and h2 the highest."""

    name: str
    option: str
    columns: dict[str, list[Any]]
    parts: tuple[float, float, float]
    """What the scores become on the scale from 0 to 1."""
    request: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_section: str = "filter_scheduler"
    option_there: str = ""
    alone: float = 0.0
    """The part of h2 if there is no other host."""

    def table(self, *, only: int | None = None, **more: Any) -> HostTable:
        rows = range(3) if only is None else [only]
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return host_table(**columns, **more)

    def rules(self, multiplier: float | None) -> Rules:
        overrides: dict[str, dict[str, Any]] = {
            "filter_scheduler": {"enabled_filters": (), "weight_classes": (self.name,)},
            **{section: dict(values) for section, values in self.sections.items()},
        }
        if multiplier is not None:
            overrides.setdefault(self.in_section, {})[self.option_there or self.option] = multiplier
        return build_rules(Config(overrides=overrides))

    def weights(self, table: HostTable, multiplier: float | None) -> dict[str, float]:
        choice = decide(table, self.spec, self.rules(multiplier), random.Random(1), server_id="server-1")
        return {candidate.host: candidate.weight for candidate in choice.candidates}

    @property
    def spec(self) -> RequestSpec:
        return a_request(**self.request)


def pools(*free: int) -> list[tuple[PciPool, ...]]:
    return [(PciPool(vendor_id="10de", product_id="1db4", free=number),) if number else () for number in free]


def in_group(policy: str, *hosts: str) -> dict[str, Any]:
    members = {f"m{number}": host for number, host in enumerate(hosts)}
    return {"group": ServerGroup(id="g", policy=policy, members=members)}


CASES = [
    Case("RAMWeigher", "ram_weight_multiplier", {"memory_mib": [2048, 4096, 8192]}, (0.25, 0.5, 1.0), alone=1.0),
    Case("CPUWeigher", "cpu_weight_multiplier", {"vcpus_used": [14, 12, 8]}, (0.25, 0.5, 1.0), alone=1.0),
    Case("DiskWeigher", "disk_weight_multiplier", {"disk_gib": [100, 200, 400]}, (0.25, 0.5, 1.0), alone=1.0),
    Case("IoOpsWeigher", "io_ops_weight_multiplier", {"io_ops": [1, 2, 4]}, (0.25, 0.5, 1.0), alone=1.0),
    Case("NumInstancesWeigher", "num_instances_weight_multiplier", {"num_instances": [1, 2, 5]}, (0.0, 0.25, 1.0)),
    Case(
        "MetricsWeigher",
        "metrics_weight_multiplier",
        {"metrics": [{"cpu": 0.5, "net": 1.5}, {"cpu": 0.25, "net": 2.25}, {"cpu": 0.0, "net": 7.0}]},
        (0.0, 0.25, 1.0),  # scores -1, 1 and 7
        sections={"metrics": {"weight_setting": ("cpu=-5.0", "net=1.0")}},
        in_section="metrics",
        option_there="weight_multiplier",
    ),
    Case("PCIWeigher", "pci_weight_multiplier", {"pci": pools(4, 3, 0)}, (0.0, 0.25, 1.0)),
    Case(
        "ServerGroupSoftAffinityWeigher",
        "soft_affinity_weight_multiplier",
        {"vcpus": [16] * 3},
        (0.0, 0.5, 1.0),
        request=in_group("soft-affinity", "h1", "h2", "h2"),
    ),
    Case(
        "ServerGroupSoftAntiAffinityWeigher",
        "soft_anti_affinity_weight_multiplier",
        {"vcpus": [16] * 3},
        (0.0, 0.5, 1.0),
        request=in_group("soft-anti-affinity", "h0", "h0", "h1"),
    ),
    Case("BuildFailureWeigher", "build_failure_weight_multiplier", {"failed_builds": [4, 3, 0]}, (-1.0, -0.75, 0.0)),
    Case(
        "CrossCellWeigher",
        "cross_cell_move_weight_multiplier",
        {"cell": ["c1", "", "c2"]},
        (0.0, 0.0, 1.0),
        request={"source_cell": "c2"},
    ),
    Case(
        "HypervisorVersionWeigher",
        "hypervisor_version_weight_multiplier",
        {"hypervisor_version": [7_000_000, 7_500_000, 9_000_000]},
        (0.0, 0.25, 1.0),
    ),
    Case(
        "ImagePropertiesWeigher",
        "image_props_weight_multiplier",
        {"server_image_properties": [{"os=bsd": 9}, {"os=linux": 1, "x=1": 9}, {"os=linux": 3, "v=7": 1}]},
        (0.0, 0.25, 1.0),
        request={"image_properties": {"os": "linux", "v": 7}},
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_there_is_a_case_for_every_weigher() -> None:
    assert {case.name for case in CASES} == set(own_weighers())


# ---- order, scale, multipliers -------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("multiplier", [1.0, 2.5, -1.0, -1000.0])
def test_scores_come_on_one_scale_times_the_multiplier(case: Case, multiplier: float) -> None:
    expected = {f"h{n}": part * multiplier for n, part in enumerate(case.parts)}
    assert case.weights(case.table(), multiplier) == pytest.approx(expected)


@each_case
def test_a_positive_multiplier_prefers_the_highest_and_a_negative_one_the_lowest(case: Case) -> None:
    best = max(case.parts)
    worst = min(case.parts)
    first_of_best = f"h{case.parts.index(best)}"
    first_of_worst = f"h{case.parts.index(worst)}"
    assert next(iter(case.weights(case.table(), 1.0))) == first_of_best == "h2"
    assert next(iter(case.weights(case.table(), -1.0))) == first_of_worst == "h0"


@each_case
def test_with_zero_it_does_not_count_at_all(case: Case) -> None:
    choice = decide(case.table(), case.spec, case.rules(0.0), random.Random(1), server_id="server-1")
    assert [(c.host, c.weight) for c in choice.candidates] == [("h0", 0.0), ("h1", 0.0), ("h2", 0.0)]
    assert all(not any(scores.values()) for scores in choice.explanation.scores.values())


@each_case
def test_equal_hosts_weigh_the_same(case: Case) -> None:
    table = host_table(3, **{name: [values[2]] * 3 for name, values in case.columns.items()})
    request = {} if "group" in case.request else case.request
    alike = Case(**{**vars(case), "request": request})
    weights = alike.weights(table, 3.0)
    assert set(weights.values()) == {3.0 * case.alone}
    assert list(weights) == ["h0", "h1", "h2"]


@each_case
def test_one_host_alone(case: Case) -> None:
    only = case.table(only=2)
    assert list(case.weights(only, 3.0).values()) == [3.0 * case.alone]


@pytest.mark.parametrize(
    ("name", "multiplier"),
    [
        ("RAMWeigher", 1.0),
        ("CPUWeigher", 1.0),
        ("DiskWeigher", 1.0),
        ("IoOpsWeigher", -1.0),
        ("NumInstancesWeigher", 0.0),
        ("MetricsWeigher", 1.0),
        ("PCIWeigher", 1.0),
        ("ServerGroupSoftAffinityWeigher", 1.0),
        ("ServerGroupSoftAntiAffinityWeigher", 1.0),
        ("BuildFailureWeigher", -1_000_000.0),
        ("CrossCellWeigher", 1_000_000.0),
        ("HypervisorVersionWeigher", 1.0),
        ("ImagePropertiesWeigher", 0.0),
    ],
)
def test_default_multipliers_are_the_classic_ones(name: str, multiplier: float) -> None:
    built = {weighted.weigher.name: weighted.multiplier for weighted in build_rules(Config()).weighers}
    assert built[name] == multiplier
    assert set(built) == set(own_weighers())


# ---- multipliers of aggregates -------------------------------------------------------------------------------


@each_case
def test_an_aggregates_multiplier_wins_for_its_hosts(case: Case) -> None:
    table = case.table(aggregates={"a": {case.option: "10"}}, member=[{"a"}, set(), {"a"}])
    factors = (10.0, 2.0, 10.0)
    expected = {f"h{n}": part * factor for n, (part, factor) in enumerate(zip(case.parts, factors, strict=True))}
    assert case.weights(table, 2.0) == pytest.approx(expected)


@each_case
def test_of_several_aggregates_the_smallest_multiplier_counts(case: Case) -> None:
    table = case.table(
        aggregates={"a": {case.option: "10"}, "b": {case.option: " 4 "}}, member=[{"a", "b"}, {"a", "b"}, {"b", "a"}]
    )
    assert case.weights(table, 2.0) == pytest.approx({f"h{n}": part * 4.0 for n, part in enumerate(case.parts)})


@each_case
def test_an_aggregate_may_switch_a_weigher_on_and_turn_it_round(case: Case) -> None:
    table = case.table(aggregates={"a": {case.option: "-2"}}, member=[{"a"}, {"a"}, {"a"}])
    for configured in (0.0, 5.0):
        assert case.weights(table, configured) == pytest.approx({f"h{n}": -2 * p for n, p in enumerate(case.parts)})


@each_case
@pytest.mark.parametrize("text", ["much", "", "nan", "1,5"])
def test_with_a_multiplier_that_cannot_be_read_the_configured_one_counts(case: Case, text: str) -> None:
    table = case.table(
        aggregates={"bad": {case.option: text}, "good": {case.option: "10"}},
        member=[{"bad", "good"}, {"bad"}, {"good"}],
    )
    factors = (2.0, 2.0, 10.0)
    expected = {f"h{n}": part * factor for n, (part, factor) in enumerate(zip(case.parts, factors, strict=True))}
    for _ in range(2):
        assert case.weights(table, 2.0) == pytest.approx(expected)
    [complaint] = table.complaints
    assert f"aggregate 'bad': {case.option} is '{text}', which is no number" in complaint


# ---- particulars -----------------------------------------------------------------------------------------------


def choice_of(table: HostTable, spec: RequestSpec, sections: dict[str, Any] | None = None, **options: Any) -> Choice:
    config = Config(overrides={"filter_scheduler": {"enabled_filters": (), **options}, **(sections or {})})
    return decide(table, spec, build_rules(config), random.Random(1), server_id="server-1")


def test_over_committed_hosts_weigh_no_less_than_full_ones() -> None:
    table = host_table(vcpus_used=[30, 16, 0])
    spec = a_request(vcpus=0)
    parts = choice_of(table, spec, weight_classes=("CPUWeigher",)).explanation.scores
    assert {host: scores["CPUWeigher"] for host, scores in parts.items()} == {"h0": 0.0, "h1": 0.0, "h2": 1.0}


def test_a_host_that_lacks_a_metric_comes_last_as_the_option_says() -> None:
    table = host_table(metrics=[{}, {"cpu": -3.0}, {"cpu": 1.0}])
    setting = {"weight_setting": ("cpu=1.0",)}
    choice = choice_of(table, a_request(), {"metrics": setting}, weight_classes=("MetricsWeigher",))
    assert [c.host for c in choice.candidates] == ["h2", "h1", "h0"]
    assert choice.candidates[1].weight == pytest.approx(1.0, abs=0.001), "the gap is that large"
    mild = {"metrics": {**setting, "weight_of_unavailable": -1.0}}
    choice = choice_of(table, a_request(), mild, weight_classes=("MetricsWeigher",))
    assert [(c.host, c.weight) for c in choice.candidates] == [("h2", 1.0), ("h0", 0.5), ("h1", 0.0)]


def test_a_metric_of_ratio_zero_need_not_be_there() -> None:
    table = host_table(metrics=[{"cpu": 1.0}, {"cpu": 3.0}])
    setting = {"weight_setting": ("cpu=1.0", "net=0")}
    choice = choice_of(table, a_request(), {"metrics": setting}, weight_classes=("MetricsWeigher",))
    assert [(c.host, c.weight) for c in choice.candidates] == [("h1", 1.0), ("h0", 0.0)]


def test_servers_that_do_not_move_are_in_no_cell() -> None:
    choice = choice_of(host_table(cell=["c1", "c2"]), a_request(), weight_classes=("CrossCellWeigher",))
    assert {c.weight for c in choice.candidates} == {0.0}


def test_image_properties_count_as_set_and_others_not() -> None:
    table = host_table(server_image_properties=[{"os=linux": 1}, {"v=7": 3}, {"arch=arm": 9}])
    spec = a_request(image_properties={"os": "linux", "v": 7, "arch": "arm"})
    choice = choice_of(
        table,
        spec,
        weight_classes=("ImagePropertiesWeigher",),
        image_props_weight_multiplier=1.0,
        image_props_weight_setting=("os=6", "v=1"),
    )
    assert [(c.host, c.weight) for c in choice.candidates] == [("h0", 1.0), ("h1", 0.5), ("h2", 0.0)]


def test_more_than_so_many_free_devices_make_no_difference() -> None:
    choice = choice_of(host_table(pci=pools(99, 500, 98)), a_request(), weight_classes=("PCIWeigher",))
    assert {c.host: c.weight for c in choice.candidates} == {"h2": 1.0, "h0": 0.0, "h1": 0.0}


@pytest.mark.parametrize("policy", ["affinity", "anti-affinity"])
def test_hard_rules_are_not_weighed(policy: str) -> None:
    choice = choice_of(host_table(2), a_request(**in_group(policy, "h1")))
    assert len({c.weight for c in choice.candidates}) == 1


def test_failed_builds_outweigh_all_room() -> None:
    table = host_table(failed_builds=[0, 1], memory_mib=[2048, 1 << 20], vcpus=[2, 64], disk_gib=[20, 9000])
    assert [c.host for c in choice_of(table, a_request()).candidates] == ["h0", "h1"]


def test_classes_may_be_named_one_by_one_or_all() -> None:
    def names(*classes: str) -> list[str]:
        overrides = {"filter_scheduler": {"weight_classes": classes}}
        return [weighted.weigher.name for weighted in build_rules(Config(overrides=overrides)).weighers]

    assert names("DiskWeigher", "RAMWeigher") == ["DiskWeigher", "RAMWeigher"]
    assert names("nova.scheduler.weights.ram.RAMWeigher") == ["RAMWeigher"]
    assert set(names("all_weighers")) == set(names("nova.scheduler.weights.all_weighers")) == set(own_weighers())


# ---- who is drawn ----------------------------------------------------------------------------------------------


def drawn(table: HostTable, times: int, **options: Any) -> Counter[str]:
    """First hosts of many decisions about the same table."""
    config = {"enabled_filters": (), "weight_classes": ("RAMWeigher",), **options}
    driver = FilterScheduler(build_rules(Config(overrides={"filter_scheduler": config})), random.Random(11))
    firsts: Counter[str] = Counter()
    for _ in range(times):
        [choice] = driver.select(table, a_request(), now=0.0)
        firsts[choice.candidates[0].host] += 1
        table.settle(["server-1"])
    return firsts


def test_one_is_strict_and_of_equals_the_first() -> None:
    assert drawn(host_table(memory_mib=[2048, 8192, 8192, 4096]), 50) == {"h1": 50}


def test_a_subset_is_drawn_from_evenly() -> None:
    firsts = drawn(host_table(memory_mib=[1024 * n for n in range(2, 12)]), 3000, host_subset_size=5)
    assert set(firsts) == {"h5", "h6", "h7", "h8", "h9"}
    assert chi_square(firsts.values()) < 18.5  # 4 degrees of freedom: once in a thousand seeds


def test_a_subset_larger_than_the_cloud_is_the_cloud_and_none_is_one() -> None:
    table = host_table(memory_mib=[2048, 4096, 8192])
    assert set(drawn(table, 200, host_subset_size=50)) == {"h0", "h1", "h2"}
    assert drawn(table, 50, host_subset_size=0) == {"h2": 50}


def test_best_hosts_of_one_weight_are_shuffled_evenly() -> None:
    table = host_table(memory_mib=[8192, 2048, 8192, 8192, 4096, 8192])
    firsts = drawn(table, 3000, shuffle_best_same_weighed_hosts=True)
    assert set(firsts) == {"h0", "h2", "h3", "h5"}
    assert chi_square(firsts.values()) < 16.3  # 3 degrees of freedom


def test_the_same_seed_draws_the_same() -> None:
    table = host_table(10)
    assert drawn(table, 100, host_subset_size=4) == drawn(table, 100, host_subset_size=4)
