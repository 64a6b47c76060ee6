"""Host aggregates: hosts that share something, and may make up an availability zone."""

from datetime import datetime
from typing import Final

import msgspec

ZONE_KEY: Final = "availability_zone"
"""The metadata key that makes an aggregate a zone."""


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """One aggregate, as operators see it."""

    id: int
    uuid: str
    name: str
    hosts: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    created_at: datetime
    updated_at: datetime | None = None

    @property
    def availability_zone(self) -> str | None:
        """The zone that its hosts are in; None: it makes none."""
        return self.metadata.get(ZONE_KEY)
