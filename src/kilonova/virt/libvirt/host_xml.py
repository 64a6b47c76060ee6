"""What libvirt says of its host's NUMA cells, read. Element names: libvirt's capabilities XML."""

from xml.etree import ElementTree as ET

from kilonova.model.host import NumaCell, Pages


def numa_cells(capabilities: str) -> tuple[NumaCell, ...]:
    """The host's cells: all their CPUs float until somebody sets some apart.

    Args:
        capabilities: what ``virsh capabilities`` prints.
    """
    root = ET.fromstring(capabilities)  # noqa: S314 - from our own daemon
    return tuple(_cell(cell) for cell in root.iterfind("./host/topology/cells/cell"))


def _cell(cell: ET.Element) -> NumaCell:
    cpus = sorted(int(cpu.get("id", "0")) for cpu in cell.iterfind("./cpus/cpu"))
    cores = {_cpus(cpu.get("siblings", cpu.get("id", "0"))) for cpu in cell.iterfind("./cpus/cpu")}
    pages = tuple(
        Pages(size_kib=int(page.get("size", "4")), total=int(page.text or "0")) for page in cell.iterfind("./pages")
    )
    has_huge = any(page.total for page in pages if page.size_kib > 4)
    return NumaCell(
        id=int(cell.get("id", "0")),
        cpus=tuple(cpus),
        siblings=tuple(sorted(core for core in cores if len(core) > 1)),
        memory_mib=int(cell.findtext("./memory") or "0") // 1024,
        pages=pages if has_huge else (),
    )


def _cpus(text: str) -> tuple[int, ...]:
    """``0,4-5`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
