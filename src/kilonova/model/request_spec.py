"""What the scheduler is asked, and what it answers."""

from typing import Any

import msgspec


class RequestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One or several equal servers that want hosts.

    Memory and swap in MiB, disks in GiB. `image_properties` has the image's own properties and, under
    their own names, ``hw_architecture``, ``img_hv_type``, ``hw_vm_mode`` … as users set them.
    """

    version: str = "1.0"
    server_ids: tuple[str, ...]
    """The servers to place, one host each."""
    project_id: str
    user_id: str = ""
    flavor_name: str = ""
    flavor_id: str = ""
    vcpus: int
    memory_mib: int
    root_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    extra_specs: dict[str, str] = {}
    image_id: str = ""
    image_properties: dict[str, Any] = {}
    availability_zone: str | None = None
    force_host: str | None = None
    """Skip the filters and take this host (administrators, ``zone:host``)."""
    requested_host: str | None = None
    """Only this host, filters included (microversion 2.74)."""
    scheduler_hints: dict[str, Any] = {}
    excluded_hosts: tuple[str, ...] = ()
    """Hosts on which this build failed before."""

    @property
    def disk_gib(self) -> int:
        """All disk that the server takes on its host, in GiB; swap is rounded up."""
        return self.root_gib + self.ephemeral_gib + -(-self.swap_mib // 1024)

    def amounts(self) -> dict[str, int]:
        """Resource class to amount, as claimed. Zero amounts are left out."""
        wanted = {"VCPU": self.vcpus, "MEMORY_MB": self.memory_mib, "DISK_GB": self.disk_gib}
        return {name: amount for name, amount in wanted.items() if amount}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A host that passed, in the order of preference."""

    host_id: int
    host: str
    weight: float


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why the decision came out as it did.

    `filters` are pairs (filter name, hosts that remained after it) in the order in which they ran,
    beginning with ``("", hosts considered)``. `scores` gives, for the best hosts, each weigher's
    normalised score times its multiplier.
    """

    filters: tuple[tuple[str, int], ...]
    removed: dict[str, tuple[str, ...]] = {}
    """Filter name to the hosts that it removed, at most `LISTED_HOSTS` each."""
    scores: dict[str, dict[str, float]] = {}
    chosen: tuple[str, ...] = ()
    missing: str = ""
    """For people, without host names: what would have been needed. Empty when a host was found."""


LISTED_HOSTS = 20


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One server's ranked hosts; the first is preferred, the others are alternates."""

    server_id: str
    candidates: tuple[Candidate, ...]
    explanation: Explanation
