"""What simulated hosts have inside: NUMA cells with cores of two threads, huge pages, PCI devices."""

import re
from collections.abc import Sequence

from kilonova.base.config import ConfigError
from kilonova.model.host import NumaCell, Pages, PciDevice

_DEVICES = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})=(\d{1,3})", re.IGNORECASE)

HUGE_PAGE_KIB = 2048


class HardwareError(ConfigError):
    """An option of ``[fake]`` cannot be read; the message says how it is written."""


def numa_cells(count: int, *, vcpus: int, memory_mib: int, huge_pages: int) -> tuple[NumaCell, ...]:
    """`count` equal cells that share a host's CPUs and memory; none for 0.

    Args:
        huge_pages: of 2 MiB, in each cell; the rest of its memory is small pages.
    """
    cells = []
    for number in range(count):
        cpus = tuple(range(number * vcpus // count, (number + 1) * vcpus // count))
        memory = memory_mib // count
        small = memory * 1024 - huge_pages * HUGE_PAGE_KIB
        if small < 0:
            raise HardwareError(f"[fake] huge_pages = {huge_pages}: a cell has {memory} MiB only.")
        pages = (Pages(size_kib=4, total=small // 4), Pages(size_kib=HUGE_PAGE_KIB, total=huge_pages))
        cells.append(
            NumaCell(
                id=number,
                cpus=cpus,
                siblings=tuple(cpus[first : first + 2] for first in range(0, len(cpus), 2)),
                memory_mib=memory,
                pages=pages if huge_pages else (),
            )
        )
    return tuple(cells)


def pci_devices(texts: Sequence[str], *, cells: int) -> tuple[PciDevice, ...]:
    """Devices from ``VENDOR:PRODUCT=COUNT``, spread over the cells.

    Raises:
        HardwareError
    """
    found: list[PciDevice] = []
    for bus, text in enumerate(texts, start=1):
        match = _DEVICES.fullmatch(text)
        if match is None:
            raise HardwareError(f"[fake] pci_devices: '{text}' is not of the form 10de:1db4=4.")
        found += [
            PciDevice(
                address=f"0000:{bus:02x}:{slot:02x}.0",
                vendor_id=match[1].lower(),
                product_id=match[2].lower(),
                numa_node=slot % cells if cells else None,
            )
            for slot in range(int(match[3]))
        ]
    return tuple(found)
