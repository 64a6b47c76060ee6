"""Each filter's mask is what its rule, read host by host, says; for any hosts, aggregates and requests."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import RULES, Plain
from scheduler_builders import a_host, a_request

from kilonova.base.config import Config
from kilonova.launch.plugins import load_filter, own_filters
from kilonova.model.host import AggregateState
from kilonova.model.request_spec import RequestSpec, ServerGroup
from kilonova.scheduler.part import TablePart
from kilonova.scheduler.plugin import NOT_ASKED, Filter, Limiting, Remembered
from kilonova.scheduler.table import HostTable

NAMES = [f"h{n}" for n in range(4)]
NUMBERS = st.sampled_from(["1", "2.5", "4", " 3 ", "0", "-1", "many", "", "nan", "inf", "1,2"])

aggregates = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES)),
        st.fixed_dictionaries(
            {},
            optional={
                "availability_zone": st.sampled_from(["az1", "az2", "az1, az2", "nova", ""]),
                "cpu_allocation_ratio": NUMBERS,
                "ram_allocation_ratio": NUMBERS,
                "disk_allocation_ratio": NUMBERS,
                "max_instances_per_host": NUMBERS,
                "max_io_ops_per_host": NUMBERS,
                "filter_tenant_id": st.sampled_from(["p1", "p1, p2", "p3"]),
                "filter_tenant_id_more": st.sampled_from(["p2", "p4"]),
                "instance_type": st.sampled_from(["m1.small", "m1.small,m1.big", "other"]),
                "os_type": st.sampled_from(["linux", "linux, windows", "bsd"]),
                "ns.color": st.sampled_from(["red", "blue"]),
                "ssd": st.sampled_from(["true", "false", "7"]),
            },
        ),
    ),
    max_size=4,
)

hosts = st.fixed_dictionaries(
    {
        "is_up": st.booleans(),
        "is_enabled": st.booleans(),
        "vcpus": st.integers(0, 8),
        "vcpus_reserved": st.integers(0, 2),
        "vcpus_ratio": st.sampled_from([0.5, 1.0, 1.5, 4.0]),
        "vcpus_used": st.integers(0, 12),
        "memory_mib": st.sampled_from([0, 1024, 4096]),
        "memory_reserved_mib": st.sampled_from([0, 512]),
        "memory_ratio": st.sampled_from([1.0, 1.5]),
        "memory_used_mib": st.sampled_from([0, 1024, 3000]),
        "disk_gib": st.integers(0, 30),
        "disk_reserved_gib": st.integers(0, 5),
        "disk_ratio": st.sampled_from([1.0, 2.0]),
        "disk_used_gib": st.integers(0, 30),
        "num_instances": st.integers(0, 6),
        "io_ops": st.integers(0, 5),
        "hypervisor_type": st.sampled_from(["QEMU", "fake"]),
        "hypervisor_version": st.sampled_from([7_000_000, 8_001_999, 8_002_000, 9_000_000]),
        "supported_instances": st.sampled_from(
            [
                (),
                (("x86_64", "qemu", "hvm"),),
                (("x86_64", "kvm", "hvm"), ("i686", "kvm", "hvm")),
                (("aarch64", "qemu", "hvm"), ("x86_64", "xen", "xen")),
            ]
        ),
        "capabilities": st.sampled_from(
            [
                {},
                {"trust_lvl": "trusted", "ssd": "true"},
                {"trust_lvl": "untrusted", "gen": {"cpu": "9"}},
                {"gen": {"cpu": "x"}},
            ]
        ),
        "metrics": st.sampled_from([{}, {"cpu": 0.5}, {"cpu": 0.1, "net": 7.0}]),
        "host_ip": st.sampled_from(["192.0.2.1", "192.0.2.130", "2001:db8::1", "", "not an address"]),
        "server_flavors": st.sampled_from([(), ("m1.small",), ("m1.small", "m1.big")]),
    }
)

servers = st.sampled_from(["s1", "s2", "s3", "unknown"])
hint = st.one_of(servers, st.lists(servers, max_size=3))

requests = st.fixed_dictionaries(
    {
        "vcpus": st.integers(0, 10),
        "memory_mib": st.sampled_from([0, 512, 1024, 4096]),
        "root_gib": st.integers(0, 20),
        "ephemeral_gib": st.integers(0, 3),
        "swap_mib": st.sampled_from([0, 1, 1024, 1500]),
        "project_id": st.sampled_from(["p1", "p2", "p3", "p9"]),
        "flavor_name": st.sampled_from(["m1.small", "m1.big"]),
        "image_id": st.sampled_from(["image-1", "image-2"]),
        "availability_zone": st.sampled_from([None, "", "az1", "az2", "nova"]),
        "excluded_hosts": st.sampled_from([(), ("h1",), ("h0", "gone")]),
        "hosts_of_servers": st.dictionaries(st.sampled_from(["s1", "s2", "s3"]), st.sampled_from(NAMES)),
        "extra_specs": st.fixed_dictionaries(
            {},
            optional={
                "ssd": st.sampled_from(["true", "<or> true <or> 7", ">= 5", "s!= true"]),
                "aggregate_instance_extra_specs:ssd": st.sampled_from(["true", "<in> ru"]),
                "capabilities:num_instances": st.just(">= 2"),
                "capabilities:gen:cpu": st.sampled_from([">= 8", "9"]),
                "hypervisor_type": st.sampled_from(["QEMU", "<in> ak"]),
                "other:key": st.just("x"),
                "trust:trusted_host": st.sampled_from(["trusted", "untrusted", "unknown"]),
            },
        ),
        "image_properties": st.fixed_dictionaries(
            {},
            optional={
                "hw_architecture": st.sampled_from(["x86_64", "AMD64", "i386", "aarch64", "weird"]),
                "architecture": st.sampled_from(["x86_64", "aarch64"]),
                "img_hv_type": st.sampled_from(["qemu", "KVM"]),
                "hw_vm_mode": st.sampled_from(["hvm", "HV", "pv"]),
                "img_hv_requested_version": st.sampled_from([">=8.2", "nonsense"]),
                "os_type": st.sampled_from(["linux", "windows", ""]),
                "ns.color": st.sampled_from(["red", "green"]),
            },
        ),
        "scheduler_hints": st.fixed_dictionaries(
            {},
            optional={
                "same_host": hint,
                "different_host": hint,
                "build_near_host_ip": st.sampled_from(["192.0.2.0", "2001:db8::", "rubbish"]),
                "cidr": st.sampled_from(["/24", "/25", "/129"]),
                "query": st.sampled_from(
                    [
                        '[">=", "$free_ram_mb", 1024]',
                        '["and", [">=", "$free_ram_mb", 512], ["not", ["=", "$num_io_ops", 2]]]',
                        '["or", ["in", "$host", "h1", "h2"], ["=", "$nothing", 1]]',
                    ]
                ),
            },
        ),
        "group": st.one_of(
            st.none(),
            st.builds(
                ServerGroup,
                id=st.just("g"),
                policy=st.sampled_from(["affinity", "anti-affinity", "soft-affinity"]),
                max_server_per_host=st.integers(1, 3),
                members=st.dictionaries(st.sampled_from(["m1", "m2", "m3", "m4"]), st.sampled_from(NAMES)),
            ),
        ),
    }
)


def filter_of(name: str, plain: Plain) -> Filter:
    return load_filter(
        name,
        Config(
            overrides={
                "filter_scheduler": {
                    "max_io_ops_per_host": plain.max_io_ops,
                    "max_instances_per_host": plain.max_instances,
                    "isolated_hosts": plain.isolated_hosts,
                    "isolated_images": plain.isolated_images,
                    "restrict_isolated_hosts_to_isolated_images": plain.restrict,
                    "aggregate_image_properties_isolation_namespace": plain.namespace,
                    "image_properties_default_architecture": plain.architecture,
                },
                "metrics": {"weight_setting": tuple(f"{name}=1" for name in plain.metrics)},
            }
        ),
    )


def table_of(host_values: list[dict[str, Any]], aggregate_values: list[tuple[set[str], dict[str, str]]]) -> HostTable:
    table = HostTable()
    table.set_aggregates(
        1,
        [
            AggregateState(id=n, name=f"a{n}", hosts=tuple(sorted(names)), metadata=metadata)
            for n, (names, metadata) in enumerate(aggregate_values)
        ],
    )
    # A host that left makes a hole in the table.
    table.apply(
        [
            a_host("gone", seq=1, id=99),
            *(a_host(f"h{n}", seq=n + 2, id=n, **values) for n, values in enumerate(host_values)),
        ]
    )
    table.apply([a_host("gone", seq=50, id=99, deleted=True)])
    return table


def test_every_filter_has_a_plain_rule() -> None:
    assert set(own_filters()) == set(RULES) | {"PciPassthroughFilter", "NUMATopologyFilter"}


@pytest.mark.parametrize("name", sorted(RULES))
@settings(max_examples=120, deadline=None)
@given(
    host_values=st.lists(hosts, min_size=1, max_size=4),
    aggregate_values=aggregates,
    request_values=requests,
    restrict=st.booleans(),
    namespace=st.sampled_from(["", "ns"]),
    architecture=st.sampled_from(["", "x86_64", "arm64"]),
)
def test_the_mask_is_what_the_rule_says_of_each_host(
    name: str,
    host_values: list[dict[str, Any]],
    aggregate_values: list[tuple[set[str], dict[str, str]]],
    request_values: dict[str, Any],
    restrict: bool,
    namespace: str,
    architecture: str,
) -> None:
    plain = Plain(restrict=restrict, namespace=namespace, architecture=architecture)
    each = filter_of(name, plain)
    spec = a_request(**request_values)
    table = table_of(host_values, aggregate_values)
    mask = each.mask(table, spec)
    assert mask.dtype == np.bool_ and len(mask) == table.size
    for host, row in table.row_of.items():
        state = table.states[row]
        assert state is not None
        around = [a for a in table.aggregates.aggregates if host in a.hosts]
        assert bool(mask[row]) == RULES[name](state, around, spec, plain), (host, around)
    check_roles(each, table, spec)


def check_roles(each: Filter, table: HostTable, spec: RequestSpec) -> None:
    """What a filter promises by its roles holds."""
    assert isinstance(each, Remembered)
    key = each.key(table, spec)
    hash(key)
    if key is NOT_ASKED:
        assert each.mask(table, spec)[table.alive].all()
    elif isinstance(each, Limiting):
        levels = each.level(table) >= each.need(spec)
        assert levels.tolist() == each.mask(table, spec).tolist()
    rows = np.flatnonzero(table.alive)[::2]
    assert each.mask(TablePart(table, rows), spec).tolist() == each.mask(table, spec)[rows].tolist()


@pytest.mark.parametrize("name", sorted(RULES))
@settings(max_examples=60, deadline=None)
@given(
    host_values=st.lists(hosts, min_size=1, max_size=4),
    aggregate_values=aggregates,
    one=requests,
    other=requests,
)
def test_equal_keys_mean_equal_answers(
    name: str,
    host_values: list[dict[str, Any]],
    aggregate_values: list[tuple[set[str], dict[str, str]]],
    one: dict[str, Any],
    other: dict[str, Any],
) -> None:
    each = filter_of(name, Plain())
    table = table_of(host_values, aggregate_values)
    # Take one field from the other request, so that keys are often, but not always, equal.
    for field in one:
        mixed = {**one, field: other[field]}
        first, second = a_request(**one), a_request(**mixed)
        assert isinstance(each, Remembered)
        key = each.key(table, first)
        if key == each.key(table, second) and key != "(once)":
            assert each.mask(table, first)[table.alive].tolist() == each.mask(table, second)[table.alive].tolist()


@pytest.mark.parametrize("name", sorted(own_filters()))
@settings(max_examples=40, deadline=None)
@given(host_values=st.lists(hosts, min_size=1, max_size=4), aggregate_values=aggregates, request_values=requests)
def test_what_was_missing_can_be_told_without_names(
    name: str,
    host_values: list[dict[str, Any]],
    aggregate_values: list[tuple[set[str], dict[str, str]]],
    request_values: dict[str, Any],
) -> None:
    from kilonova.scheduler.plugin import Telling

    each = filter_of(name, Plain())
    table = table_of(host_values, aggregate_values)
    spec = a_request(**request_values)
    refused = table.alive & ~each.mask(table, spec)
    if refused.any():
        assert isinstance(each, Telling)
        shortfall = each.missing(table, spec, refused)
        words = f"{shortfall.lacks} {shortfall.nearest}".split()
        assert shortfall.lacks
        assert not set(words) & set(NAMES)
