"""What a user can do with images."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from kilonova.base.log import get_logger
from kilonova.cloud.parts import Parts
from kilonova.images import tickets
from kilonova.images.files import ImageFiles
from kilonova.model.context import RequestContext
from kilonova.model.disk_format import DISK_FORMATS
from kilonova.model.errors import BadRequest, Forbidden, ImageUnusable, NotFound
from kilonova.model.guest import ImageRef
from kilonova.model.image import Image
from kilonova.store.queries import images
from kilonova.store.transactions import Tx

log = get_logger(__name__)

VISIBILITIES = ("public", "private", "shared", "community")
CONTAINER_FORMATS = ("bare", "ovf", "ova", "ami", "ari", "aki", "docker", "compressed")
TICKET_LIFE = timedelta(hours=2)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """``[image]`` of kilonova.conf."""

    section: ClassVar[str] = "image"

    image_size_cap: int = 1 << 40
    """Bytes that one image may have at most."""


class Images:
    """Use cases of images."""

    def __init__(self, parts: Parts, files: ImageFiles, ticket_secret: str) -> None:
        self._parts = parts
        self._store = parts.store
        self._files = files
        self._ticket_secret = ticket_secret

    async def start(self) -> None:
        """Clear away what a crash left in the middle of an upload."""
        reset = await self._store.run(images.reset_uploads, at=self._parts.clock.now())
        gone = self._files.sweep(await self._store.read(images.ids))
        if reset or gone:
            log.info("unfinished uploads cleared away", images=reset, files=gone)

    def _scope(self, ctx: RequestContext) -> str | None:
        return None if ctx.is_admin else ctx.project_id

    def _allow(self, ctx: RequestContext, rule: str, image: Image) -> None:
        self._parts.policy.authorize(ctx, rule, {"owner": image.owner, "project_id": image.owner})

    async def get(self, ctx: RequestContext, image_id: str) -> Image:
        """An image that the caller can see.

        Raises:
            NotFound
        """
        return await self._store.read(images.get_usable, image_id, project_id=ctx.project_id, is_admin=ctx.is_admin)

    async def page(self, ctx: RequestContext, **wanted: Any) -> list[Image]:
        """A page of images that the caller can see."""
        return await self._store.read(images.list_page, project_id=self._scope(ctx), **wanted)

    async def create(self, ctx: RequestContext, values: dict[str, Any]) -> Image:
        """A new image, without bytes yet."""
        now = self._parts.clock.now()
        row = {
            "id": self._parts.ids.uuid(),
            "owner": ctx.project_id,
            "visibility": "shared",
            "tags": [],
            "properties": {},
            **values,
            "status": "queued",
            "created_at": now,
            "updated_at": now,
        }
        self._check(ctx, row)
        if row["owner"] != ctx.project_id and not ctx.is_admin:
            raise Forbidden("You are not permitted to create images owned by another project.")
        return await self._store.run(images.insert, row)

    def _check(self, ctx: RequestContext, row: dict[str, Any]) -> None:
        if row["visibility"] not in VISIBILITIES:
            raise BadRequest(f"Invalid input for field/attribute visibility: use one of {', '.join(VISIBILITIES)}.")
        target = {"owner": row["owner"], "project_id": row["owner"]}
        if row["visibility"] == "public":
            self._parts.policy.authorize(ctx, "publicize_image", target)
        elif row["visibility"] == "community":
            self._parts.policy.authorize(ctx, "communitize_image", target)
        if row.get("disk_format") not in (None, *DISK_FORMATS):
            raise BadRequest(
                f"Invalid input for field/attribute disk_format: use one of {', '.join(sorted(DISK_FORMATS))}."
            )
        if row.get("container_format") not in (None, *CONTAINER_FORMATS):
            raise BadRequest(
                f"Invalid input for field/attribute container_format: use one of {', '.join(CONTAINER_FORMATS)}."
            )

    async def update(self, ctx: RequestContext, image_id: str, values: dict[str, Any]) -> Image:
        """Change an image's own fields and properties."""
        image = await self.get(ctx, image_id)
        self._allow(ctx, "modify_image", image)
        for name in ("disk_format", "container_format"):
            if name in values and values[name] != getattr(image, name) and image.status != "queued":
                raise Forbidden(f"Attribute '{name}' of an image that has its bytes cannot be changed.")
        row = {"owner": image.owner, "visibility": image.visibility, **values}
        changed = values.get("visibility", image.visibility) != image.visibility
        self._check(ctx, row if changed else {**row, "visibility": "private"})
        return await self._store.run(images.update, image_id, at=self._parts.clock.now(), **values)

    async def delete(self, ctx: RequestContext, image_id: str) -> None:
        """Delete an image. Servers made from it are not touched."""
        image = await self.get(ctx, image_id)
        self._allow(ctx, "delete_image", image)
        if image.protected:
            raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
        await self._store.run(images.delete, image_id)
        self._files.remove(image_id)

    async def upload(self, ctx: RequestContext, image_id: str, stream: AsyncIterator[bytes]) -> None:
        """Take an image's bytes; it is active after that, or queued again if it came to nothing.

        Raises:
            Conflict: it has its bytes, or somebody else uploads now.
            BadRequest: the bytes are not of the declared format.
        """
        image = await self.get(ctx, image_id)
        self._allow(ctx, "upload_image", image)
        if image.disk_format is None or image.container_format is None:
            raise BadRequest("Properties disk_format, container_format must be set prior to saving data.")
        clock = self._parts.clock
        await self._store.run(images.begin_upload, image_id, at=clock.now())
        try:
            stored = await self._files.write(image_id, stream, image.disk_format)
            await self._store.run(
                images.update,
                image_id,
                at=clock.now(),
                status="active",
                size=stored.size,
                checksum=stored.checksum,
                hash_value=stored.hash_value,
                virtual_size=stored.virtual_size,
            )
        except BaseException:
            await self._store.run(images.update, image_id, at=clock.now(), status="queued")
            raise
        log.info("image has its bytes", image=image_id, size=stored.size, disk_format=image.disk_format)

    async def download(self, ctx: RequestContext | None, image_id: str, *, ticket: str = "") -> Image:
        """An image whose bytes may be read, by the caller's right or by ticket.

        Raises:
            NotFound, Unauthorized, Forbidden
        """
        if ctx is None:
            tickets.check(self._ticket_secret, image_id, ticket, self._parts.clock.now())
            return await self._store.read(images.get, image_id)
        image = await self.get(ctx, image_id)
        self._parts.policy.authorize(ctx, "download_image", {"project_id": image.owner, "owner": image.owner})
        if image.status == "deactivated" and not ctx.is_admin:
            raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        return image

    def bytes_of(self, image: Image, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes, in pieces."""
        return self._files.read(image.id, start=start, end=end)

    async def set_active(self, ctx: RequestContext, image_id: str, *, active: bool) -> None:
        """Take an image out of use, or put it back."""
        image = await self.get(ctx, image_id)
        self._allow(ctx, "reactivate" if active else "deactivate", image)
        if image.status not in ("active", "deactivated"):
            raise Forbidden(f"Not allowed to do that to an image in status '{image.status}'.")
        status = "active" if active else "deactivated"
        await self._store.run(images.update, image_id, at=self._parts.clock.now(), status=status)

    async def reference(self, image_id: str, api_url: str) -> ImageRef:
        """What an agent needs to fetch an image.

        Raises:
            ImageUnusable: it is gone or has no bytes.
        """
        image = await self._store.read(images.find, image_id)
        if image is None or image.status not in ("active", "deactivated") or image.hash_value is None:
            raise ImageUnusable(f"Image {image_id} has no bytes any more.")
        return ImageRef(
            id=image.id,
            disk_format=image.disk_format or "raw",
            size=image.size or 0,
            hash_value=image.hash_value,
            url=f"{api_url}/image/v2/images/{image.id}/file",
            ticket=tickets.sign(self._ticket_secret, image.id, self._parts.clock.now() + TICKET_LIFE),
            min_disk_gib=image.min_disk,
            properties={key: str(value) for key, value in image.properties.items()},
        )

    # ---- members ------------------------------------------------------------------------------------

    async def members(self, ctx: RequestContext, image_id: str) -> list[dict[str, Any]]:
        """With whom an image is shared; a member sees only itself."""
        image = await self.get(ctx, image_id)
        found = await self._store.read(images.members, image_id)
        if ctx.is_admin or image.owner == ctx.project_id:
            return found
        return [member for member in found if member["project_id"] == ctx.project_id]

    async def share(self, ctx: RequestContext, image_id: str, project_id: str) -> dict[str, Any]:
        """Share an image with a project."""
        image = await self.get(ctx, image_id)
        self._allow(ctx, "add_member", image)
        if image.visibility != "shared":
            raise Forbidden("Only shared images have members.")
        return await self._store.run(_share, image_id, project_id, self._parts.clock.now())

    async def answer(self, ctx: RequestContext, image_id: str, project_id: str, status: str) -> dict[str, Any]:
        """A member's answer: accepted, rejected or pending."""
        if status not in ("accepted", "rejected", "pending"):
            raise BadRequest("Invalid input for field/attribute status: use accepted, rejected or pending.")
        if project_id != ctx.project_id and not ctx.is_admin:
            raise NotFound(kind="Member", id=project_id)
        return await self._store.run(_answer, image_id, project_id, status, self._parts.clock.now())

    async def unshare(self, ctx: RequestContext, image_id: str, project_id: str) -> None:
        """Share it no more."""
        image = await self.get(ctx, image_id)
        self._allow(ctx, "delete_member", image)
        await self._store.run(images.remove_member, image_id, project_id)


def _share(tx: Tx, image_id: str, project_id: str, at: Any) -> dict[str, Any]:
    images.add_member(tx, image_id, project_id, at=at)
    return images.member(tx, image_id, project_id) or {}


def _answer(tx: Tx, image_id: str, project_id: str, status: str, at: Any) -> dict[str, Any]:
    if images.member(tx, image_id, project_id) is None:
        raise NotFound(kind="Member", id=project_id)
    images.set_member(tx, image_id, project_id, status, at=at)
    return images.member(tx, image_id, project_id) or {}
