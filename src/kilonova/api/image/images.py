"""``/images`` of the Image API v2: records of images, their tags, and the switch that closes their bytes."""

from typing import TYPE_CHECKING, Any

from kilonova.api.http.paging import glance_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.views import Field, View
from kilonova.api.image.api import api
from kilonova.api.image.bodies import PATCH_V20, PATCH_V21, changes, image_request
from kilonova.api.image.listing import ImageListQuery, filter_of, order_of
from kilonova.api.image.shared import ImageId, timestamp
from kilonova.model.image import Image, ImagePage

if TYPE_CHECKING:
    from kilonova.cloud.cloud import Cloud

VIEW = View(
    Field("id", lambda i: i.id),
    Field("name", lambda i: i.name),
    Field("status", lambda i: i.status.value),
    Field("visibility", lambda i: i.visibility.value),
    Field("owner", lambda i: i.owner),
    Field("disk_format", lambda i: i.disk_format),
    Field("container_format", lambda i: i.container_format),
    Field("min_disk", lambda i: i.min_disk),
    Field("min_ram", lambda i: i.min_ram),
    Field("protected", lambda i: i.protected),
    Field("os_hidden", lambda i: i.hidden),
    Field("size", lambda i: i.size),
    Field("virtual_size", lambda i: i.virtual_size),
    Field("checksum", lambda i: i.checksum),
    Field("os_hash_algo", lambda i: i.hash_algo),
    Field("os_hash_value", lambda i: i.hash_value),
    Field("tags", lambda i: list(i.tags)),
    Field("created_at", lambda i: timestamp(i.created_at)),
    Field("updated_at", lambda i: timestamp(i.updated_at)),
    Field("self", lambda i: f"/v2/images/{i.id}"),
    Field("file", lambda i: f"/v2/images/{i.id}/file"),
    Field("schema", lambda i: "/v2/schemas/image"),
)


def view(image: Image) -> dict[str, Any]:
    """An image as the API shows it: its own properties stand beside the rest."""
    return {**image.properties, **VIEW.render(image)}


@api.route("POST", "/images", status=201, once=True)
async def create_image(cloud: "Cloud", req: Request, body: dict[str, Any]) -> Reply:
    """Record a new image; its bytes come later."""
    request = image_request(body)

    def made(image: Image) -> Reply:
        return Reply(view(image), {"Location": req.url("images", image.id)})

    req.answers_with(made)
    return made(await cloud.images.create(req.ctx, request))


@api.route("GET", "/images")
async def list_images(cloud: "Cloud", req: Request, query: ImageListQuery) -> Reply:
    """A page of images."""
    options = cloud.images.options
    limit = page_size(query.limit, most=options.api_limit_max, default=options.limit_param_default)
    page = ImagePage(limit=limit, marker=query.marker, sort=order_of(query))
    found = await cloud.images.page(req.ctx, filter_of(query, req.params), page)
    body: dict[str, Any] = {"images": [view(image) for image in found], "schema": "/v2/schemas/images"}
    return Reply(body | glance_links(req, limit, [image.id for image in found]))


@api.route("GET", "/images/{image_id}")
async def show_image(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """One image."""
    return Reply(view(await cloud.images.get(req.ctx, image_id)))


@api.route("PATCH", "/images/{image_id}", accepts=(PATCH_V21, PATCH_V20))
async def update_image(cloud: "Cloud", req: Request, image_id: ImageId, body: Any) -> Reply:
    """Change an image by a list of operations: all of them, or none."""
    wanted = changes(body, req.headers.get("content-type", PATCH_V21))
    return Reply(view(await cloud.images.update(req.ctx, image_id, wanted)))


@api.route("DELETE", "/images/{image_id}", status=204)
async def delete_image(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """Delete an image and its bytes."""
    await cloud.images.delete(req.ctx, image_id)
    return Reply()


@api.route("PUT", "/images/{image_id}/tags/{tag}", status=204)
async def add_tag(cloud: "Cloud", req: Request, image_id: ImageId, tag: str) -> Reply:
    """Tag an image."""
    await cloud.images.add_tag(req.ctx, image_id, tag)
    return Reply()


@api.route("DELETE", "/images/{image_id}/tags/{tag}", status=204)
async def remove_tag(cloud: "Cloud", req: Request, image_id: ImageId, tag: str) -> Reply:
    """Take a tag off."""
    await cloud.images.remove_tag(req.ctx, image_id, tag)
    return Reply()


@api.route("POST", "/images/{image_id}/actions/deactivate", status=204)
async def deactivate(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """Let only administrators read the bytes."""
    await cloud.images.deactivate(req.ctx, image_id)
    return Reply()


@api.route("POST", "/images/{image_id}/actions/reactivate", status=204)
async def reactivate(cloud: "Cloud", req: Request, image_id: ImageId) -> Reply:
    """Let everybody who sees the image read its bytes again."""
    await cloud.images.reactivate(req.ctx, image_id)
    return Reply()
