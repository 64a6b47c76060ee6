"""What a user can do with images: who sees which, what may be changed when, and whose bytes are whose.

Whether an image is there for a caller is asked first (somebody else's private image is not found), then whether the
rules allow the act (403), then whether the image's state does.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from kilonova.base.log import get_logger
from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.images.backends.base import ByteStore
from kilonova.images.options import ImageOptions
from kilonova.images.tickets import Tickets
from kilonova.images.uploads import SIZE_QUOTA, Uploads, size_in_quota
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, CloudError, Conflict, Forbidden, NotFound, QuotaExceeded, Unauthorized
from kilonova.model.image import (
    RULES,
    Image,
    ImageFilter,
    ImageMember,
    ImagePage,
    ImageProtected,
    ImageStatus,
    ImageTooLarge,
    MemberStatus,
    RangeNotSatisfiable,
    ReadOnlyAttribute,
    Visibility,
    is_property_name,
)
from kilonova.store.queries import images, quotas
from kilonova.store.transactions import Tx

log = get_logger(__name__)

COUNT_QUOTA: Final = "image_count_total"
MAX_TAG: Final = 255
MAX_PROPERTY: Final = 65535
MAX_PROJECT_ID: Final = 64

SETTABLE: Final[Mapping[str, str]] = {
    "name": "name",
    "visibility": "visibility",
    "owner": "owner",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "min_disk": "min_disk",
    "min_ram": "min_ram",
    "protected": "protected",
    "os_hidden": "hidden",
    "tags": "tags",
}
"""Attributes that a caller sets, by their names in the API, to those of `Image`. Others are properties of its own."""

_READ_ONLY: Final = frozenset(
    {
        *("id", "status", "created_at", "updated_at", "self", "file", "schema", "direct_url", "locations", "stores"),
        *("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"),
    }
)
_RESERVED: Final = frozenset({"location", "deleted", "deleted_at"})
_RESERVED_PREFIX: Final = "os_glance"
_WHILE_QUEUED: Final = frozenset({"disk_format", "container_format"})


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What was asked of a new image. `owner` None: the caller's project."""

    id: str | None = None
    owner: str | None = None
    name: str | None = None
    visibility: Visibility = Visibility.SHARED
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    protected: bool = False
    hidden: bool = False
    tags: Sequence[str] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One operation of a JSON patch: `name` is an attribute or a property, as the API calls it."""

    op: Literal["add", "replace", "remove"]
    name: str
    value: Any = None


@dataclass(frozen=True)
class ByteRange:
    """Which bytes: from `first` to `last` included; without `first`, the last `last` ones."""

    first: int | None
    last: int | None


@dataclass(frozen=True)
class Download:
    """Bytes on their way out: `length` of them from `start`."""

    image: Image
    start: int
    length: int
    stream: AsyncIterator[bytes]


class Images:
    """Use cases of images."""

    def __init__(self, parts: Parts, bytes_store: ByteStore, tickets: Tickets, options: ImageOptions) -> None:
        self._parts = parts
        self._store = parts.store
        self._bytes = bytes_store
        self._tickets = tickets
        self.options = options
        self._uploads = Uploads(parts.store, bytes_store, parts.clock, parts.ids, options)

    @property
    def store_name(self) -> str:
        """What the place of all bytes is called."""
        return self._bytes.name

    # ---- reading ------------------------------------------------------------------------------------

    async def get(self, ctx: RequestContext, image_id: str) -> Image:
        """One image.

        Raises:
            NotFound: also for one that the caller cannot see.
        """
        return await self._allowed(ctx, image_id, "get_image")

    async def page(self, ctx: RequestContext, wanted: ImageFilter, page: ImagePage) -> list[Image]:
        """A page of the images that the caller sees in its lists; an administrator sees all."""
        self._parts.policy.authorize(ctx, "get_images", _own(ctx))
        viewer = None if ctx.is_admin else ctx.project_id
        return await self._store.read(images.list_page, msgspec.structs.replace(wanted, viewer=viewer), page)

    async def usage(self, ctx: RequestContext) -> dict[str, tuple[int, int]]:
        """What the caller's project uses of each quota of images, and its limit (-1: none)."""
        used, limits = await self._store.read(_usage, ctx.project_id)
        return {name: (used.get(name, 0), limits.get(name, quotas.UNLIMITED)) for name in (COUNT_QUOTA, SIZE_QUOTA)}

    # ---- changing -----------------------------------------------------------------------------------

    async def create(self, ctx: RequestContext, request: ImageRequest) -> Image:
        """Record a new image, without bytes.

        Raises:
            BadRequest, PolicyDenied, AlreadyExists (its id), ImageTooLarge (a quota)
        """
        owner = request.owner or ctx.project_id or None
        target = {"project_id": owner, "owner": owner} if owner else {}
        self._parts.policy.authorize(ctx, "add_image", target)
        self._may_show(ctx, request.visibility, target)
        at = self._parts.clock.now()
        image = Image(
            id=request.id or self._parts.ids.uuid(),
            name=request.name,
            visibility=request.visibility,
            owner=owner,
            disk_format=request.disk_format,
            container_format=request.container_format,
            min_disk=request.min_disk,
            min_ram=request.min_ram,
            protected=request.protected,
            hidden=request.hidden,
            properties=dict(request.properties),
            tags=tuple(sorted(set(request.tags))),
            created_at=at,
            updated_at=at,
        )
        self._check(image)
        try:
            await self._store.run(once(ctx, self._parts.clock, _create, gives=lambda _: image), image)
        except QuotaExceeded as error:
            raise ImageTooLarge(error.limit, error.message) from None
        log.info("image created", image=image.id, disk_format=image.disk_format, visibility=image.visibility)
        return image

    async def update(self, ctx: RequestContext, image_id: str, changes: Sequence[Change]) -> Image:
        """Do all of `changes`, or none.

        Raises:
            NotFound, PolicyDenied, ReadOnlyAttribute, BadRequest, Conflict (no such property)
        """
        image = await self._allowed(ctx, image_id, "modify_image")
        target = self._target(ctx, image)
        for change in changes:
            check_settable(change.name)
            if change.name == "visibility" and change.value != image.visibility:
                self._may_show(ctx, change.value, target)
            if change.name == "owner" and not ctx.is_admin:
                raise Forbidden("Only an administrator may give an image to another owner.")
        return await self._store.run(self._apply, image_id, changes, self._parts.clock.now())

    def _apply(self, tx: Tx, image_id: str, changes: Sequence[Change], at: datetime) -> Image:
        before = images.lock(tx, image_id)
        after = before
        for change in changes:
            after = changed(after, change)
        after = msgspec.structs.replace(after, updated_at=at)
        self._check(after)
        images.update(tx, before, after)
        if after.owner != before.owner:
            _give_back(tx, before)
            _take(tx, after)
        return after

    async def delete(self, ctx: RequestContext, image_id: str) -> None:
        """Delete an image. Servers that were started from it keep what they have of it.

        Raises:
            NotFound, PolicyDenied, ImageProtected
        """
        await self._allowed(ctx, image_id, "delete_image")
        gone = await self._store.run(_delete, image_id, self._parts.clock.now())
        log.info("image deleted", image=image_id)
        if gone.location is not None:
            try:
                await self._bytes.delete(gone.location)
            except CloudError as error:
                log.warning("bytes of a deleted image left for the sweep", image=image_id, cause=error.message)

    async def add_tag(self, ctx: RequestContext, image_id: str, tag: str) -> None:
        """Tag an image; it may have the tag already."""
        await self._allowed(ctx, image_id, "modify_image")
        await self._store.run(self._retag, image_id, self._parts.clock.now(), add=tag)

    async def remove_tag(self, ctx: RequestContext, image_id: str, tag: str) -> None:
        """Take a tag off.

        Raises:
            NotFound: it has no such tag.
        """
        await self._allowed(ctx, image_id, "modify_image")
        await self._store.run(self._retag, image_id, self._parts.clock.now(), remove=tag)

    def _retag(self, tx: Tx, image_id: str, at: datetime, *, add: str | None = None, remove: str | None = None) -> None:
        before = images.lock(tx, image_id)
        tags = set(before.tags)
        if add is not None:
            tags.add(add)
        if remove is not None:
            if remove not in tags:
                raise NotFound(kind="Tag", id=remove)
            tags.remove(remove)
        after = msgspec.structs.replace(before, tags=tuple(sorted(tags)), updated_at=at)
        self._check(after)
        images.update(tx, before, after)

    async def deactivate(self, ctx: RequestContext, image_id: str) -> None:
        """Let only administrators read the bytes from now on."""
        await self._move(ctx, image_id, "deactivate")

    async def reactivate(self, ctx: RequestContext, image_id: str) -> None:
        """Take `deactivate` back."""
        await self._move(ctx, image_id, "reactivate")

    async def _move(self, ctx: RequestContext, image_id: str, action: str) -> None:
        await self._allowed(ctx, image_id, action)
        await self._store.run(_move, image_id, action, self._parts.clock.now())

    # ---- bytes --------------------------------------------------------------------------------------

    async def upload(
        self, ctx: RequestContext, image_id: str, stream: AsyncIterator[bytes], *, announced: int | None = None
    ) -> Image:
        """Give an image its bytes. See `Uploads.receive` for the errors."""
        image = await self._allowed(ctx, image_id, "upload_image")
        return await self._uploads.receive(image, stream, announced=announced)

    async def download(self, ctx: RequestContext, image_id: str, part: ByteRange | None = None) -> Download | None:
        """An image's bytes, or a part of them; None if it has none yet.

        Raises:
            NotFound, PolicyDenied, RangeNotSatisfiable
            Forbidden: it is deactivated.
        """
        image = await self._allowed(ctx, image_id, "download_image")
        if image.status is ImageStatus.DEACTIVATED and not ctx.is_admin:
            raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        return await self._open(image, part)

    async def download_by_ticket(self, image_id: str, ticket: str, part: ByteRange | None = None) -> Download | None:
        """As `download`, for whoever holds a ticket for this image.

        Raises:
            Unauthorized: the ticket is not for this image, or has expired.
        """
        if not self._tickets.verify(image_id, ticket, now=self._parts.clock.now()):
            raise Unauthorized("The ticket is not valid for this image, or no longer.")
        image = await self._store.read(images.get, image_id)
        if image.status is ImageStatus.DEACTIVATED:
            raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        return await self._open(image, part)

    async def _open(self, image: Image, part: ByteRange | None) -> Download | None:
        if image.location is None or image.size is None:
            return None
        start, length = _bounds(part, image.size)
        try:
            stream = await self._bytes.read(image.location, start=start, length=length)
        except NotFound:
            log.error("the bytes of an image are lost", image=image.id, location=image.location)
            raise
        return Download(image, start, length, stream)

    async def sweep(self, *, alone: bool) -> int:
        """Clean up after uploads that died and images that were deleted; see `Uploads.sweep`."""
        return await self._uploads.sweep(alone=alone)

    # ---- sharing ------------------------------------------------------------------------------------

    async def members(self, ctx: RequestContext, image_id: str) -> list[ImageMember]:
        """Who an image is shared with; a member sees itself only."""
        image = await self._allowed(ctx, image_id, "get_members")
        sees_all = ctx.is_admin or image.owner == ctx.project_id
        return await self._store.read(images.members, image_id, only=None if sees_all else ctx.project_id)

    async def member(self, ctx: RequestContext, image_id: str, member_id: str) -> ImageMember:
        """One of them.

        Raises:
            NotFound: also for a member that the caller cannot see.
        """
        image = await self._seen(ctx, image_id)
        if not (ctx.is_admin or ctx.project_id in (image.owner, member_id)):
            raise NotFound(kind="Image member", id=member_id)
        found = await self._store.read(images.member, image_id, member_id)
        self._parts.policy.authorize(ctx, "get_member", self._target(ctx, image) | {"member_id": member_id})
        return found

    async def add_member(self, ctx: RequestContext, image_id: str, member_id: str) -> ImageMember:
        """Share an image with a project, which may then accept or reject it.

        Raises:
            Forbidden: the image's visibility is not ``shared``.
            AlreadyExists, ImageTooLarge (a quota)
        """
        image = await self._allowed(ctx, image_id, "add_member")
        if image.visibility is not Visibility.SHARED:
            raise Forbidden("Only shared images have members.")
        if not 0 < len(member_id) <= MAX_PROJECT_ID:
            raise BadRequest(
                f"Invalid input for field/attribute member: a project id has 1 to {MAX_PROJECT_ID} characters."
            )
        at = self._parts.clock.now()
        member = ImageMember(image_id=image_id, member_id=member_id, created_at=at, updated_at=at)
        await self._store.run(_add_member, member, limit=self.options.image_member_quota)
        return member

    async def answer(self, ctx: RequestContext, image_id: str, member_id: str, status: MemberStatus) -> ImageMember:
        """Accept or reject, for one's own project, an image that is shared with it.

        Raises:
            NotFound, PolicyDenied
        """
        image = await self._seen(ctx, image_id)
        await self._store.read(images.member, image_id, member_id)
        self._parts.policy.authorize(ctx, "modify_member", self._target(ctx, image) | {"member_id": member_id})
        return await self._store.run(images.answer_member, image_id, member_id, status, self._parts.clock.now())

    async def remove_member(self, ctx: RequestContext, image_id: str, member_id: str) -> None:
        """Share an image with a project no longer.

        Raises:
            NotFound, PolicyDenied
        """
        image = await self._allowed(ctx, image_id, "delete_member")
        if image.visibility is not Visibility.SHARED:
            raise Forbidden("Only shared images have members.")
        await self._store.run(images.remove_member, image_id, member_id)

    # ---- rules --------------------------------------------------------------------------------------

    async def _seen(self, ctx: RequestContext, image_id: str) -> Image:
        return await self._store.read(images.get_usable, image_id, project_id=ctx.project_id, is_admin=ctx.is_admin)

    async def _allowed(self, ctx: RequestContext, image_id: str, rule: str) -> Image:
        image = await self._seen(ctx, image_id)
        self._parts.policy.authorize(ctx, rule, self._target(ctx, image))
        return image

    @staticmethod
    def _target(ctx: RequestContext, image: Image) -> dict[str, Any]:
        # A key with None in it would equal the project of somebody who has none.
        target: dict[str, Any] = {"visibility": image.visibility.value}
        if image.owner is not None:
            target |= {"project_id": image.owner, "owner": image.owner}
        if image.visibility is Visibility.SHARED and ctx.project_id and image.owner != ctx.project_id:
            target["member_id"] = ctx.project_id  # or else it would not be seen
        return target

    def _may_show(self, ctx: RequestContext, visibility: Visibility, target: dict[str, Any]) -> None:
        rule = {Visibility.PUBLIC: "publicize_image", Visibility.COMMUNITY: "communitize_image"}.get(visibility)
        if rule is not None:
            self._parts.policy.authorize(ctx, rule, target)

    def _check(self, image: Image) -> None:
        """What holds for every image, new or changed."""
        options = self.options
        _one_of("disk_format", image.disk_format, options.disk_formats)
        _one_of("container_format", image.container_format, options.container_formats)
        limits = (
            ("properties", len(image.properties), options.image_property_quota),
            ("tags", len(image.tags), options.image_tag_quota),
        )
        for what, count, limit in limits:
            if 0 <= limit < count:
                raise ImageTooLarge(limit, f"An image can have {limit} {what}; {count} are too many.")
        for tag in image.tags:
            if not 0 < len(tag) <= MAX_TAG:
                raise BadRequest(f"Invalid input for field/attribute tags: a tag has 1 to {MAX_TAG} characters.")
        for name, value in image.properties.items():
            check_settable(name)
            if not is_property_name(name):
                raise BadRequest(f"A property cannot be called {name[:80]!r}: 1 to 255 printable characters.")
            if len(value) > MAX_PROPERTY:
                raise BadRequest(f"Invalid input for field/attribute {name}: longer than {MAX_PROPERTY} characters.")


def check_settable(name: str) -> None:
    """
    Raises:
        ReadOnlyAttribute: nobody sets it through the API.
    """
    if name in _READ_ONLY:
        raise ReadOnlyAttribute(name=name)
    if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
        raise ReadOnlyAttribute(name=name, reason="is reserved")


def changed(image: Image, change: Change) -> Image:
    """`image` after one change.

    Raises:
        Forbidden: the attribute cannot be removed, or no longer be changed.
        Conflict: there is no such property.
    """
    attribute = SETTABLE.get(change.name)
    if attribute is None:
        return msgspec.structs.replace(image, properties=_changed_properties(image.properties, change))
    if change.op == "remove":
        raise Forbidden(f"Property {change.name} may not be removed.")
    if change.name in _WHILE_QUEUED and image.status is not ImageStatus.QUEUED:
        raise Forbidden(f"Attribute {change.name} can be only replaced for a queued image.")
    value = tuple(sorted(set(change.value))) if attribute == "tags" else change.value
    return msgspec.structs.replace(image, **{attribute: value})


def _changed_properties(properties: Mapping[str, str], change: Change) -> dict[str, str]:
    if change.op != "add" and change.name not in properties:
        raise Conflict(f"Property {change.name} does not exist.")
    rest = {name: value for name, value in properties.items() if name != change.name}
    return rest if change.op == "remove" else rest | {change.name: change.value}


def _one_of(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise BadRequest(
            f"Invalid input for field/attribute {name}: '{value[:80]}' is not one of {', '.join(allowed)}."
        )


def _own(ctx: RequestContext) -> dict[str, Any]:
    return {"project_id": ctx.project_id} if ctx.project_id else {}


def _bounds(part: ByteRange | None, size: int) -> tuple[int, int]:
    if part is None:
        return 0, size
    if part.first is None:
        length = min(part.last or 0, size)
        first = size - length
    else:
        first = part.first
        length = size - first if part.last is None else min(part.last + 1, size) - first
    if length <= 0:
        raise RangeNotSatisfiable(size)
    return first, length


# ---- transactions -----------------------------------------------------------------------------------


def _create(tx: Tx, image: Image) -> None:
    images.insert(tx, image)
    _take(tx, image)


def _delete(tx: Tx, image_id: str, at: datetime) -> Image:
    image = images.lock(tx, image_id)
    if image.protected:
        raise ImageProtected(image_id=image_id)
    images.delete(tx, image_id, at)
    _give_back(tx, image)
    return image


def _take(tx: Tx, image: Image) -> None:
    if image.owner:
        quotas.take(tx, image.owner, {COUNT_QUOTA: 1, SIZE_QUOTA: size_in_quota(image)})


def _give_back(tx: Tx, image: Image) -> None:
    if image.owner:
        quotas.give_back(tx, image.owner, {COUNT_QUOTA: 1, SIZE_QUOTA: size_in_quota(image)})


def _move(tx: Tx, image_id: str, action: str, at: datetime) -> None:
    before = images.lock(tx, image_id)
    rule = RULES[action]
    if before.status not in rule.allowed_from:
        raise Forbidden(f"Not allowed to {action} image in status '{before.status}'.")
    if before.status is not rule.to:
        images.update(tx, before, msgspec.structs.replace(before, status=rule.to, updated_at=at))


def _add_member(tx: Tx, member: ImageMember, *, limit: int) -> None:
    images.lock(tx, member.image_id)  # so that two at once count each other
    images.add_member(tx, member)
    count = len(images.members(tx, member.image_id))
    if 0 <= limit < count:
        raise ImageTooLarge(limit, f"An image can be shared with {limit} projects; {count} are too many.")


def _usage(tx: Tx, project_id: str) -> tuple[dict[str, int], dict[str, int]]:
    return quotas.used(tx, project_id), quotas.limits(tx, project_id)
