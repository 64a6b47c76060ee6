"""What simulated hosts are made of, and the flavors that ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kilonova.model.flavor import Flavor
from kilonova.virt.fake.options import FakeOptions


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of host.

    Attributes:
        host: what each of them has, and how long its hypervisor takes.
        config: section to option to value, for all services.
        flavors: a small, a middling and a large one; users ask for them in shares of 6, 3 and 1.
    """

    host: FakeOptions
    config: Mapping[str, Mapping[str, Any]]
    flavors: tuple[Flavor, Flavor, Flavor]


def _flavors(
    small: Mapping[str, str], medium: Mapping[str, str], large: Mapping[str, str]
) -> tuple[Flavor, Flavor, Flavor]:
    return (
        Flavor(id="small", name="small", vcpus=1, memory_mib=1024, root_gib=5, extra_specs=dict(small)),
        Flavor(id="medium", name="medium", vcpus=2, memory_mib=4096, root_gib=20, extra_specs=dict(medium)),
        Flavor(id="large", name="large", vcpus=8, memory_mib=16384, root_gib=80, extra_specs=dict(large)),
    )


_PLAIN: Final = Hardware(
    host=FakeOptions(
        vcpus=16,
        memory_mib=32768,
        disk_gib=500,
        spawn_delay_s=2.0,
        destroy_delay_s=0.5,
        power_delay_s=1.0,
        delay_shape="exponential",
        keep_guests=False,
    ),
    config={},
    flavors=_flavors({}, {}, {}),
)

HARDWARE: Final[Mapping[str, Hardware]] = {
    "plain": _PLAIN,
    "fine": Hardware(
        host=replace(_PLAIN.host, numa_cells=2, huge_pages=2048, pci_devices=("10de:1db4=3",)),
        config={
            "compute": {"cpu_dedicated_set": "4-7,12-15"},
            "pci": {"alias": '[{"name": "gpu", "vendor_id": "10de", "product_id": "1db4"}]'},
        },
        flavors=_flavors(
            {"hw:cpu_policy": "dedicated"},
            {"hw:mem_page_size": "large", "pci_passthrough:alias": "gpu:1"},
            {"hw:numa_nodes": "2"},
        ),
    ),
}
"""``plain``: some thirty small servers fit on a host. ``fine``: hosts of two cells, with CPUs to give away, huge pages
and devices; every flavor asks for some of them, so that fewer fit, and many servers find no host."""
