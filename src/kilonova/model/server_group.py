"""Server groups: servers that shall be together, or apart."""

from datetime import datetime
from typing import Final

import msgspec

AFFINITY: Final = "affinity"
ANTI_AFFINITY: Final = "anti-affinity"
SOFT_AFFINITY: Final = "soft-affinity"
SOFT_ANTI_AFFINITY: Final = "soft-anti-affinity"
POLICIES: Final = (ANTI_AFFINITY, AFFINITY, SOFT_ANTI_AFFINITY, SOFT_AFFINITY)


class ServerGroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One group. `max_server_per_host` counts with ``anti-affinity`` alone."""

    id: str
    project_id: str
    user_id: str
    name: str
    policy: str
    max_server_per_host: int
    created_at: datetime
    members: tuple[str, ...] = ()
    """Ids of its servers, in the order in which they were made; deleted ones are no members."""
