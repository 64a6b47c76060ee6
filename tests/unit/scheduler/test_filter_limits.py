"""Filters that limit what goes on on a host, and the one that wants measurements."""

from typing import Any

import pytest
from scheduler_builders import a_request, host_table, only_complaint, passing

from kilonova.base.config import Config, ConfigError
from kilonova.launch.plugins import build_rules
from kilonova.scheduler.needs import needs_of

NUM = ("NumInstancesFilter", "AggregateNumInstancesFilter", "num_instances", "max_instances_per_host")
IO = ("IoOpsFilter", "AggregateIoOpsFilter", "io_ops", "max_io_ops_per_host")

each_limit = pytest.mark.parametrize(("plain", "aggregate", "column", "option"), [NUM, IO])


@each_limit
def test_one_below_the_limit_passes_and_the_limit_does_not(
    plain: str, aggregate: str, column: str, option: str
) -> None:
    table = host_table(**{column: [0, 2, 3, 4]})
    assert passing(plain, table, **{option: 3}) == ["h0", "h1"]
    assert passing(aggregate, table, **{option: 3}) == ["h0", "h1"], "no aggregate says anything"


@each_limit
def test_defaults_are_the_classic_ones(plain: str, aggregate: str, column: str, option: str) -> None:
    limit = {"num_instances": 50, "io_ops": 8}[column]
    table = host_table(**{column: [limit - 1, limit]})
    assert passing(plain, table) == passing(aggregate, table) == ["h0"]


@each_limit
def test_nothing_may_go_where_the_limit_is_zero(plain: str, aggregate: str, column: str, option: str) -> None:
    assert passing(plain, host_table(2), **{option: 0}) == []


@each_limit
def test_what_was_promised_counts(plain: str, aggregate: str, column: str, option: str) -> None:
    table = host_table(2)
    table.take(needs_of(a_request()), "s1", table.row_of["h0"])
    assert passing(plain, table, **{option: 1}) == ["h1"]


@each_limit
def test_of_several_aggregates_the_smallest_limit_counts(plain: str, aggregate: str, column: str, option: str) -> None:
    table = host_table(
        **{column: [3, 3, 3, 3]},
        aggregates={"much": {option: "9"}, "little": {option: " 3 "}, "other": {"ssd": "true"}},
        member=[{"much"}, {"much", "little"}, {"other"}, set()],
    )
    assert passing(aggregate, table, **{option: 3}) == ["h0"]
    assert passing(aggregate, table, **{option: 4}) == ["h0", "h2", "h3"]
    assert passing(plain, table, **{option: 4}) == ["h0", "h1", "h2", "h3"], "that one does not read aggregates"


@each_limit
@pytest.mark.parametrize("text", ["many", "", "2.5", "nan", "9,10"])
def test_with_a_limit_that_cannot_be_read_the_global_one_counts(
    plain: str, aggregate: str, column: str, option: str, text: str
) -> None:
    table = host_table(
        **{column: [3, 3, 3]},
        aggregates={"bad": {option: text}, "good": {option: "9"}},
        member=[{"bad"}, {"bad", "good"}, {"good"}],
    )
    assert passing(aggregate, table, **{option: 3}) == ["h2"]
    assert passing(aggregate, table, **{option: 4}) == ["h0", "h1", "h2"]
    assert f"aggregate 'bad': {option} is '{text}', which is no whole number" in only_complaint(table)


# ---- metrics ---------------------------------------------------------------------------------------------------


def measured(*metrics: dict[str, float], setting: tuple[str, ...]) -> list[str]:
    return passing(
        "MetricsFilter", host_table(metrics=list(metrics)), sections={"metrics": {"weight_setting": setting}}
    )


def test_a_host_must_report_every_metric_that_is_weighed() -> None:
    hosts = ({"cpu": 0.0, "net": 1.0}, {"cpu": 0.5}, {}, {"other": 1.0})
    assert measured(*hosts, setting=("cpu=1.0", "net=-0.5")) == ["h0"]
    assert measured(*hosts, setting=("cpu=1.0",)) == ["h0", "h1"]


def test_without_a_setting_every_host_passes() -> None:
    assert measured({}, {"cpu": 1.0}, setting=()) == ["h0", "h1"]


def test_a_measurement_that_is_no_number_is_none() -> None:
    assert measured({"cpu": float("nan")}, {"cpu": 1.0}, setting=("cpu=1",)) == ["h1"]


@pytest.mark.parametrize("setting", [("cpu",), ("cpu=fast",), ("cpu=1", "=")])
def test_a_setting_that_cannot_be_read_is_told_at_the_start(setting: tuple[str, ...]) -> None:
    config: dict[str, Any] = {"metrics": {"weight_setting": setting}}
    with pytest.raises(ConfigError, match="name=number"):
        build_rules(Config(overrides=config))
