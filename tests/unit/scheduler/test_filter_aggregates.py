"""Filters that read the metadata of aggregates: zones, extra specs, flavors, projects, image properties."""

import pytest
from scheduler_builders import a_request, host_table, only_complaint, passing

from kilonova.scheduler.table import HostTable


def in_aggregates(*hosts: set[str], **aggregates: dict[str, str]) -> HostTable:
    """A table of hosts h0, h1 …, each in the aggregates that its set names."""
    return host_table(aggregates=aggregates, member=list(hosts))


# ---- zones -----------------------------------------------------------------------------------------------------


def in_zone(table: HostTable, zone: str | None, **sections: dict[str, str]) -> list[str]:
    return passing("AvailabilityZoneFilter", table, a_request(availability_zone=zone), sections=sections)


def test_hosts_of_the_zone_pass_and_all_if_none_is_asked_for() -> None:
    table = in_aggregates({"a"}, {"b"}, set(), a={"availability_zone": "az1"}, b={"availability_zone": "az2"})
    assert in_zone(table, "az1") == ["h0"]
    assert in_zone(table, "az9") == []
    assert in_zone(table, None) == in_zone(table, "") == ["h0", "h1", "h2"]


def test_hosts_of_no_zone_are_in_the_default_one() -> None:
    table = in_aggregates({"a"}, {"b"}, set(), a={"availability_zone": "az1"}, b={"ssd": "true"})
    assert in_zone(table, "nova") == ["h1", "h2"]
    assert in_zone(table, "home", DEFAULT={"default_availability_zone": "home"}) == ["h1", "h2"]
    assert in_zone(table, "nova", DEFAULT={"default_availability_zone": "home"}) == []


def test_a_host_may_be_in_several_zones() -> None:
    table = in_aggregates(
        {"a"}, {"b", "c"}, {"b"},
        a={"availability_zone": "az1, az2"}, b={"availability_zone": "az2"}, c={"availability_zone": "az3"},
    )  # fmt: skip
    assert in_zone(table, "az1") == ["h0"]
    assert in_zone(table, "az2") == ["h0", "h1", "h2"]
    assert in_zone(table, "az3") == ["h1"]


def test_an_empty_zone_is_a_zone_that_nobody_can_ask_for() -> None:
    table = in_aggregates({"a"}, a={"availability_zone": ""})
    assert in_zone(table, "nova") == []
    assert in_zone(table, None) == ["h0"]


# ---- extra specs -----------------------------------------------------------------------------------------------


def meeting(table: HostTable, **extra_specs: str) -> list[str]:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    return passing("AggregateInstanceExtraSpecsFilter", table, a_request(extra_specs=specs))


SCOPED = "aggregate_instance_extra_specs__ssd"


def test_keys_with_the_scope_and_without_any_count() -> None:
    table = in_aggregates({"a"}, {"b"}, set(), a={"ssd": "true"}, b={"ssd": "false"})
    assert meeting(table, ssd="true") == ["h0"]
    assert meeting(table, **{SCOPED: "true"}) == ["h0"]
    assert meeting(table) == ["h0", "h1", "h2"]


def test_other_scopes_belong_to_others() -> None:
    table = in_aggregates({"a"}, a={"ssd": "true"})
    assert meeting(table, capabilities__ssd="false", hw__cpu_policy="dedicated") == ["h0"]
    assert meeting(table, hide_hypervisor_id="true") == ["h0"], "never had a scope, and is not ours"


def test_only_the_first_colon_ends_the_scope() -> None:
    table = in_aggregates({"a"}, set(), a={"x:y": "1"})
    assert meeting(table, aggregate_instance_extra_specs__x__y="1") == ["h0"]


def test_hosts_without_the_key_do_not_pass() -> None:
    table = in_aggregates({"a"}, set(), a={"color": "red"})
    assert meeting(table, ssd="true") == []
    assert meeting(table, ssd="s!= true") == [], "nothing is not something else"


def test_a_comma_separates_values_any_of_which_will_do() -> None:
    table = in_aggregates({"a"}, {"b"}, {"c"}, a={"kind": "gold, silver"}, b={"kind": "tin"}, c={"kind": "goldish"})
    assert meeting(table, kind="gold") == ["h0"]
    assert meeting(table, kind="silver") == ["h0"]
    assert meeting(table, kind="<or> tin <or> silver") == ["h0", "h1"]
    assert meeting(table, kind="<in> gold") == ["h0", "h2"]
    assert meeting(table, kind="gold, silver") == [], "the whole text is not one of the values"


def test_values_of_several_aggregates_count_together() -> None:
    table = in_aggregates({"a", "b"}, {"a"}, {"b"}, a={"kind": "gold", "size": "1"}, b={"kind": "tin", "size": "9"})
    assert meeting(table, kind="tin") == ["h0", "h2"]
    assert meeting(table, size=">= 5") == ["h0", "h2"]
    assert meeting(table, size="<= 5") == ["h0", "h1"]


def test_every_demand_must_be_met_though_by_different_aggregates() -> None:
    table = in_aggregates({"a", "b"}, {"a"}, a={"ssd": "true"}, b={"net": "fast"})
    assert meeting(table, ssd="true", net="fast") == ["h0"]


def test_metadata_that_is_no_number_meets_no_number() -> None:
    table = in_aggregates({"a"}, {"b"}, {"a", "b"}, a={"size": "big"}, b={"size": "9"})
    assert meeting(table, size=">= 5") == ["h1", "h2"]
    assert not table.complaints, "it may be meant as text for others"


def test_a_demand_that_cannot_be_read_passes_nobody_and_is_told() -> None:
    table = in_aggregates({"a"}, a={"size": "9"})
    assert meeting(table, size=">= big") == []
    assert meeting(table, size=">= big") == []
    assert "size is '>= big', but 'big' is no number" in only_complaint(table)


# ---- flavors ---------------------------------------------------------------------------------------------------


def taking(table: HostTable, flavor: str) -> list[str]:
    return passing("AggregateTypeAffinityFilter", table, a_request(flavor_name=flavor))


def test_only_flavors_that_are_listed_pass_and_all_where_none_is() -> None:
    table = in_aggregates({"a"}, {"b"}, set(), a={"instance_type": "m1.small, m1.big"}, b={"color": "red"})
    assert taking(table, "m1.big") == ["h0", "h1", "h2"]
    assert taking(table, "m1") == ["h1", "h2"]


def test_lists_of_several_aggregates_count_together() -> None:
    table = in_aggregates({"a", "b"}, {"a"}, a={"instance_type": "m1.small"}, b={"instance_type": "m1.big"})
    assert taking(table, "m1.big") == ["h0"]
    assert taking(table, "m1.small") == ["h0", "h1"]


def test_an_empty_list_takes_nobody() -> None:
    assert taking(in_aggregates({"a"}, set(), a={"instance_type": ""}), "m1.small") == ["h1"]


def test_type_affinity_wants_hosts_without_other_flavors() -> None:
    table = host_table(server_flavors=[(), ("m1.small",), ("m1.small", "m1.big"), ("m1.big",)])
    assert passing("TypeAffinityFilter", table, a_request(flavor_name="m1.small")) == ["h0", "h1"]
    assert passing("TypeAffinityFilter", table, a_request(flavor_name="m1.huge")) == ["h0"]


# ---- projects --------------------------------------------------------------------------------------------------


def open_to(table: HostTable, project: str) -> list[str]:
    return passing("AggregateMultiTenancyIsolation", table, a_request(project_id=project))


def test_hosts_that_name_projects_are_for_these_and_the_others_for_all() -> None:
    table = in_aggregates({"a"}, {"b"}, set(), a={"filter_tenant_id": "p1, p2"}, b={"ssd": "true"})
    assert open_to(table, "p2") == ["h0", "h1", "h2"]
    assert open_to(table, "p3") == ["h1", "h2"]
    assert open_to(table, "p1, p2") == ["h1", "h2"]


def test_every_key_that_begins_so_counts() -> None:
    table = in_aggregates({"a"}, a={"filter_tenant_id": "p1", "filter_tenant_id_more": "p2", "filter_tenant": "p9"})
    assert open_to(table, "p1") == open_to(table, "p2") == ["h0"]
    assert open_to(table, "p9") == []


def test_projects_of_several_aggregates_count_together() -> None:
    table = in_aggregates({"a", "b"}, {"a", "c"}, a={"filter_tenant_id": "p1"}, b={"filter_tenant_id": "p2"}, c={})
    assert open_to(table, "p1") == ["h0", "h1"]
    assert open_to(table, "p2") == ["h0"]


def test_a_host_that_names_the_empty_project_is_for_nobody() -> None:
    assert open_to(in_aggregates({"a"}, set(), a={"filter_tenant_id": ""}), "p1") == ["h1"]


# ---- image properties ------------------------------------------------------------------------------------------


def running(table: HostTable, properties: dict[str, object], **options: str) -> list[str]:
    prefix = "aggregate_image_properties_isolation_"
    return passing(
        "AggregateImagePropertiesIsolation",
        table,
        a_request(image_properties=properties),
        **{f"{prefix}{name}": value for name, value in options.items()},
    )


def test_hosts_with_another_value_of_a_property_do_not_pass() -> None:
    table = in_aggregates({"a"}, {"b"}, {"c"}, set(), a={"os": "linux"}, b={"os": "windows"}, c={"os": "bsd, linux"})
    assert running(table, {"os": "linux"}) == ["h0", "h2", "h3"]
    assert running(table, {"os": "windows", "other": "x"}) == ["h1", "h3"]


def test_images_without_the_property_run_anywhere() -> None:
    table = in_aggregates({"a"}, a={"os": "linux"})
    assert running(table, {}) == running(table, {"os": ""}) == running(table, {"os": None}) == ["h0"]


def test_values_that_are_no_text_are_compared_as_text() -> None:
    table = in_aggregates({"a"}, {"b"}, a={"size": "7"}, b={"size": "8"})
    assert running(table, {"size": 7}) == ["h0"]


def test_of_several_aggregates_one_with_the_value_is_enough() -> None:
    table = in_aggregates({"a", "b"}, {"b"}, a={"os": "linux"}, b={"os": "windows"})
    assert running(table, {"os": "linux"}) == ["h0"]


def test_every_property_must_agree() -> None:
    table = in_aggregates({"a"}, {"a", "b"}, a={"os": "linux"}, b={"arch": "arm"})
    assert running(table, {"os": "linux", "arch": "x86"}) == ["h0"]


def test_with_a_namespace_only_its_keys_count() -> None:
    table = in_aggregates({"a"}, {"b"}, {"c"}, a={"os": "bsd"}, b={"iso.os": "bsd"}, c={"isolated": "bsd"})
    image = {"os": "linux", "iso.os": "linux", "isolated": "linux"}
    assert running(table, image) == []
    assert running(table, image, namespace="iso") == ["h0", "h2"]
    assert running(table, image, namespace="iso", separator="") == ["h0"]
    assert running(table, image, namespace="iso", separator="l") == ["h0", "h1"]


# ---- isolated hosts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restrict", "of_isolated_image", "of_other_image"),
    [(True, ["h0", "h2"], ["h1", "h3"]), (False, ["h0", "h2"], ["h0", "h1", "h2", "h3"])],
)
def test_isolated_images_and_hosts(restrict: bool, of_isolated_image: list[str], of_other_image: list[str]) -> None:
    options = {
        "isolated_hosts": ("h0", "h2", "unknown"),
        "isolated_images": ("i1",),
        "restrict_isolated_hosts_to_isolated_images": restrict,
    }
    table = host_table(4)
    assert passing("IsolatedHostsFilter", table, a_request(image_id="i1"), **options) == of_isolated_image
    assert passing("IsolatedHostsFilter", table, a_request(image_id="i2"), **options) == of_other_image
    assert passing("IsolatedHostsFilter", table, a_request(image_id=""), **options) == of_other_image


def test_isolated_hosts_without_images_stay_empty_if_they_are_restricted() -> None:
    table = host_table(2)
    assert passing("IsolatedHostsFilter", table, isolated_hosts=("h0",)) == ["h1"]
    alone = {"isolated_hosts": ("h0",), "restrict_isolated_hosts_to_isolated_images": False}
    assert passing("IsolatedHostsFilter", table, **alone) == ["h0", "h1"]


def test_isolated_images_without_hosts_run_nowhere() -> None:
    table = host_table(2)
    assert passing("IsolatedHostsFilter", table, a_request(image_id="i1"), isolated_images=("i1",)) == []
    assert passing("IsolatedHostsFilter", table, a_request(image_id="i2"), isolated_images=("i1",)) == ["h0", "h1"]


def test_where_nothing_is_isolated_all_pass() -> None:
    assert passing("IsolatedHostsFilter", host_table(2)) == ["h0", "h1"]
