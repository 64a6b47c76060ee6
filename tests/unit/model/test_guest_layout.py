"""What a server holds of a host's cells becomes the placement of its guest's cells."""

import pytest

from kilonova.model.devices import HostDevices
from kilonova.model.guest_layout import LayoutError, lay_out
from kilonova.model.host import NumaCell, Pages
from kilonova.model.numa import guest_topology
from kilonova.model.request_spec import RequestSpec


def cell(number: int, *, first: int, memory_mib: int = 8192, huge: int = 0) -> NumaCell:
    """Eight CPUs as four cores of two threads; the upper four can be given away."""
    cpus = tuple(range(first, first + 8))
    return NumaCell(
        id=number,
        cpus=cpus[:4],
        dedicated_cpus=cpus[4:],
        siblings=tuple(cpus[n : n + 2] for n in range(0, 8, 2)),
        memory_mib=memory_mib,
        pages=(Pages(size_kib=4, total=1 << 20), Pages(size_kib=2048, total=huge)) if huge else (),
    )


def wants(vcpus: int, memory_mib: int = 1024, **extra_specs: str) -> RequestSpec:
    specs = {f"hw:{name}": value for name, value in extra_specs.items()}
    return RequestSpec(
        server_ids=("s",), project_id="p", vcpus=vcpus, memory_mib=memory_mib, root_gib=1, extra_specs=specs
    )


def plans(host: HostDevices, spec: RequestSpec):  # type: ignore[no-untyped-def]
    topology = guest_topology(spec)
    assert topology is not None
    taken = host.take("s", topology, (), cpu_ratio=4.0, memory_ratio=1.0)
    assert taken is not None
    return lay_out(topology, taken[1], taken[0].cells)


TWO_CELLS = HostDevices(cells=(cell(0, first=0), cell(1, first=8, huge=512)))


def test_each_pinned_cpu_has_one_of_the_host_for_itself() -> None:
    [plan] = plans(TWO_CELLS, wants(2, cpu_policy="dedicated"))
    assert plan.cpus == (0, 1)
    assert dict(plan.pins) == {0: 4, 1: 5}
    assert plan.page_kib == 0


def test_mixed_cpus_are_pinned_where_the_mask_says() -> None:
    [plan] = plans(TWO_CELLS, wants(3, cpu_policy="mixed", cpu_dedicated_mask="2"))
    assert dict(plan.pins) == {2: 4}
    assert plan.cpus == (0, 1, 2) and plan.shared_cpus == (0, 1, 2, 3)


def test_isolated_cpus_leave_the_other_thread_of_their_core_empty() -> None:
    [plan] = plans(TWO_CELLS, wants(2, cpu_policy="dedicated", cpu_thread_policy="isolate"))
    assert dict(plan.pins) == {0: 4, 1: 6}


def test_two_cells_of_different_size_lie_on_two_of_the_host() -> None:
    spec = wants(
        3,
        memory_mib=9000,
        numa_nodes="2",
        **{"numa_cpus.0": "0", "numa_cpus.1": "1,2", "numa_mem.0": "1000", "numa_mem.1": "8000"},
    )
    first, second = plans(TWO_CELLS, spec)
    assert (first.cpus, first.memory_mib) == ((0,), 1000)
    assert (second.cpus, second.memory_mib) == ((1, 2), 8000)
    assert {first.host_cell, second.host_cell} == {0, 1}


def test_huge_pages_are_those_of_the_cell_that_has_them() -> None:
    [plan] = plans(TWO_CELLS, wants(1, mem_page_size="large"))
    assert (plan.host_cell, plan.page_kib) == (1, 2048)


def test_what_does_not_match_is_refused() -> None:
    topology = guest_topology(wants(2, cpu_policy="dedicated"))
    other = guest_topology(wants(3, cpu_policy="dedicated"))
    assert topology is not None and other is not None
    taken = TWO_CELLS.take("s", topology, (), cpu_ratio=1.0, memory_ratio=1.0)
    assert taken is not None
    with pytest.raises(LayoutError, match="do not match"):
        lay_out(other, taken[1], taken[0].cells)
    with pytest.raises(LayoutError, match="no NUMA cell 0 any more"):
        lay_out(topology, taken[1], ())
