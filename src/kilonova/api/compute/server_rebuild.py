"""``POST /servers/{id}/action`` with ``rebuild``: a fresh disk for a server."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.compute.server_views import Shown, detail, sees_admin_fields
from kilonova.api.compute.servers import (
    File,
    Hostname,
    Reference,
    ServerMetadata,
    checked_address,
    checked_disk_config,
    image_id_of,
)
from kilonova.api.compute.shared import Name, Text
from kilonova.api.http.microversions import Version
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Since, Until
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.server_rebuild import CHANGEABLE, RebuildRequest
from kilonova.model.errors import BadRequest


class Rebuild(Struct, forbid_unknown_fields=True, kw_only=True):
    """``{"rebuild": {"imageRef": …}}``. A field newer than the request's microversion is unknown."""

    image_ref: Reference = field(name="imageRef")
    admin_pass: Annotated[str, Meta(min_length=1, max_length=255)] | None = field(name="adminPass", default=None)
    name: Name | UnsetType = UNSET
    metadata: ServerMetadata | UnsetType = UNSET
    access_ipv4: Annotated[str, Meta(max_length=64)] | UnsetType = field(name="accessIPv4", default=UNSET)
    access_ipv6: Annotated[str, Meta(max_length=64)] | UnsetType = field(name="accessIPv6", default=UNSET)
    disk_config: str | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)
    preserve_ephemeral: bool | str = False
    personality: Annotated[Annotated[list[File], Meta(max_length=5)] | UnsetType, Until("2.56")] = UNSET
    description: Annotated[Text | UnsetType | None, Since("2.19")] = UNSET
    key_name: Annotated[Name | UnsetType | None, Since("2.54")] = UNSET
    user_data: Annotated[str | UnsetType | None, Since("2.57")] = UNSET
    trusted_image_certificates: Annotated[list[str] | None, Since("2.63")] = None
    hostname: Annotated[Hostname | UnsetType, Since("2.90")] = UNSET


USER_DATA_SHOWN = Version(2, 57)


async def rebuild_server(cloud: Cloud, req: Request, server_id: str, wanted: Rebuild) -> Reply:
    """Accept a rebuild; the answer is the server as it will be, with the password for its new system."""
    detailed, password = await cloud.servers.rebuild(req.ctx, server_id, _request(wanted))
    view = detail(Shown.of(detailed, req), with_admin_fields=sees_admin_fields(cloud, req))
    view["adminPass"] = password
    if req.microversion >= USER_DATA_SHOWN:
        view["user_data"] = detailed.server.user_data
    return Reply({"server": view}, {"Location": req.url("servers", server_id)})


def _request(wanted: Rebuild) -> RebuildRequest:
    if wanted.trusted_image_certificates:
        raise BadRequest("trusted_image_certificates: image signatures are not verified by this cloud.")
    if str(wanted.preserve_ephemeral).lower() not in ("false", "0", "no", "off", "f", "n"):
        raise BadRequest("preserve_ephemeral: the disks of servers here cannot be kept across a rebuild.")
    changes: dict[str, Any] = {
        name: value for name in sorted(CHANGEABLE) if not isinstance(value := getattr(wanted, name), UnsetType)
    }
    if "name" in changes:
        changes["name"] = changes["name"].strip()
    if "disk_config" in changes:
        checked_disk_config(changes["disk_config"])
    for column, name, version in (("access_ipv4", "accessIPv4", 4), ("access_ipv6", "accessIPv6", 6)):
        if column in changes:
            checked_address(name, changes[column], version=version)
    files = wanted.personality
    return RebuildRequest(
        image_id=image_id_of(wanted.image_ref),
        admin_password=wanted.admin_pass,
        changes=changes,
        personality=None
        if isinstance(files, UnsetType)
        else [{"path": file.path, "contents": file.contents} for file in files],
    )
