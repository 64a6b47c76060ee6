"""Filters of PCI devices and NUMA cells: examples, and the rules once more by trying every possibility."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_builders import a_host, a_request, host_table, only_complaint, passing

from kilonova.model.host import NumaCell, Pages, PciPool
from kilonova.model.request_spec import PciRequest
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable

ALIASES = [
    {"name": "gpu", "vendor_id": "10DE", "product_id": "1db4"},
    {"name": "near", "vendor_id": "10de", "product_id": "1db4", "numa_policy": "required"},
    {"name": "any", "vendor_id": "10de", "numa_policy": "preferred"},
    {"name": "nic", "device_type": "type-VF", "physnet": "blue"},
    {"name": "either", "vendor_id": "8086", "product_id": "0001"},
    {"name": "either", "vendor_id": "8086", "product_id": "0002"},
]
PCI = {"pci": {"alias": json.dumps(ALIASES)}}


def pool(free: int, product: str = "1db4", vendor: str = "10de", **values: Any) -> PciPool:
    return PciPool(vendor_id=vendor, product_id=product, free=free, **values)


def having(*hosts: tuple[PciPool, ...], **columns: list[Any]) -> HostTable:
    return host_table(pci=list(hosts), **columns)


def served(table: HostTable, alias: str | None = None, **values: Any) -> list[str]:
    extra_specs = {} if alias is None else {"pci_passthrough:alias": alias}
    return passing("PciPassthroughFilter", table, a_request(extra_specs=extra_specs, **values), sections=PCI)


# ---- devices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "hosts"),
    [
        (None, ["h0", "h1", "h2", "h3", "h4"]),
        ("gpu:1", ["h0", "h1"]),
        ("gpu:2", ["h1"]),
        ("gpu:3", ["h1"]),
        ("gpu:4", []),
        ("gpu:1,gpu:1", ["h1"]),
        (" gpu:1 , nic:1 ", ["h1"]),
        ("nic:2", ["h1"]),
        ("either:1", ["h3"]),
        ("either:3", ["h3"]),
        ("either:4", []),
        ("", ["h0", "h1", "h2", "h3", "h4"]),
    ],
)
def test_all_devices_asked_for_must_be_free(alias: str | None, hosts: list[str]) -> None:
    blue = {"physnet": "blue"}
    table = having(
        (pool(1),),
        (pool(1, numa_node=0), pool(2, numa_node=1), pool(2, "beef", "15b3", dev_type="type-VF", tags=blue)),
        (pool(0), pool(5, "beef", "15b3", dev_type="type-VF", tags={"physnet": "red"})),
        (pool(1, "0001", "8086"), pool(2, "0002", "8086")),
        (),
    )
    assert served(table, alias) == hosts


def test_the_last_device_taken_refuses_the_next_until_it_is_given_back() -> None:
    table = having((pool(1),), (pool(1),))
    assert served(table, "gpu:1") == ["h0", "h1"]
    asks = (PciRequest(count=1, specs=({"vendor_id": "10de"},)),)
    table.take(needs_of(a_request(pci_requests=asks)), "s1", table.row_of["h0"])
    assert served(table, "gpu:1") == ["h1"]
    table.settle(["s1"])
    assert served(table, "gpu:1") == ["h0", "h1"]


def test_devices_for_ports_count_beside_those_of_the_flavor() -> None:
    table = having((pool(1),), (pool(2),))
    port = (PciRequest(count=1, specs=({"vendor_id": "10de"},)),)
    assert served(table, None, pci_requests=port) == ["h0", "h1"]
    assert served(table, "gpu:1", pci_requests=port) == ["h1"]


@pytest.mark.parametrize(
    ("alias", "told"),
    [
        ("what:1", "'what' is not known"),
        ("gpu:many", "has no count"),
        ("gpu", "has no count"),
        ("gpu:0", "has no count"),
    ],
)
def test_an_alias_that_cannot_be_read_passes_nobody_and_is_told_once(alias: str, told: str) -> None:
    table = having((pool(9),))
    for _ in range(2):
        assert served(table, alias) == []
    assert told in only_complaint(table)


pools = st.builds(
    pool,
    st.integers(0, 3),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["v", "w"]),
    numa_node=st.sampled_from([None, 0, 1]),
)
wishes = st.builds(
    PciRequest,
    count=st.integers(1, 3),
    specs=st.lists(
        st.fixed_dictionaries(
            {}, optional={"product_id": st.sampled_from(["a", "b", "c"]), "vendor_id": st.sampled_from(["v", "w"])}
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    numa_policy=st.sampled_from(["required", "legacy", "preferred"]),
)


def can_serve(host: Sequence[PciPool], asked: Sequence[PciRequest], cells: frozenset[int] | None = None) -> bool:
    """Whether there is any way to give each wish a device of its own."""
    free = [device for device in host for _ in range(device.free)]
    wanted = [wish for wish in asked for _ in range(wish.count)]

    def suits(device: PciPool, wish: PciRequest) -> bool:
        is_far = cells is not None and device.numa_node not in cells
        if is_far and (
            wish.numa_policy == "required" or (wish.numa_policy == "legacy" and device.numa_node is not None)
        ):
            return False
        facts = {"product_id": device.product_id, "vendor_id": device.vendor_id}
        return any(all(facts[key] == value for key, value in spec.items()) for spec in wish.specs)

    owner: dict[int, int] = {}

    def settle(wish: int, seen: set[int]) -> bool:
        for number, device in enumerate(free):
            if number not in seen and suits(device, wanted[wish]):
                seen.add(number)
                if number not in owner or settle(owner[number], seen):
                    owner[number] = wish
                    return True
        return False

    return all(settle(wish, set()) for wish in range(len(wanted)))


@settings(max_examples=400, deadline=None)
@given(st.lists(pools, max_size=4).map(tuple), st.lists(wishes, min_size=1, max_size=3).map(tuple))
def test_a_host_passes_if_there_is_any_way_to_serve_all(
    host: tuple[PciPool, ...], asked: tuple[PciRequest, ...]
) -> None:
    table = HostTable()
    table.apply([a_host("h0", pci=host)])
    assert served(table, None, pci_requests=asked) == (["h0"] if can_serve(host, asked) else [])


# ---- NUMA ------------------------------------------------------------------------------------------------------


def cell(number: int, memory: int = 8192, **values: Any) -> NumaCell:
    return NumaCell(id=number, memory_mib=memory, **values)


def fitting(table: HostTable, **values: Any) -> list[str]:
    return passing("NUMATopologyFilter", table, a_request(**values), sections=PCI)


def asking(**specs: str) -> dict[str, str]:
    return {f"hw:{key.replace('__', '.')}": value for key, value in specs.items()}


FOUR = (0, 1, 2, 3)


def test_guests_that_do_not_care_go_anywhere() -> None:
    table = host_table(numa=[(), (cell(0),)])
    assert fitting(table, vcpus=64) == ["h0", "h1"]
    assert fitting(table, vcpus=64, extra_specs=asking(cpu_policy="shared")) == ["h0", "h1"]


def test_hosts_without_cells_take_no_guest_that_cares() -> None:
    table = host_table(numa=[(), (cell(0, cpus=FOUR),)])
    assert fitting(table, vcpus=2, extra_specs=asking(numa_nodes="1")) == ["h1"]


def test_each_guest_cell_needs_a_cell_of_its_own() -> None:
    one, two = (cell(0, cpus=FOUR),), (cell(0, cpus=FOUR), cell(1, cpus=FOUR))
    table = host_table(numa=[one, two])
    assert fitting(table, vcpus=4, extra_specs=asking(numa_nodes="2")) == ["h1"]
    assert fitting(table, vcpus=4, extra_specs=asking(numa_nodes="1")) == ["h0", "h1"]


def test_memory_is_counted_cell_by_cell() -> None:
    table = host_table(
        numa=[
            (cell(0, 4096, cpus=FOUR), cell(1, 4096, cpus=FOUR)),
            (cell(0, 2048, cpus=FOUR), cell(1, 6144, cpus=FOUR)),
            (cell(0, 4096, cpus=FOUR, memory_used_mib=3000), cell(1, 9000, cpus=FOUR)),
        ]
    )
    two = asking(numa_nodes="2")
    assert fitting(table, vcpus=2, memory_mib=6144, extra_specs=two) == ["h0"]
    assert fitting(
        table, vcpus=2, memory_mib=6144, extra_specs={**two, **asking(numa_mem__0="2048", numa_mem__1="4096")}
    ) == [
        "h0",
        "h1",
    ]
    assert fitting(table, vcpus=2, memory_mib=2048, extra_specs=two) == ["h0", "h1", "h2"]


def test_floating_cpus_are_over_committed_by_ratio_but_not_by_one_guest() -> None:
    table = host_table(numa=[(cell(0, cpus=FOUR, vcpus_used=3),)] * 2, vcpus_ratio=[1.0, 2.0])
    assert fitting(table, vcpus=4, extra_specs=asking(numa_nodes="1")) == ["h1"]
    assert fitting(table, vcpus=5, extra_specs=asking(numa_nodes="1")) == []


def test_pinned_cpus_are_given_to_one_guest_each() -> None:
    table = host_table(
        numa=[
            (cell(0, dedicated_cpus=FOUR),),
            (cell(0, dedicated_cpus=FOUR, pinned_cpus=(0, 1, 2)),),
            (cell(0, cpus=FOUR),),
        ]
    )
    pinned = asking(cpu_policy="dedicated")
    assert fitting(table, vcpus=1, extra_specs=pinned) == ["h0", "h1"]
    assert fitting(table, vcpus=2, extra_specs=pinned) == ["h0"]
    assert fitting(table, vcpus=1, image_properties={"hw_cpu_policy": "dedicated"}) == ["h0", "h1"]


def test_mixed_guests_need_both_kinds_of_cpus() -> None:
    table = host_table(numa=[(cell(0, cpus=(0,), dedicated_cpus=(1,)),), (cell(0, dedicated_cpus=FOUR),)])
    mixed = asking(cpu_policy="mixed", cpu_dedicated_mask="0")
    assert fitting(table, vcpus=2, extra_specs=mixed) == ["h0"]
    assert fitting(table, vcpus=3, extra_specs=mixed) == []


@pytest.mark.parametrize(
    ("policy", "vcpus", "hosts"),
    [
        ("prefer", 2, ["threads", "half", "single"]),
        ("require", 2, ["threads"]),
        ("require", 4, ["threads"]),
        ("isolate", 2, ["single", "threads"]),
        ("isolate", 3, ["single"]),
    ],
)
def test_thread_policies(policy: str, vcpus: int, hosts: list[str]) -> None:
    pairs = ((0, 1), (2, 3))
    table = HostTable()
    table.apply(
        [
            a_host("threads", numa=(cell(0, dedicated_cpus=FOUR, siblings=pairs),)),
            a_host("half", numa=(cell(0, dedicated_cpus=FOUR, siblings=pairs, pinned_cpus=(0, 2)),)),
            a_host("single", numa=(cell(0, dedicated_cpus=FOUR, siblings=tuple((n,) for n in FOUR)),)),
        ]
    )
    specs = asking(cpu_policy="dedicated", cpu_thread_policy=policy)
    assert fitting(table, vcpus=vcpus, extra_specs=specs) == sorted(hosts)


@pytest.mark.parametrize(
    ("demand", "hosts"),
    [
        ("small", ["h0", "h2"]),
        ("large", ["h1"]),
        ("any", ["h0", "h1", "h2"]),
        ("2048", ["h1"]),
        ("2MB", ["h1"]),
        ("1GB", []),
        ("4", ["h0"]),
    ],
)
def test_pages_must_be_there_in_the_size_asked_for(demand: str, hosts: list[str]) -> None:
    small, large = Pages(size_kib=4, total=2**20), Pages(size_kib=2048, total=600)
    table = host_table(
        numa=[
            (cell(0, cpus=FOUR, pages=(small, Pages(size_kib=2048, total=600, used=90))),),
            (cell(0, cpus=FOUR, pages=(Pages(size_kib=4, total=2**20, used=2**20), large)),),
            (cell(0, cpus=FOUR),),  # a host that does not count its small pages
        ]
    )
    assert fitting(table, memory_mib=1024 + 2, extra_specs=asking(mem_page_size=demand)) == hosts


def test_memory_that_is_no_whole_number_of_pages_does_not_fit() -> None:
    table = host_table(numa=[(cell(0, cpus=FOUR, pages=(Pages(size_kib=2048, total=4000),)),)])
    assert fitting(table, memory_mib=1023, extra_specs=asking(mem_page_size="large")) == []
    assert fitting(table, memory_mib=1024, extra_specs=asking(mem_page_size="large")) == ["h0"]


@pytest.mark.parametrize(
    ("alias", "hosts"), [("near:1", ["h0"]), ("gpu:1", ["h0", "h1"]), ("any:1", ["h0", "h1", "h2"])]
)
def test_devices_are_wanted_near_the_guest_as_their_policy_says(alias: str, hosts: list[str]) -> None:
    # The guest fits into cell 0 only.
    cells = (cell(0, cpus=FOUR), cell(1))
    table = having((pool(1, numa_node=0),), (pool(1),), (pool(1, numa_node=1),), numa=[cells] * 3)
    specs = {**asking(numa_nodes="1"), "pci_passthrough:alias": alias}
    assert fitting(table, vcpus=2, extra_specs=specs) == hosts


def test_what_was_promised_counts() -> None:
    table = host_table(numa=[(cell(0, dedicated_cpus=FOUR),)])
    spec = a_request(vcpus=3, extra_specs=asking(cpu_policy="dedicated"))
    assert passing("NUMATopologyFilter", table, spec) == ["h0"]
    table.take(needs_of(spec), "s1", 0)
    assert passing("NUMATopologyFilter", table, spec) == []


@pytest.mark.parametrize(
    "specs",
    [
        asking(numa_nodes="many"),
        asking(numa_nodes="0"),
        asking(numa_nodes="3"),
        asking(numa_nodes="9"),
        asking(cpu_policy="mine"),
        asking(cpu_policy="dedicated", cpu_thread_policy="what"),
        asking(cpu_policy="mixed"),
        asking(cpu_policy="mixed", cpu_dedicated_mask="9"),
        asking(numa_nodes="2", numa_cpus__0="0-1", numa_cpus__1="1-3"),
        asking(numa_nodes="2", numa_mem__0="1", numa_mem__1="2"),
        asking(mem_page_size="huge"),
        asking(numa_nodes="1") | {"pci_passthrough:alias": "what:1"},
    ],
    ids=str,
)
def test_a_topology_that_cannot_be_read_passes_nobody_and_is_told_once(specs: dict[str, str]) -> None:
    table = host_table(numa=[(cell(0, cpus=FOUR, dedicated_cpus=(4, 5)),) * 1], pci=[(pool(3),)])
    for _ in range(2):
        assert fitting(table, vcpus=4, extra_specs=specs) == []
    assert only_complaint(table).startswith("flavor")


cells = st.builds(
    cell,
    st.just(0),
    st.sampled_from([64, 96, 128]),
    cpus=st.sampled_from([(), (0,), (0, 1)]),
    vcpus_used=st.integers(0, 3),
    dedicated_cpus=st.sampled_from([(), (8,), (8, 9), (8, 9, 10, 11)]),
    pinned_cpus=st.sampled_from([(), (8,), (8, 10)]),
    siblings=st.sampled_from([(), ((8, 9), (10, 11)), ((8,), (9,), (10,), (11,))]),
    memory_used_mib=st.sampled_from([0, 32, 64]),
    pages=st.sampled_from(
        [
            (),
            (Pages(size_kib=4, total=16384, used=4096),),
            (Pages(size_kib=4, total=8192), Pages(size_kib=2048, total=32, used=8)),
        ]
    ),
)


def fits_cell(
    host: NumaCell, cpus: int, pinned: int, memory: int, threads: str, pages: str, ratios: tuple[float, float]
) -> bool:
    """Whether one guest cell fits one host cell: every choice of CPUs is tried."""
    floating = cpus - pinned
    if floating and (floating > len(host.cpus) or host.vcpus_used + floating > len(host.cpus) * ratios[0]):
        return False
    return memory <= host.memory_mib and has_memory(host, memory, pages, ratios[1]) and has_pins(host, pinned, threads)


def has_memory(host: NumaCell, memory: int, pages: str, ratio: float) -> bool:
    if not pages or (pages in ("small", "any") and not host.pages):
        return host.memory_used_mib + memory <= host.memory_mib * ratio
    return any(
        memory * 1024 % each.size_kib == 0 and memory * 1024 // each.size_kib <= each.total - each.used
        for each in host.pages
        if pages == "any" or pages == ("small" if each.size_kib == 4 else "large") or pages == str(each.size_kib)
    )


def has_pins(host: NumaCell, pinned: int, threads: str) -> bool:
    free = set(host.dedicated_cpus) - set(host.pinned_cpus)
    cores = [set(core) for core in host.siblings if set(core) & set(host.dedicated_cpus)]
    cores += [{cpu} for cpu in host.dedicated_cpus if not any(cpu in core for core in host.siblings)]
    return any(suits(set(chosen), free, cores, threads) for chosen in itertools.combinations(sorted(free), pinned))


def suits(chosen: set[int], free: set[int], cores: list[set[int]], threads: str) -> bool:
    used = [(core, core & chosen) for core in cores if core & chosen]
    if threads == "isolate":
        return all(len(of_guest) == 1 and core <= free for core, of_guest in used)
    if threads == "require":
        return all(len(of_guest) > 1 for _, of_guest in used)
    return True


@settings(max_examples=600, deadline=None)
@given(
    host=st.lists(cells, max_size=3),
    nodes=st.integers(1, 2),
    per_node=st.integers(1, 2),
    memory=st.sampled_from([32, 33, 64]),
    policy=st.sampled_from(["shared", "dedicated", "mixed"]),
    threads=st.sampled_from(["prefer", "require", "isolate"]),
    pages=st.sampled_from(["", "small", "large", "any", "2048"]),
    ratios=st.sampled_from([(1.0, 1.0), (2.0, 1.0), (4.0, 1.5)]),
    devices=st.lists(pools, max_size=2).map(tuple),
    asked=st.lists(wishes, max_size=2).map(tuple),
)
def test_a_host_passes_if_there_is_any_way_to_place_the_guest(
    host: list[NumaCell],
    nodes: int,
    per_node: int,
    memory: int,
    policy: str,
    threads: str,
    pages: str,
    ratios: tuple[float, float],
    devices: tuple[PciPool, ...],
    asked: tuple[PciRequest, ...],
) -> None:
    numbered = [msgspec.structs.replace(each, id=number) for number, each in enumerate(host)]
    specs = asking(numa_nodes=str(nodes), cpu_policy=policy, cpu_thread_policy=threads, mem_page_size=pages)
    if policy == "mixed":
        specs |= asking(cpu_dedicated_mask="0")
    table = HostTable()
    table.apply([a_host("h0", numa=tuple(numbered), pci=devices, vcpus_ratio=ratios[0], memory_ratio=ratios[1])])
    found = fitting(table, vcpus=nodes * per_node, memory_mib=nodes * memory, extra_specs=specs, pci_requests=asked)

    own = {"shared": [0] * nodes, "dedicated": [per_node] * nodes, "mixed": [1, *[0] * (nodes - 1)]}[policy]
    expected = any(
        all(
            fits_cell(each, per_node, pinned, memory, threads, pages, ratios)
            for each, pinned in zip(chosen, own, strict=True)
        )
        and can_serve(devices, asked, frozenset(each.id for each in chosen))
        for chosen in itertools.permutations(numbered, nodes)
    )
    assert found == (["h0"] if expected else [])
