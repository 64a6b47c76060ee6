"""``/images`` of Image v2: records, bytes, tags and members."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kilonova.api.http.errors import GLANCE_ERRORS
from kilonova.api.http.paging import glance_links, page_size
from kilonova.api.http.routing import Api, Reply, Request
from kilonova.api.http.schema import Uuid, convert
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest, Conflict, Forbidden, NotFound
from kilonova.model.image import Image

api = Api("image", root="/image/v2", errors=GLANCE_ERRORS)

PATCH_TYPES = (
    "application/openstack-images-v2.1-json-patch",
    "application/openstack-images-v2.0-json-patch",
    "application/json-patch+json",
)

Text = Annotated[str, Meta(max_length=255)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Tag = Annotated[str, Meta(min_length=1, max_length=255)]


class ImageFields(Struct, kw_only=True):
    """What can be said of an image, besides properties of its owner's own."""

    id: Uuid | None = None
    name: Text | None = None
    owner: Annotated[str, Meta(max_length=64)] | None = None
    visibility: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: Count = 0
    min_ram: Count = 0
    protected: bool = False
    os_hidden: bool = False
    tags: Annotated[list[Tag], Meta(max_length=128)] = []


OWN_FIELDS = frozenset(ImageFields.__struct_fields__)
READ_ONLY = frozenset(
    {
        "id", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at",
        "self", "file", "schema", "direct_url", "locations", "stores", "deleted", "deleted_at",
    }
)  # fmt: skip
MAX_PROPERTIES = 128


def view(image: Image) -> dict[str, Any]:
    """An image as clients see it."""
    path = f"/v2/images/{image.id}"
    return {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "owner": image.owner,
        "status": image.status,
        "visibility": image.visibility,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "os_hidden": image.hidden,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": "sha512" if image.hash_value else None,
        "os_hash_value": image.hash_value,
        "tags": image.tags,
        "created_at": image.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "updated_at": image.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "self": path,
        "file": f"{path}/file",
        "schema": "/v2/schemas/image",
    }


def _properties(given: dict[str, Any]) -> dict[str, str]:
    if len(given) > MAX_PROPERTIES:
        raise BadRequest(f"An image may have {MAX_PROPERTIES} properties at most.")
    for key, value in given.items():
        if not isinstance(value, str) or len(value) > 4096 or not 0 < len(key) <= 255:
            raise BadRequest(f"Invalid input for field/attribute {key[:80]}: a property is a string of 4096 at most.")
    return given


def _values(body: dict[str, Any]) -> dict[str, Any]:
    """Columns from a body: its known fields checked, the others as properties."""
    for key in body:
        if key in READ_ONLY and key != "id":
            raise Forbidden(f"Attribute '{key}' is read-only.")
    fields = convert({key: value for key, value in body.items() if key in OWN_FIELDS}, ImageFields)
    values = {key: getattr(fields, key) for key in OWN_FIELDS if key in body}
    if "os_hidden" in values:
        values["hidden"] = values.pop("os_hidden")
    for key in ("owner", "visibility", "id"):
        if key in values and values[key] is None:
            del values[key]
    values["properties"] = _properties({k: v for k, v in body.items() if k not in OWN_FIELDS and v is not None})
    return values


@api.route("POST", "/images", policy="add_image", status=201)
async def create_image(cloud: Cloud, req: Request, body: dict[str, Any]) -> Reply:
    """A new image, without bytes yet."""
    image = await cloud.images.create(req.ctx, _values(body))
    return Reply(view(image), {"Location": req.url("images", image.id)})


@api.route("GET", "/images", policy="get_images")
async def list_images(cloud: Cloud, req: Request) -> Reply:
    """Images that the caller can see, newest first."""
    where: dict[str, Any] = {}
    tags: list[str] = []
    sort: list[tuple[str, bool]] = []
    keys, directions = [], []
    limit, marker, member_status = None, None, "accepted"
    for name, value in req.params:
        if name == "limit":
            limit = value
        elif name == "marker":
            marker = value
        elif name == "sort_key":
            keys.append(value)
        elif name == "sort_dir":
            directions.append(value)
        elif name == "sort":
            sort = [(part.partition(":")[0], part.partition(":")[2] == "desc") for part in value.split(",")]
        elif name == "tag":
            tags.append(value)
        elif name == "member_status":
            member_status = value
        elif name in ("protected", "os_hidden"):
            where["hidden" if name == "os_hidden" else name] = value.lower() == "true"
        elif name in ("size_min", "size_max", "created_at", "updated_at") or (name == "visibility" and value == "all"):
            continue
        else:
            where[name] = value[3:].split(",")[0] if value.startswith("in:") else value
    if any(direction not in ("asc", "desc") for direction in directions):
        raise BadRequest("Invalid sort direction: use asc or desc.")
    directions += directions[-1:] * (len(keys) - len(directions)) or ["desc"] * (len(keys) - len(directions))
    sort = sort or [(key, d == "desc") for key, d in zip(keys, directions, strict=False)] or [("created_at", True)]
    size = page_size(limit, default=25 if limit is None else None)
    found = await cloud.images.page(
        req.ctx, where=where, tags=tags, limit=size, marker=marker, sort=sort, member_status=member_status
    )
    body = {"images": [view(image) for image in found], "schema": "/v2/schemas/images"}
    return Reply(body | glance_links(req, size, [image.id for image in found]))


@api.route("GET", "/images/{image_id}", policy="get_image")
async def show_image(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """One image."""
    return Reply(view(await cloud.images.get(req.ctx, image_id)))


class Change(Struct, kw_only=True):
    """One operation of a JSON patch."""

    op: str
    path: Annotated[str, Meta(min_length=2, max_length=512, pattern="^/")]
    value: Any = None


@api.route("PATCH", "/images/{image_id}", accepts=PATCH_TYPES)
async def update_image(cloud: Cloud, req: Request, image_id: Uuid, body: list[Change]) -> Reply:
    """Change an image by a JSON patch of single steps."""
    image = await cloud.images.get(req.ctx, image_id)
    current = {key: value for key, value in view(image).items() if key not in READ_ONLY}
    for change in body:
        key = change.path[1:].replace("~1", "/").replace("~0", "~")
        if key in READ_ONLY:
            raise Forbidden(f"Attribute '{key}' is read-only.")
        if change.op in ("add", "replace"):
            if change.op == "replace" and key not in current:
                raise BadRequest(f"Property {key} does not exist.") if key in OWN_FIELDS else _conflict(key)
            current[key] = change.value
        elif change.op == "remove":
            if key not in current:
                raise _conflict(key)
            if key in OWN_FIELDS:
                raise Forbidden(f"Property '{key}' is reserved.")
            del current[key]
        else:
            raise BadRequest(f"Invalid input for field/attribute op: '{change.op[:20]}'; use add, replace or remove.")
    return Reply(view(await cloud.images.update(req.ctx, image_id, _values(current))))


def _conflict(key: str) -> Conflict:
    return Conflict(f"Property {key} does not exist.")


@api.route("DELETE", "/images/{image_id}", status=204)
async def delete_image(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """Delete an image."""
    await cloud.images.delete(req.ctx, image_id)
    return Reply()


# ---- bytes --------------------------------------------------------------------------------------------------


@api.route("PUT", "/images/{image_id}/file", status=204, accepts=("application/octet-stream",), max_body=None)
async def upload(cloud: Cloud, req: Request, image_id: Uuid, stream: Any) -> Reply:
    """Take an image's bytes."""
    await cloud.images.upload(req.ctx, image_id, stream)
    return Reply()


@api.route("GET", "/images/{image_id}/file", public=True)
async def download(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """An image's bytes, for whoever may see it, or has a ticket for it."""
    ticket = req.headers.get("x-kilonova-ticket", "")
    ctx = None if ticket else await req.authenticate()
    image = await cloud.images.download(ctx, image_id, ticket=ticket)
    if image.size is None or image.status not in ("active", "deactivated"):
        return Reply(status=204)
    headers = {"Content-MD5": image.checksum or "", "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d{1,15})-(\d{0,15})", req.headers.get("range", ""))
    if asked:
        start = int(asked[1])
        end = min(int(asked[2]) + 1, image.size) if asked[2] else image.size
        if start >= end:
            raise BadRequest(f"The range is outside the image's {image.size} bytes.")
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{image.size}", "Content-Length": str(end - start)}
        return Reply(status=206, headers=headers, stream=cloud.images.bytes_of(image, start=start, end=end))
    headers["Content-Length"] = str(image.size)
    return Reply(headers=headers, stream=cloud.images.bytes_of(image))


# ---- actions, tags, members ---------------------------------------------------------------------------------


@api.route("POST", "/images/{image_id}/actions/deactivate", status=204)
async def deactivate(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """Take an image out of use."""
    await cloud.images.set_active(req.ctx, image_id, active=False)
    return Reply()


@api.route("POST", "/images/{image_id}/actions/reactivate", status=204)
async def reactivate(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """Put an image into use again."""
    await cloud.images.set_active(req.ctx, image_id, active=True)
    return Reply()


@api.route("PUT", "/images/{image_id}/tags/{tag}", status=204)
async def add_tag(cloud: Cloud, req: Request, image_id: Uuid, tag: str) -> Reply:
    """Tag an image."""
    image = await cloud.images.get(req.ctx, image_id)
    await cloud.images.update(req.ctx, image_id, {"tags": [*(t for t in image.tags if t != tag), tag]})
    return Reply()


@api.route("DELETE", "/images/{image_id}/tags/{tag}", status=204)
async def remove_tag(cloud: Cloud, req: Request, image_id: Uuid, tag: str) -> Reply:
    """Take a tag off."""
    image = await cloud.images.get(req.ctx, image_id)
    if tag not in image.tags:
        raise NotFound(kind="Tag", id=tag)
    await cloud.images.update(req.ctx, image_id, {"tags": [t for t in image.tags if t != tag]})
    return Reply()


class MemberBody(Struct, kw_only=True):
    """Body of member requests."""

    member: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    status: str | None = None


def _member(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_id": row["image_id"],
        "member_id": row["project_id"],
        "status": row["status"],
        "created_at": row["created_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "updated_at": row["updated_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "schema": "/v2/schemas/member",
    }


@api.route("GET", "/images/{image_id}/members")
async def list_members(cloud: Cloud, req: Request, image_id: Uuid) -> Reply:
    """With whom an image is shared."""
    found = await cloud.images.members(req.ctx, image_id)
    return Reply({"members": [_member(row) for row in found], "schema": "/v2/schemas/members"})


@api.route("POST", "/images/{image_id}/members")
async def add_member(cloud: Cloud, req: Request, image_id: Uuid, body: MemberBody) -> Reply:
    """Share an image with a project."""
    if body.member is None:
        raise BadRequest("Invalid input for field/attribute member: it is a required property.")
    return Reply(_member(await cloud.images.share(req.ctx, image_id, body.member)))


@api.route("PUT", "/images/{image_id}/members/{project_id}")
async def answer_member(cloud: Cloud, req: Request, image_id: Uuid, project_id: str, body: MemberBody) -> Reply:
    """A member accepts or rejects."""
    return Reply(_member(await cloud.images.answer(req.ctx, image_id, project_id, body.status or "")))


@api.route("DELETE", "/images/{image_id}/members/{project_id}", status=204)
async def remove_member(cloud: Cloud, req: Request, image_id: Uuid, project_id: str) -> Reply:
    """Share it no more."""
    await cloud.images.unshare(req.ctx, image_id, project_id)
    return Reply()


# ---- schemas ------------------------------------------------------------------------------------------------


def _schema(name: str) -> dict[str, Any]:
    kind: Any = {"image": ImageFields, "member": MemberBody}[name]
    _, definitions = msgspec.json.schema_components([kind])
    return {
        "name": name,
        "properties": definitions[kind.__name__].get("properties", {}),
        "additionalProperties": {"type": "string"},
    }


@api.route("GET", "/schemas/{name}")
async def show_schema(cloud: Cloud, req: Request, name: str) -> Reply:
    """What an image or a member looks like, as JSON schema."""
    if name.removesuffix("s") not in ("image", "member"):
        raise NotFound(kind="Schema", id=name)
    one = _schema(name.removesuffix("s"))
    if name.endswith("s"):
        return Reply({"name": name, "properties": {name: {"type": "array", "items": one}}})
    return Reply(one)
