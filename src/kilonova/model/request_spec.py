"""What the scheduler is asked, and what it answers."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from kilonova.model.numa import dedicated_cpus


class ServerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The server group that new servers belong to, and where its other members are."""

    id: str
    policy: str
    """``affinity``, ``anti-affinity``, ``soft-affinity`` or ``soft-anti-affinity``."""
    max_server_per_host: int = 1
    """With ``anti-affinity``: members that one host may have."""
    members: dict[str, str] = {}
    """Server to the host it is on, of the members that are on one."""


class PciRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`count` devices, each of which matches one of `specs`."""

    count: int
    specs: tuple[dict[str, str], ...]
    """Alternatives: ``vendor_id``, ``product_id``, ``dev_type`` and tags that a device must have."""
    numa_policy: str = "legacy"
    """``required``, ``legacy`` or ``preferred``: must the device be in a cell that the guest uses?"""


class RequestSpec(msgspec.Struct, frozen=True, kw_only=True, dict=True):
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
    group: ServerGroup | None = None
    hosts_of_servers: dict[str, str] = {}
    """Where servers are that the hints ``same_host`` and ``different_host`` name, of those that are on a host."""
    pci_requests: tuple[PciRequest, ...] = ()
    """Devices wanted besides those that the flavor names (``pci_passthrough:alias``), such as for ports."""
    source_cell: str = ""
    """When a server moves: the cell that it comes from and may leave."""

    @property
    def disk_gib(self) -> int:
        """All disk that the server takes on its host, in GiB; swap is rounded up."""
        return self.root_gib + self.ephemeral_gib + -(-self.swap_mib // 1024)

    def amounts(self) -> Mapping[str, int]:
        """Resource class to amount, as claimed. Zero amounts are left out.

        CPUs of its own (``hw:cpu_policy``) are of class PCPU. Extra specs ``resources:CLASS`` add a class or
        say another amount of one; what is no whole number there is left alone.
        """
        return self._amounts

    @cached_property  # asked for a dozen times in one decision
    def _amounts(self) -> Mapping[str, int]:
        wanted = {"VCPU": self.vcpus, "MEMORY_MB": self.memory_mib, "DISK_GB": self.disk_gib}
        if self.extra_specs or self.image_properties:
            own = dedicated_cpus(self)
            if own:
                wanted["VCPU"], wanted["PCPU"] = self.vcpus - own, own
            for key, value in self.extra_specs.items():
                scope, _, name = key.partition(":")
                if name and scope.rstrip("0123456789") == "resources" and value.isdecimal():
                    wanted[name] = int(value)
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
    races_lost: dict[str, str] = {}
    """Hosts that were chosen before the one that was claimed, and what of them somebody else had taken in between.
    Written by the claim, not by the scheduler."""


LISTED_HOSTS = 20


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One server's ranked hosts; the first is preferred, the others are alternates."""

    server_id: str
    candidates: tuple[Candidate, ...]
    explanation: Explanation


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """Where servers would go now, and how many: tried on the scheduler's table, claimed nowhere."""

    version: str = "1.0"
    first: Choice
    """The answer for the first of them."""
    hosts: dict[str, int] = {}
    """Host to how many of them would go there."""
    is_all: bool = True
    """False: it was not tried how many more would fit."""
    last: Explanation | None = None
    """Why no further one fits, if that was found."""

    @property
    def fits(self) -> int:
        """How many would find a host."""
        return sum(self.hosts.values())
