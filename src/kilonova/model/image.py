"""Images: what is recorded of a disk that servers can start from, who may see it, and what can go wrong with one.

An image is made without bytes (queued), gets them once (saving, then active), and keeps exactly these until
it is deleted. What the bytes are is what their owner declared, checked and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from kilonova.model.errors import CloudError, Conflict, Forbidden, Gone, TooLarge


class ImageStatus(StrEnum):
    """Where an image stands. The words are the Image API's."""

    QUEUED = "queued"
    """Recorded, without bytes."""
    SAVING = "saving"
    """Its bytes are coming in."""
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    """Complete, but only administrators can read its bytes."""
    KILLED = "killed"
    """Its bytes were lost. Never set by this cloud, which goes back to ``queued`` instead; clients know the word."""
    DELETED = "deleted"


class Visibility(StrEnum):
    """Who besides its owner's project sees an image."""

    PRIVATE = "private"
    SHARED = "shared"
    """The projects that are its members; in their lists once they accept it."""
    COMMUNITY = "community"
    """Everybody who knows its id or asks for community images."""
    PUBLIC = "public"
    """Everybody."""


class MemberStatus(StrEnum):
    """What a project says to an image that is shared with it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Rule:
    """One action on an image: the states it starts from, and the state it leads to."""

    allowed_from: frozenset[ImageStatus]
    to: ImageStatus


RULES: Final[Mapping[str, Rule]] = {
    "upload": Rule(frozenset({ImageStatus.QUEUED}), ImageStatus.SAVING),
    "activate": Rule(frozenset({ImageStatus.SAVING}), ImageStatus.ACTIVE),
    "give_up": Rule(frozenset({ImageStatus.SAVING}), ImageStatus.QUEUED),
    "deactivate": Rule(frozenset({ImageStatus.ACTIVE, ImageStatus.DEACTIVATED}), ImageStatus.DEACTIVATED),
    "reactivate": Rule(frozenset({ImageStatus.ACTIVE, ImageStatus.DEACTIVATED}), ImageStatus.ACTIVE),
    "delete": Rule(frozenset(ImageStatus) - {ImageStatus.DELETED}, ImageStatus.DELETED),
}

BARE: Final = "bare"
"""The container format of an image whose bytes are the disk itself."""

TICKET_HEADER: Final = "X-Kilonova-Ticket"
"""The HTTP header in which a host without a token shows that it may read one image."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One image. Sizes in bytes, `min_disk` in GiB, `min_ram` in MiB."""

    id: str
    name: str | None = None
    status: ImageStatus = ImageStatus.QUEUED
    visibility: Visibility = Visibility.SHARED
    owner: str | None
    """The project it belongs to."""
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    protected: bool = False
    hidden: bool = False
    size: int | None = None
    virtual_size: int | None = None
    """Size of the disk that a guest sees; known where the format tells."""
    checksum: str | None = None
    """MD5 of the bytes, in hexadecimal: for clients that still look at it."""
    hash_algo: str | None = None
    hash_value: str | None = None
    location: str | None = None
    """What the store of bytes calls them. Another upload has another one."""
    created_at: datetime
    updated_at: datetime
    properties: dict[str, str] = {}
    tags: tuple[str, ...] = ()

    @property
    def has_bytes(self) -> bool:
        """Whether the image is complete, readable by everybody or not."""
        return self.status in (ImageStatus.ACTIVE, ImageStatus.DEACTIVATED)


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload brought."""

    size: int
    virtual_size: int | None
    checksum: str
    hash_algo: str
    hash_value: str


class ImageMember(msgspec.Struct, frozen=True, kw_only=True):
    """A project that an image is shared with."""

    image_id: str
    member_id: str
    status: MemberStatus = MemberStatus.PENDING
    created_at: datetime
    updated_at: datetime


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``created_at=gt:2026-01-01T00:00:00Z``: `operator` is one of gt gte lt lte eq neq."""

    field: str
    operator: str
    at: datetime


class ImageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which images a list has. None of a field: it does not matter."""

    viewer: str | None = None
    """Only what this project sees in its lists; None: all there are."""
    equals: dict[str, tuple[str, ...]] = {}
    """Column to the values it may have."""
    visibility: Visibility | None = None
    with_community: bool = False
    """Community images of others too, though nobody asked for them by name."""
    member_status: MemberStatus | None = MemberStatus.ACCEPTED
    """Of images shared with the viewer, those that it has given this answer to; None: any."""
    protected: bool | None = None
    hidden: bool | None = False
    tags: tuple[str, ...] = ()
    """All of these."""
    properties: dict[str, str] = {}
    size_min: int | None = None
    size_max: int | None = None
    min_disk: int | None = None
    min_ram: int | None = None
    times: tuple[Comparison, ...] = ()


class ImagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list, and in which order."""

    limit: int = 25
    marker: str | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    """Keys, each with whether it descends. The newest first if there are none."""


_SIMPLE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")


def is_property_name(name: str) -> bool:
    """Whether an image's own property may be called so."""
    return _SIMPLE_NAME.match(name) is not None and name.strip() == name


# ---- what can go wrong ------------------------------------------------------------------------------


@dataclass(eq=False)
class ImageStateConflict(Conflict):
    """The image is in a state that does not allow it."""

    image_id: str = ""
    action: str = ""
    status_now: str = ""
    detail: str = ""
    code = "image.state"
    remedy = "Wait until the image is in the right state; a new attempt at its bytes may need a new image."

    @property
    def message(self) -> str:
        return f"Cannot {self.action} image {self.image_id} while it is {self.status_now}."


@dataclass(eq=False)
class ImageProtected(Forbidden):
    image_id: str = ""
    detail: str = ""
    code = "image.protected"
    remedy = "Take the protection off first (protected: false)."

    @property
    def message(self) -> str:
        return f"Image {self.image_id} is protected and cannot be deleted."


@dataclass(eq=False)
class ReadOnlyAttribute(Forbidden):
    name: str = ""
    reason: str = "is read-only"
    detail: str = ""
    code = "image.read_only"

    @property
    def message(self) -> str:
        return f"Attribute '{self.name}' {self.reason}."


@dataclass(eq=False)
class ImageGone(Gone):
    """The image was deleted while its bytes were coming in."""

    detail: str = ""
    image_id: str = ""
    code = "image.gone"

    @property
    def message(self) -> str:
        return f"Image {self.image_id} was deleted while its bytes were coming in."


@dataclass(eq=False)
class ImageTooLarge(TooLarge):
    code = "image.too_large"

    @property
    def message(self) -> str:
        return self.detail or f"Image exceeds the storage quota or size limit: {self.limit} bytes at most."


@dataclass(eq=False)
class StorageFull(TooLarge):
    """The disk that images are kept on has no room."""

    limit: int = 0
    code = "image.storage_full"
    remedy = "An administrator must make room where images are kept."

    @property
    def message(self) -> str:
        return self.detail or "Image storage media is full."


@dataclass(eq=False)
class RangeNotSatisfiable(CloudError):
    size: int
    status = 416
    code = "image.range"

    @property
    def message(self) -> str:
        return f"The range asked for is not within the {self.size} bytes of the image."
