"""Images: what servers are made from."""

from datetime import datetime
from typing import Any

import msgspec


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One image. `size` and `virtual_size` in bytes, `min_disk` in GiB, `min_ram` in MiB."""

    id: str
    name: str | None = None
    owner: str
    status: str
    """queued, saving, active, deactivated, deleted."""
    visibility: str = "shared"
    """public, private, shared, community."""
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    protected: bool = False
    hidden: bool = False
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    hash_value: str | None = None
    """SHA-512 of the bytes, in hex."""
    tags: list[str] = []
    properties: dict[str, Any] = {}
    created_at: datetime
    updated_at: datetime
