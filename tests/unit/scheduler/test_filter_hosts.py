"""Filters of what a host is and reports: alive, its image support, capabilities, trust; and queries about it."""

import json
from typing import Any

import pytest
from scheduler_builders import a_request, host_table, only_complaint, passing

from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable


def test_all_hosts_pass_whatever_they_are() -> None:
    table = host_table(is_up=[False, True], vcpus=[0, 0])
    assert passing("AllHostsFilter", table, a_request(vcpus=99)) == ["h0", "h1"]


def test_only_hosts_that_are_up_and_enabled_pass() -> None:
    table = host_table(is_up=[True, True, False, False], is_enabled=[True, False, True, False])
    assert passing("ComputeFilter", table) == ["h0"]


# ---- image properties ------------------------------------------------------------------------------------------

KVM = (("x86_64", "kvm", "hvm"), ("i686", "kvm", "hvm"))
ARM = (("aarch64", "qemu", "hvm"),)
XEN = (("x86_64", "xen", "xen"), ("x86_64", "xen", "hvm"))


def running(table: HostTable, **properties: Any) -> list[str]:
    return passing("ImagePropertiesFilter", table, a_request(image_properties=properties))


def of_images() -> HostTable:
    return host_table(
        supported_instances=[KVM, ARM, XEN, ()], hypervisor_version=[8_002_000, 7_000_000, 4_018_003, 8_002_000]
    )


@pytest.mark.parametrize(
    ("properties", "hosts"),
    [
        ({}, ["h0", "h1", "h2", "h3"]),
        ({"os_type": "linux"}, ["h0", "h1", "h2", "h3"]),
        ({"hw_architecture": "x86_64"}, ["h0", "h2"]),
        ({"hw_architecture": "aarch64"}, ["h1"]),
        ({"hw_architecture": "ARM64"}, ["h1"]),
        ({"hw_architecture": "i386"}, ["h0"]),
        ({"hw_architecture": "sparc"}, []),
        ({"architecture": "aarch64"}, ["h1"]),
        ({"architecture": "aarch64", "hw_architecture": "x86_64"}, ["h0", "h2"]),
        ({"img_hv_type": "KVM"}, ["h0"]),
        ({"hypervisor_type": "xapi"}, ["h2"]),
        ({"hw_vm_mode": "hvm"}, ["h0", "h1", "h2"]),
        ({"hw_vm_mode": "pv"}, ["h2"]),
        ({"vm_mode": "hv"}, ["h0", "h1", "h2"]),
        ({"hw_architecture": "x86_64", "img_hv_type": "xen", "hw_vm_mode": "hvm"}, ["h2"]),
        ({"hw_architecture": "i686", "img_hv_type": "xen"}, []),
        ({"hw_architecture": None, "img_hv_type": ""}, ["h0", "h1", "h2", "h3"]),
    ],
)
def test_a_host_must_run_all_that_the_image_names(properties: dict[str, Any], hosts: list[str]) -> None:
    assert running(of_images(), **properties) == hosts


@pytest.mark.parametrize(
    ("version", "hosts"),
    [
        (">=8.2", ["h0"]),
        (">8.2", []),
        ("<8", ["h1", "h2"]),
        (">=4.18.3,<8", ["h1", "h2"]),
        ("==4.18.3", ["h2"]),
        ("!=7.0", ["h0", "h2"]),
        (" >= 7 , != 8.2.0 ", ["h1"]),
    ],
)
def test_the_hypervisors_version_counts_beside_other_demands(version: str, hosts: list[str]) -> None:
    assert running(of_images(), hw_vm_mode="hvm", img_hv_requested_version=version) == hosts
    assert running(of_images(), hw_vm_mode="hvm", hypervisor_version_requires=version) == hosts
    assert running(of_images(), img_hv_requested_version=version) == ["h0", "h1", "h2", "h3"], "not by itself"


def test_a_host_of_unknown_version_is_not_refused_for_it() -> None:
    table = host_table(hypervisor_version=[0])
    assert running(table, hw_vm_mode="hvm", img_hv_requested_version=">=8") == ["h0"]


@pytest.mark.parametrize("version", ["new", "8.2", ">=", ">=8.x", ">=8;<9"])
def test_a_version_that_cannot_be_read_passes_nobody_and_is_told_once(version: str) -> None:
    table = of_images()
    for _ in range(2):
        assert running(table, hw_vm_mode="hvm", img_hv_requested_version=version) == []
    assert f"img_hv_requested_version '{version}' cannot be read" in only_complaint(table)


def test_images_that_name_no_architecture_may_be_given_one() -> None:
    option = {"image_properties_default_architecture": "amd64"}
    assert passing("ImagePropertiesFilter", of_images(), **option) == ["h0", "h2"]
    arm = a_request(image_properties={"hw_architecture": "aarch64"})
    assert passing("ImagePropertiesFilter", of_images(), arm, **option) == ["h1"]


# ---- capabilities ----------------------------------------------------------------------------------------------


def able(table: HostTable, **extra_specs: str) -> list[str]:
    specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
    return passing("ComputeCapabilitiesFilter", table, a_request(extra_specs=specs))


def test_attributes_of_hosts_are_compared() -> None:
    table = host_table(hypervisor_type=["QEMU", "fake", "QEMU"], hypervisor_version=[8_000_000, 9_000_000, 7_000_000])
    assert able(table, capabilities__hypervisor_type="QEMU") == ["h0", "h2"]
    assert able(table, hypervisor_type="s== fake") == ["h1"]
    assert able(table, capabilities__hypervisor_version=">= 8000000") == ["h0", "h1"]
    assert able(table, hypervisor_type="QEMU", capabilities__hypervisor_version=">= 8000000") == ["h0"]


def test_a_hosts_own_numbers_are_those_of_now() -> None:
    table = host_table(num_instances=[0, 3], memory_used_mib=[0, 32000])
    assert able(table, capabilities__num_instances="<= 1") == ["h0"]
    assert able(table, capabilities__free_ram_mb=">= 1024") == ["h0"]
    for n in range(2):
        table.take(needs_of(a_request()), f"s{n}", table.row_of["h0"])
    assert able(table, capabilities__num_instances="<= 1") == []


def test_what_hosts_report_is_looked_into_key_by_key() -> None:
    table = host_table(
        capabilities=[{"gpu": {"memory": 16}}, {"gpu": '{"memory": "32"}'}, {"gpu": "none"}, {}],
        cpu_info=[{"vendor": "AMD", "features": ["aes", "avx"]}, {"vendor": "Intel", "features": ["aes"]}, {}, {}],
    )
    assert able(table, capabilities__gpu__memory=">= 16") == ["h0", "h1"]
    assert able(table, capabilities__gpu__memory=">= 20") == ["h1"]
    assert able(table, capabilities__cpu_info__vendor="<or> AMD <or> Hygon") == ["h0"]
    assert able(table, capabilities__cpu_info__features="<all-in> aes avx") == ["h0"]
    assert able(table, capabilities__cpu_info__features="<in> aes") == ["h0", "h1"]


def test_hosts_that_lack_what_a_scoped_key_names_do_not_pass() -> None:
    table = host_table(capabilities=[{"trust": "yes"}, {}])
    assert able(table, capabilities__trust="yes") == ["h0"]
    assert able(table, capabilities__trust="s!= yes") == []
    assert able(table, capabilities__hypervisor_type__name="QEMU") == [], "there is nothing in a text"


def test_a_key_without_scope_says_nothing_of_hosts_that_lack_it() -> None:
    table = host_table(capabilities=[{"ssd": "true"}, {"ssd": "false"}, {}])
    assert able(table, ssd="true") == ["h0", "h2"]


def test_other_scopes_and_hidden_attributes_are_left_alone() -> None:
    table = host_table(2)
    assert able(table, hw__cpu_policy="dedicated", trait__X="required", _row="7", state="x") == ["h0", "h1"]
    assert able(table, capabilities___row="0") == []


def test_a_demand_that_cannot_be_read_passes_nobody_and_is_told_once() -> None:
    table = host_table(2)
    for _ in range(2):
        assert able(table, capabilities__num_instances=">= many") == []
    assert "num_instances = '>= many', but 'many' is no number" in only_complaint(table)


# ---- trust -----------------------------------------------------------------------------------------------------


def test_trust_is_the_level_that_the_host_reports() -> None:
    table = host_table(capabilities=[{"trust_lvl": "trusted"}, {"trust_lvl": "untrusted"}, {}, {"trust_lvl": ["x"]}])

    def trusted(level: str) -> list[str]:
        return passing("TrustedFilter", table, a_request(extra_specs={"trust:trusted_host": level}))

    assert trusted("trusted") == ["h0"]
    assert trusted("untrusted") == ["h1"]
    assert trusted("unknown") == ["h2"]
    assert trusted("") == ["h0", "h1", "h2", "h3"]
    assert passing("TrustedFilter", table) == ["h0", "h1", "h2", "h3"]


# ---- queries ---------------------------------------------------------------------------------------------------


def asked(table: HostTable, query: Any) -> list[str]:
    text = query if isinstance(query, str) else json.dumps(query)
    return passing("JsonFilter", table, a_request(scheduler_hints={"query": text}))


def to_ask() -> HostTable:
    """Hosts with 1, 2, 3 and 4 GiB of memory; 0, 1, 2 and 3 servers; capabilities."""
    return host_table(
        memory_mib=[1024, 2048, 3072, 4096],
        num_instances=[0, 1, 2, 3],
        capabilities=[{"rack": {"row": "a"}}, {"rack": {"row": "b"}}, {"rack": "c"}, {}],
    )


@pytest.mark.parametrize(
    ("query", "hosts"),
    [
        (["=", "$free_ram_mb", 2048], ["h1"]),
        (["<", "$free_ram_mb", 2048], ["h0"]),
        (["<=", "$free_ram_mb", 2048], ["h0", "h1"]),
        ([">", "$free_ram_mb", 2048], ["h2", "h3"]),
        ([">=", "$free_ram_mb", 2048], ["h1", "h2", "h3"]),
        (["in", "$host", "h0", "h3"], ["h0", "h3"]),
        (["=", "$host", "h2"], ["h2"]),
        (["=", 1, 1], ["h0", "h1", "h2", "h3"]),
        (["<", "$num_instances", 2, 1], ["h0"]),
        (["not", ["=", "$host", "h2"]], ["h0", "h1", "h3"]),
        (["or", ["=", "$host", "h2"], ["=", "$num_instances", 0]], ["h0", "h2"]),
        (["and", [">=", "$free_ram_mb", 2048], ["<=", "$num_instances", 2]], ["h1", "h2"]),
        (["and", [">=", "$free_ram_mb", 2048], ["not", ["in", "$host", "h1", "h2"]]], ["h3"]),
        (["or", ["and", ["=", "$host", "h0"], ["not", ["=", 1, 2]]], [">=", "$free_ram_mb", 4096]], ["h0", "h3"]),
        (["=", "$capabilities.rack.row", "a"], ["h0"]),
        (["in", "$capabilities.rack.row", "a", "b"], ["h0", "h1"]),
        # what a host lacks is left out of the comparison, which then is too short
        (["=", "$nothing", 1], []),
        (["not", ["=", "$nothing", 1]], ["h0", "h1", "h2", "h3"]),
        (["=", "$free_ram_mb"], []),
        (["=", "$_row", 0], []),
        # a number and a text
        ([">=", "$host", 5], []),
        (["=", "$host", 5], []),
        # nothing asked
        ([], ["h0", "h1", "h2", "h3"]),
        ("", ["h0", "h1", "h2", "h3"]),
    ],
)  # fmt: skip
def test_queries(query: Any, hosts: list[str]) -> None:
    assert asked(to_ask(), query) == hosts


@pytest.mark.parametrize(
    "query",
    [
        "no json",
        '["=", 1',
        '{"=": 1}',
        '"text"',
        "7",
        '["like", "$host", "h"]',
        '[["="], 1, 1]',
        "[null, 1]",
        '["and", ["what", 1]]',
        "[" * 100_000,
        json.dumps("x") + "x",
        '["not", ' * 200 + '["=", 1, 1]' + "]" * 200,
    ],
    ids=range(12),
)
def test_a_query_that_cannot_be_read_passes_nobody(query: str) -> None:
    assert asked(to_ask(), query) == []


def test_a_query_may_come_as_a_list_or_in_one() -> None:
    table = to_ask()
    for given in (["=", "$host", "h1"], ['["=", "$host", "h1"]']):
        assert passing("JsonFilter", table, a_request(scheduler_hints={"query": given})) == ["h1"]


def test_a_query_is_about_now() -> None:
    table = to_ask()
    query = ["<", "$num_instances", 1]
    assert asked(table, query) == ["h0"]
    table.take(needs_of(a_request()), "s", table.row_of["h0"])
    assert asked(table, query) == []
