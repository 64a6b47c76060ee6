"""Remembered decisions are those of `decide`, bit by bit, whatever happens in between."""

import random
from typing import Any

import pytest
from scheduler_builders import a_host, a_request, aggregate_states

from kilonova.base.config import Config
from kilonova.launch.plugins import build_rules, load_filter, own_filters
from kilonova.model.host import Amount, HostState, NumaCell, Pages, PciPool
from kilonova.model.request_spec import RequestSpec, ServerGroup
from kilonova.scheduler import memory
from kilonova.scheduler.decide import Rules, decide
from kilonova.scheduler.memory import Memory
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable

CONFIG = Config(
    overrides={
        "filter_scheduler": {
            "max_instances_per_host": 12,
            "max_io_ops_per_host": 6,
            "isolated_hosts": ("h3", "h4"),
            "isolated_images": ("image-9",),
            "num_instances_weight_multiplier": -0.5,
            "image_props_weight_multiplier": 0.3,
        },
        "metrics": {"weight_setting": ("cpu=-1.0",), "weight_multiplier": 0.7},
        "pci": {"alias": '[{"name": "gpu", "vendor_id": "10de", "product_id": "1db4"}]'},
    }
)

NEVER_TOGETHER = {"ExactCoreFilter", "ExactRamFilter", "ExactDiskFilter", "TypeAffinityFilter", "MetricsFilter"}
"""Filters that would leave nothing to compare if they were always on."""

AGGREGATES = {
    "zone1": {"availability_zone": "az1"},
    "zone2": {"availability_zone": "az2", "max_io_ops_per_host": "3", "ram_weight_multiplier": "2.5"},
    "ssd": {"ssd": "true", "cpu_allocation_ratio": "1.5"},
    "some": {"filter_tenant_id": "project-1,project-2", "instance_type": "m1.small, m1.big"},
    "linux": {"os_type": "linux", "max_instances_per_host": "many"},
}


def some_host(rng: random.Random, name: str, seq: int) -> HostState:
    n = int(name[1:])
    numa: dict[str, Any] = {}
    if n % 3 == 0:
        numa["numa"] = tuple(
            NumaCell(
                id=cell, cpus=(0, 1, 2, 3), dedicated_cpus=(4, 5, 6, 7), siblings=((4, 5), (6, 7)), memory_mib=16384,
                pages=(Pages(size_kib=4, total=2**20), Pages(size_kib=2048, total=1024, used=rng.randrange(900))),
            )
            for cell in range(2)
        )  # fmt: skip
        numa["more"] = {"PCPU": Amount(total=8), "CUSTOM_X": Amount(total=4, used=rng.randrange(3))}
    if n % 4 == 0:
        numa["pci"] = (PciPool(vendor_id="10de", product_id="1db4", numa_node=0, free=rng.randrange(4)),)
    return a_host(
        name,
        seq=seq,
        id=1000 + n,
        is_up=rng.random() > 0.1,
        is_enabled=rng.random() > 0.1,
        vcpus_ratio=rng.choice([1.0, 2.0, 4.0]),
        vcpus_used=rng.randrange(20),
        memory_used_mib=rng.choice([0, 1024, 4096, 30000]),
        disk_used_gib=rng.choice([0, 100, 499]),
        num_instances=rng.randrange(9),
        io_ops=rng.choice([0, 0, 0, 1, 5]),
        failed_builds=rng.choice([0, 0, 0, 0, 1, 3]),
        hypervisor_version=rng.choice([7_000_000, 8_000_000]),
        traits=("HW_CPU_X86_AVX2",) if n % 2 else (),
        capabilities={"trust_lvl": "trusted"} if n % 5 else {},
        metrics={"cpu": rng.choice([0.1, 0.5])} if n % 7 else {},
        host_ip=f"192.0.2.{n}",
        server_image_properties={"os_type=linux": n % 4},
        **numa,
    )


def some_requests(rng: random.Random, count: int) -> list[RequestSpec]:
    variants: list[dict[str, Any]] = [
        {},
        {"vcpus": 4, "memory_mib": 8192},
        {"availability_zone": "az1"},
        {"availability_zone": "az2", "flavor_name": "m1.small"},
        {"extra_specs": {"ssd": "true"}},
        {"extra_specs": {"capabilities:hypervisor_version": ">= 8000000", "trust:trusted_host": "trusted"}},
        {"extra_specs": {"capabilities:num_instances": "<= 4"}},
        {"extra_specs": {"trait:HW_CPU_X86_AVX2": "required"}},
        {"extra_specs": {"resources:CUSTOM_X": "1"}},
        {"extra_specs": {"pci_passthrough:alias": "gpu:1"}},
        {"extra_specs": {"hw:cpu_policy": "dedicated"}, "vcpus": 2},
        {"extra_specs": {"hw:numa_nodes": "2", "hw:mem_page_size": "2048"}, "vcpus": 2, "memory_mib": 64},
        {"image_properties": {"hw_architecture": "x86_64", "os_type": "linux"}},
        {"image_properties": {"hw_architecture": "aarch64"}},
        {"image_id": "image-9"},
        {"project_id": "project-7"},
        {"requested_host": "h2"},
        {"excluded_hosts": ("h1", "h5")},
        {"scheduler_hints": {"query": '["and", [">=", "$free_ram_mb", 4096], ["<", "$num_io_ops", 3]]'}},
        {"scheduler_hints": {"different_host": ["x", "y"]}, "hosts_of_servers": {"x": "h1", "y": "h2"}},
        {"scheduler_hints": {"same_host": "x"}, "hosts_of_servers": {"x": "h6"}},
        {"scheduler_hints": {"build_near_host_ip": "192.0.2.0", "cidr": "/28"}},
        {"source_cell": "c1"},
        {"force_host": "h4"},
        {"vcpus": 10_000},
        *(
            {"group": ServerGroup(id=policy, policy=policy, members={"m1": "h1", "m2": "h2"}, max_server_per_host=2)}
            for policy in ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
        ),
    ]
    return [a_request(**rng.choice(variants)) for _ in range(count)]


def rules_of(names: list[str], **changes: Any) -> Rules:
    built = build_rules(CONFIG)
    return Rules(
        filters=tuple(load_filter(name, CONFIG) for name in names),
        weighers=built.weighers,
        pci_aliases=built.pci_aliases,
        **changes,
    )


@pytest.mark.parametrize("seed", range(12))
def test_remembered_decisions_are_equal(seed: int) -> None:
    rng = random.Random(seed)
    names = sorted(set(own_filters()) - NEVER_TOGETHER)
    if seed % 4 == 3:
        names = names[seed % 3 :: 3]
    rng.shuffle(names)
    rules = rules_of(names, shuffle_best=seed % 2 == 1, host_subset_size=1 + seed % 3, max_candidates=3 + seed % 5)
    hosts = HostTable(capacity=4)
    count = (5, 24, 60, 200)[seed % 4]
    member = [{name for name in AGGREGATES if rng.random() < 0.3} for _ in range(count + 10)]
    hosts.set_aggregates(1, aggregate_states(AGGREGATES, member))
    hosts.apply([some_host(rng, f"h{n}", n + 1) for n in range(count)])
    remembered = Memory(hosts, rules, max_bytes=memory.BYTES if seed % 2 else 3_000)
    chosen = 0
    for number, spec in enumerate(some_requests(rng, 400)):
        match rng.randrange(12):
            case 0:
                hosts.apply([some_host(rng, f"h{rng.randrange(count)}", hosts.seq + 1)])
            case 1:
                hosts.settle(list(hosts.pending)[: rng.randrange(5)])
            case 2 if rng.random() < 0.2:
                hosts.set_aggregates(number, aggregate_states(AGGREGATES, rng.sample(member, len(member))))
            case 3 if rng.random() < 0.2:
                name = f"h{rng.randrange(count + 10)}"
                hosts.apply([a_host(name, seq=hosts.seq + 1, id=1000 + int(name[1:]), deleted=rng.random() < 0.5)])
            case 4 if rng.random() < 0.2:
                hosts.apply([some_host(rng, f"h{n}", hosts.seq + 1) for n in range(count)])
            case _:
                pass
        state = rng.getstate()
        expected = decide(hosts, spec, rules, rng, server_id=f"s{number}")
        rng.setstate(state)
        found = remembered.decide(spec, remembered.shape(spec), rng, server_id=f"s{number}")
        assert found == expected, spec
        if found.candidates and rng.random() < 0.8:
            chosen += 1
            row = hosts.row_of[found.candidates[0].host]
            hosts.take(needs_of(spec, rules.pci_aliases), f"s{number}", row)
    assert chosen > 10


@pytest.mark.parametrize("name", sorted(NEVER_TOGETHER))
def test_each_rare_filter_is_remembered_right_too(name: str) -> None:
    rng = random.Random(name)
    rules = rules_of([name, "ComputeFilter"])
    hosts = HostTable()
    hosts.apply([some_host(rng, f"h{n}", n + 1) for n in range(40)])
    remembered = Memory(hosts, rules)
    for number in range(60):
        spec = a_request(vcpus=rng.choice([1, 5, 16]), flavor_name="m1.small")
        hosts.apply([some_host(rng, f"h{rng.randrange(40)}", hosts.seq + 1)])
        expected = decide(hosts, spec, rules, rng, server_id="s")
        assert remembered.decide(spec, remembered.shape(spec), rng, server_id="s") == expected
        if expected.candidates:
            hosts.take(needs_of(spec), f"s{number}", hosts.row_of[expected.candidates[0].host])


def test_what_is_remembered_is_bounded() -> None:
    rules = rules_of(["ComputeFilter", "CoreFilter"])
    hosts = HostTable()
    hosts.apply([a_host(f"h{n}", seq=n + 1, id=n) for n in range(100)])
    remembered = Memory(hosts, rules, max_bytes=20_000)
    for vcpus in range(1, 500):
        spec = a_request(vcpus=vcpus)
        remembered.decide(spec, remembered.shape(spec), random.Random(1), server_id="s")
    assert sum(standing.nbytes for standing in remembered._standings.values()) <= 20_000
    assert len(remembered._standings) > 5
