"""What an operator can tune about an agent."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """``[compute]`` of kilonova.conf."""

    section: ClassVar[str] = "compute"

    report_interval: float = 10.0
    """Seconds between two heartbeats."""

    update_resources_interval: float = 60.0
    """Seconds between two reports of what the hypervisor has and holds."""

    sync_power_state_interval: float = 30.0
    """Seconds between two comparisons of the hypervisor's guests with what belongs here."""

    cpu_allocation_ratio: float = 4.0
    """Virtual CPUs per real one of this host. In force with the agent's next start."""

    ram_allocation_ratio: float = 1.0
    """Guest memory per real memory of this host."""

    disk_allocation_ratio: float = 1.0
    """Guest disk per real disk of this host."""

    reserved_host_cpus: int = 0
    """CPUs kept for the host itself."""

    reserved_host_memory_mb: int = 512
    """Memory in MiB kept for the host itself."""

    reserved_host_disk_mb: int = 1024
    """Disk in MiB kept for the host itself; rounded up to GiB."""

    cpu_dedicated_set: str = ""
    """CPUs that servers get for themselves (`hw:cpu_policy=dedicated`), such as `2-15`; others float. Empty: none."""

    resources: tuple[str, ...] = ()
    """Resources of this host that flavors ask for by `resources:CUSTOM_LICENSE=1`: `CUSTOM_LICENSE=5`."""

    traits: tuple[str, ...] = ()
    """Traits of this host that flavors ask for by `trait:CUSTOM_FAST_DISK=required`: `CUSTOM_FAST_DISK`."""

    max_concurrent_builds: int = 10
    """Guests that one host makes at the same time; more wait their turn."""

    compute_monitors: tuple[str, ...] = ()
    """What is measured for MetricsFilter and MetricsWeigher: `cpu.virt_driver`, this machine's CPU time."""
