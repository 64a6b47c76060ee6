"""The rebuild of a server: what may be asked for, and the transaction that accepts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from kilonova.cloud.server_actions import Order, begin
from kilonova.cloud.server_creation import (
    check_files,
    check_metadata,
    check_user_data,
    image_properties,
    key_of,
    usable_image,
)
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest
from kilonova.model.numa import MalformedTopology, guest_topology
from kilonova.model.placing import spec_of_server
from kilonova.model.server import Server
from kilonova.model.states import VMState
from kilonova.store.queries import servers
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class RebuildRequest:
    """What a user asks for.

    Attributes:
        changes: columns of the server that change with the disk, of `CHANGEABLE`; a `key_name` or `user_data` of None
            takes away the one that was there.
        personality: files for the new guest; None: those of before.
    """

    image_id: str
    admin_password: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    personality: list[dict[str, str]] | None = None


CHANGEABLE = frozenset(
    {
        "access_ipv4",
        "access_ipv6",
        "description",
        "disk_config",
        "hostname",
        "key_name",
        "metadata",
        "name",
        "user_data",
    }
)
"""What a rebuild can change besides the disk."""


def check_rebuild(request: RebuildRequest) -> None:
    """What can be said of a request without looking anything up.

    Raises:
        BadRequest
    """
    unknown = sorted(request.changes.keys() - CHANGEABLE)
    if unknown:
        raise BadRequest(f"A rebuild cannot change: {', '.join(unknown)}.")
    check_user_data(request.changes.get("user_data"))
    check_files(request.personality or ())


def rebuild(
    tx: Tx, ctx: RequestContext, server_id: str, project_id: str | None, order: Order, request: RebuildRequest
) -> None:
    """Accept a rebuild: the server has its new image and its new settings at once, and a task that makes them true.

    The task carries the image of before: if the new one turns out to be unusable, the server keeps its disk.

    Raises:
        NotFound, InvalidState, Conflict, QuotaExceeded
        BadRequest: the image or the key pair cannot be used, or the image wants other CPUs of the server's own.
    """
    server = servers.lock(tx, server_id, project_id=project_id)
    before = {"image_id": server.image_id, "image_properties": server.order.image_properties}
    payload = {**order.payload, "power_on": server.vm_state is not VMState.STOPPED, "before": before}
    begin(tx, ctx, server_id, project_id, replace(order, payload=payload))
    image = usable_image(tx, ctx, request.image_id, server.flavor)
    changes = dict(request.changes)
    if "metadata" in changes:
        check_metadata(tx, server.project_id, changes["metadata"], used=len(server.metadata))
    if "key_name" in changes:
        key = key_of(tx, ctx, changes["key_name"])
        changes["key_data"] = key.public_key if key else None
    asked = msgspec.structs.replace(server.order, image_properties=image_properties(image))
    if request.personality is not None:
        asked = msgspec.structs.replace(asked, personality=request.personality)
    _check_layout(server, msgspec.structs.replace(server, order=asked))
    changes["request"] = msgspec.to_builtins(asked)
    servers.update(tx, server_id, at=order.at, image_id=image.id, progress=0, **changes)


def _check_layout(before: Server, after: Server) -> None:
    """Cells, pages and CPUs that a server has for itself stay as they were claimed."""
    try:
        wanted = guest_topology(spec_of_server(after))
    except MalformedTopology as error:
        raise BadRequest(f"The image's properties: {error}.") from None
    if wanted != guest_topology(spec_of_server(before)):
        raise BadRequest(
            "The image asks for other NUMA cells, huge pages or CPUs of its own than the server has. A rebuild keeps "
            "the server's place: make a new server of this image instead."
        )
