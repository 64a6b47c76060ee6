"""``/images/{id}/members``: the projects that an image is shared with, and what they say to it."""

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.views import Field, View
from kilonova.api.image.api import api
from kilonova.api.image.shared import ImageId, timestamp
from kilonova.model.errors import BadRequest
from kilonova.model.image import ImageMember, MemberStatus

if TYPE_CHECKING:
    from kilonova.cloud.cloud import Cloud

VIEW = View(
    Field("member_id", lambda m: m.member_id),
    Field("image_id", lambda m: m.image_id),
    Field("status", lambda m: m.status.value),
    Field("created_at", lambda m: timestamp(m.created_at)),
    Field("updated_at", lambda m: timestamp(m.updated_at)),
    Field("schema", lambda m: "/v2/schemas/member"),
)


class MemberCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /images/{id}/members``."""

    member: Annotated[str, Meta(min_length=1, max_length=64)]


class MemberUpdate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``PUT /images/{id}/members/{project}``. The SDK repeats the project in it."""

    status: MemberStatus
    member: str | None = None


def _view(member: ImageMember) -> dict[str, Any]:
    return VIEW.render(member)


@api.route("GET", "/images/{image_id}/members")
async def list_members(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """All members of an image for its owner; oneself for a member."""
    found = await cloud.images.members(req.ctx, image_id)
    return Reply({"members": [_view(member) for member in found], "schema": "/v2/schemas/members"})


@api.route("POST", "/images/{image_id}/members")
async def create_member(cloud: "Cloud", req: Request, image_id: ImageId, body: MemberCreate) -> Reply:
    """Share an image with a project."""
    return Reply(_view(await cloud.images.add_member(req.ctx, image_id, body.member)))


@api.route("GET", "/images/{image_id}/members/{member_id}")
async def show_member(cloud: "Cloud", req: Request, image_id: ImageId, member_id: str) -> Reply:
    """One member."""
    return Reply(_view(await cloud.images.member(req.ctx, image_id, member_id)))


@api.route("PUT", "/images/{image_id}/members/{member_id}")
async def update_member(cloud: "Cloud", req: Request, image_id: ImageId, member_id: str, body: MemberUpdate) -> Reply:
    """Accept or reject an image that is shared with one's project."""
    if body.member not in (None, member_id):
        raise BadRequest("Invalid input for field/attribute member: it is not the project of the path.")
    return Reply(_view(await cloud.images.answer(req.ctx, image_id, member_id, body.status)))


@api.route("DELETE", "/images/{image_id}/members/{member_id}", status=204)
async def delete_member(cloud: "Cloud", req: Request, image_id: ImageId, member_id: str) -> Reply:
    """Share an image with a project no longer."""
    await cloud.images.remove_member(req.ctx, image_id, member_id)
    return Reply()
