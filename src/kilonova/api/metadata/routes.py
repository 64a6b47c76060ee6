"""Metadata in the OpenStack and the EC2 form. A host's proxy says, signed, which server asks."""

import base64
import hashlib
import hmac
from typing import Any

from kilonova.api.http.errors import TEXT_ERRORS
from kilonova.api.http.routing import Api, Reply, Request
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.metadata import Told
from kilonova.model.errors import Forbidden, NotFound
from kilonova.model.metadata import (
    EC2_VERSIONS,
    OPENSTACK_VERSIONS,
    content_path,
    ec2_tree,
    meta_data_json,
    network_data_json,
)

api = Api("metadata", root="/metadata", errors=TEXT_ERRORS)


@api.route("GET", "/{path:path}", public=True)
async def tell(cloud: Cloud, req: Request, path: str) -> Reply:
    """One document or directory."""
    server_id = req.headers.get("x-instance-id", "")
    wanted = hmac.new(cloud.metadata.secret.encode(), server_id.encode(), hashlib.sha256).hexdigest()
    given = req.headers.get("x-instance-id-signature", "")
    if not hmac.compare_digest(wanted.encode(), given.encode(errors="replace")):
        raise Forbidden("This is for the hosts' metadata proxies.")
    told = await cloud.metadata.of(server_id)
    parts = [part for part in path.split("/") if part]
    found = _openstack(told, parts[1:]) if parts[:1] == ["openstack"] else _ec2(told, parts)
    if found is None:
        raise NotFound(kind="Metadata", id=path)
    return Reply(found)


def _openstack(told: Told, parts: list[str]) -> Any:
    if not parts:
        return "\n".join(OPENSTACK_VERSIONS)
    if parts[0] == "content":
        contents = {content_path(number): file.contents for number, file in enumerate(told.facts.files)}
        found = contents.get("/" + "/".join(parts))
        return None if found is None else base64.b64decode(found)
    documents: dict[str, Any] = {
        "meta_data.json": meta_data_json(told.facts),
        "network_data.json": network_data_json(told.facts),
        "vendor_data.json": {},
        "vendor_data2.json": {},
    }
    if told.user_data:
        documents["user_data"] = told.user_data
    if parts[0] not in OPENSTACK_VERSIONS or len(parts) > 2:
        return None
    return "\n".join(sorted(documents)) if len(parts) == 1 else documents.get(parts[1])


def _ec2(told: Told, parts: list[str]) -> str | bytes | None:
    if not parts:
        return "\n".join(EC2_VERSIONS)
    if parts[0] not in EC2_VERSIONS:
        return None
    tree: dict[str, Any] = {"meta-data": ec2_tree(told.facts)}
    if told.user_data:
        tree["user-data"] = told.user_data
    node: Any = tree
    for part in parts[1:]:
        if not isinstance(node, dict):
            return None
        # public-keys/0 stands for public-keys/0=name.
        node = node.get(part, next((value for key, value in node.items() if key.startswith(f"{part}=")), None))
    if isinstance(node, dict):
        return "\n".join(
            f"{key}/" if isinstance(value, dict) and "=" not in key else key for key, value in sorted(node.items())
        )
    return node  # type: ignore[no-any-return]
