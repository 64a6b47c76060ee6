"""What simulated hosts are like."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class FakeOptions:
    """``[fake]`` of kilonova.conf: what simulated hosts are like."""

    section: ClassVar[str] = "fake"

    vcpus: int = 16
    """CPUs of each host."""

    memory_mib: int = 65536
    """Memory of each host, in MiB."""

    disk_gib: int = 1000
    """Disk of each host, in GiB."""

    numa_cells: int = 0
    """NUMA cells of each host, which share its CPUs and memory; 0: it does not tell."""

    huge_pages: int = 0
    """Pages of 2 MiB in each cell."""

    pci_devices: tuple[str, ...] = ()
    """PCI devices of each host: `VENDOR:PRODUCT=COUNT`, such as `10de:1db4=4`."""

    overcommit: float = 0.0
    """How often over guests may have a host's memory and disk before it refuses. 0: it refuses none for that."""

    arch: str = "x86_64"
    """Processor architecture of each host."""

    traits: tuple[str, ...] = ()
    """Abilities that each host reports, by their standard names; own ones begin with ``CUSTOM_``."""

    start_delay_s: float = 0.0
    """Seconds until a host can be used."""

    report_delay_s: float = 0.0
    """Seconds that each look at a host takes."""

    spawn_delay_s: float = 0.0
    """Seconds that each new guest takes."""

    destroy_delay_s: float = 0.0
    """Seconds that the end of each guest takes."""

    power_delay_s: float = 0.0
    """Seconds that switching a guest on or off, or restarting it, takes."""

    delay_shape: Literal["fixed", "uniform", "exponential"] = "fixed"
    """How delays lie around those above: all alike, anything up to twice as long, or mostly short with a few long."""

    spawn_failures: float = 0.0
    """Share of new guests, between 0 and 1, that fail."""

    destroy_failures: float = 0.0
    """Share of destructions that fail; they can be tried again."""

    power_failures: float = 0.0
    """Share of switchings and restarts that fail; they can be tried again."""

    keep_guests: bool = True
    """Whether guests outlive the process, in a file below the state directory. Costs some 20 µs a change."""
