"""Flavors: the sizes in which servers come."""

from datetime import datetime

import msgspec


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """A size. `id` is the one that users see; memory and swap in MiB, disks in GiB."""

    id: str
    name: str
    description: str | None = None
    vcpus: int
    memory_mib: int
    root_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    disabled: bool = False
    extra_specs: dict[str, str] = {}
    created_at: datetime | None = None

    def quota(self) -> dict[str, int]:
        """What one server of this size takes of a project's quota."""
        return {"instances": 1, "cores": self.vcpus, "ram": self.memory_mib}
