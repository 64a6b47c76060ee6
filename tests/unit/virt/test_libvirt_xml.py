"""What libvirt is told of a guest's place on its host, and what is read of the host."""

from pathlib import Path
from xml.etree import ElementTree as ET

from kilonova.model.guest import CellPlan, GuestSpec
from kilonova.virt.libvirt.domain_xml import Machine, domain_xml
from kilonova.virt.libvirt.host_xml import numa_cells

CAPABILITIES = """
<capabilities><host><topology><cells num='2'>
 <cell id='0'><memory unit='KiB'>16777216</memory><pages unit='KiB' size='4'>4000000</pages>
  <pages unit='KiB' size='2048'>512</pages><pages unit='KiB' size='1048576'>0</pages>
  <cpus num='4'><cpu id='0' siblings='0,4'/><cpu id='1' siblings='1,5'/><cpu id='4' siblings='0,4'/>
  <cpu id='5' siblings='1,5'/></cpus></cell>
 <cell id='1'><memory unit='KiB'>8388608</memory><pages unit='KiB' size='4'>2097152</pages>
  <cpus num='2'><cpu id='2' siblings='2-3'/><cpu id='3' siblings='2-3'/></cpus></cell>
</cells></topology></host></capabilities>
"""


def test_cells_of_the_host_are_read() -> None:
    first, second = numa_cells(CAPABILITIES)
    assert (first.id, first.cpus, first.siblings, first.memory_mib) == (0, (0, 1, 4, 5), ((0, 4), (1, 5)), 16384)
    assert {pages.size_kib: pages.total for pages in first.pages} == {4: 4000000, 2048: 512, 1048576: 0}
    assert (second.id, second.cpus, second.siblings, second.memory_mib) == (1, (2, 3), ((2, 3),), 8192)
    assert second.pages == (), "only small pages: not counted"


def guest(**more: object) -> ET.Element:
    values = {"server_id": "s", "name": "n", "project_id": "p", "hostname": "h", "vcpus": 3, "memory_mib": 3072}
    spec = GuestSpec(**{**values, "root_gib": 1, **more})  # type: ignore[arg-type]
    return ET.fromstring(domain_xml(spec, Path("/nowhere"), Machine("kvm", "o")))


def test_a_guest_that_may_run_anywhere_is_bound_to_nothing() -> None:
    domain = guest()
    for name in ("cputune", "numatune", "memoryBacking", "cpu/numa", "devices/hostdev"):
        assert domain.find(name) is None


def test_cells_cpus_and_pages_are_bound() -> None:
    domain = guest(
        cells=(
            CellPlan(host_cell=1, cpus=(0, 1), memory_mib=2048, pins=((0, 8),), shared_cpus=(4, 5), page_kib=2048),
            CellPlan(host_cell=0, cpus=(2,), memory_mib=1024, pins=((2, 3),)),
        )
    )
    pins = {pin.get("vcpu"): pin.get("cpuset") for pin in domain.iterfind("cputune/vcpupin")}
    assert pins == {"0": "8", "1": "4,5", "2": "3"}
    cells = [(c.get("id"), c.get("cpus"), c.get("memory"), c.get("unit")) for c in domain.iterfind("cpu/numa/cell")]
    assert cells == [("0", "0,1", "2048", "MiB"), ("1", "2", "1024", "MiB")]
    memory = domain.find("numatune/memory")
    assert memory is not None and (memory.get("mode"), memory.get("nodeset")) == ("strict", "0,1")
    nodes = {node.get("cellid"): node.get("nodeset") for node in domain.iterfind("numatune/memnode")}
    assert nodes == {"0": "1", "1": "0"}
    pages = [(p.get("size"), p.get("unit"), p.get("nodeset")) for p in domain.iterfind("memoryBacking/hugepages/page")]
    assert pages == [("2048", "KiB", "0")]


def test_devices_of_the_host_are_named_by_their_address() -> None:
    domain = guest(pci_devices=("0000:3b:00.1",))
    address = domain.find("devices/hostdev/source/address")
    assert address is not None
    assert address.attrib == {"domain": "0x0000", "bus": "0x3b", "slot": "0x00", "function": "0x1"}
