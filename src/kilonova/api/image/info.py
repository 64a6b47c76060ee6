"""``/info``: what a client can find out about the Image API before it uses it.

Bytes come in by upload alone, so the list of import methods is empty; and there is one store of bytes.
"""

from typing import TYPE_CHECKING, Any

from kilonova.api.http.routing import Reply, Request
from kilonova.api.image.api import api

if TYPE_CHECKING:
    from kilonova.cloud.cloud import Cloud


@api.route("GET", "/info/import")
async def show_import_methods() -> Reply:
    """Ways to give an image its bytes other than by upload: none."""
    methods: dict[str, Any] = {"description": "Import methods available.", "type": "array", "value": []}
    return Reply({"import-methods": methods})


@api.route("GET", "/info/stores")
async def list_stores(cloud: "Cloud") -> Reply:
    """Where bytes are kept."""
    return Reply({"stores": [{"id": cloud.images.store_name, "default": "true"}]})


@api.route("GET", "/info/stores/detail", policy="stores_info_detail")
async def list_stores_with_details(cloud: "Cloud") -> Reply:
    """Where bytes are kept, for administrators."""
    name = cloud.images.store_name
    return Reply({"stores": [{"id": name, "type": name, "default": "true", "properties": {}}]})


@api.route("GET", "/info/usage")
async def show_usage(cloud: "Cloud", req: Request) -> Reply:
    """What the caller's project uses of the quotas of images; sizes in MiB."""
    usage = await cloud.images.usage(req.ctx)
    return Reply({"usage": {name: {"usage": used, "limit": limit} for name, (used, limit) in usage.items()}})
