"""Images, their properties and tags, and who they are shared with.

An upload owns its image by an id of its own: every write of an upload names it, so that one which was given up
(or whose image was deleted) writes nothing more. A deleted image is not found by anything here but `prune`.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, BadRequest, NotFound
from kilonova.model.image import (
    RULES,
    Image,
    ImageFilter,
    ImageMember,
    ImagePage,
    ImageStatus,
    MemberStatus,
    Received,
    Visibility,
)
from kilonova.store.tables.images import image_members, image_properties, image_tags, images
from kilonova.store.transactions import Tx, insert_row, select_rows, update_rows

_c = images.c
_p, _t, _m = image_properties.c, image_tags.c, image_members.c

_NOT_SHOWN = ("upload_id", "upload_seen_at")
_COLUMNS: Final = tuple(column for column in _c if column.name not in _NOT_SHOWN)
_CHILDREN: Final = ("properties", "tags")

SORT_KEYS: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    # NULL sorts here and there in different databases, and compares with nothing: it stands for the least value.
    "name": sa.func.coalesce(_c.name, ""),
    "status": _c.status,
    "container_format": sa.func.coalesce(_c.container_format, ""),
    "disk_format": sa.func.coalesce(_c.disk_format, ""),
    "size": sa.func.coalesce(_c.size, -1),
    "id": _c.id,
    "created_at": _c.created_at,
    "updated_at": _c.updated_at,
    "owner": sa.func.coalesce(_c.owner, ""),
    "visibility": _c.visibility,
    "min_disk": _c.min_disk,
    "min_ram": _c.min_ram,
}
"""What lists can be sorted by."""

EQUALS: Final = frozenset(
    ("id", "name", "status", "owner", "disk_format", "container_format", "checksum", "hash_algo", "hash_value")
)
"""Columns of `ImageFilter.equals`."""

_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "eq": operator.eq,
    "neq": operator.ne,
}
_THERE = _c.status != ImageStatus.DELETED
_BY_ID = sa.select(*_COLUMNS).where(_c.id == sa.bindparam("image"), _THERE)


# ---- reading ----------------------------------------------------------------------------------------


def get(tx: Tx, image_id: str) -> Image:
    """One image, whoever may see it.

    Raises:
        NotFound
    """
    return _one(tx, _BY_ID, image_id, {"image": image_id})


def lock(tx: Tx, image_id: str) -> Image:
    """One image, which no other transaction changes until this one has ended.

    Raises:
        NotFound
    """
    return _one(tx, sa.select(*_COLUMNS).where(_c.id == image_id, _THERE).with_for_update(), image_id)


def get_usable(tx: Tx, image_id: str, *, project_id: str, is_admin: bool = False) -> Image:
    """One image that `project_id` can see and so start servers from; an administrator all of them.

    Raises:
        NotFound: also if it is somebody else's.
    """
    return _one(tx, _usable(is_admin), image_id, {"image": image_id, "project": project_id})


@lru_cache(maxsize=2)
def _usable(is_admin: bool) -> sa.Select[Any]:
    image = sa.bindparam("image", type_=sa.String)
    project = sa.bindparam("project", type_=sa.String)
    query = sa.select(*_COLUMNS).where(_c.id == image, _THERE)
    if is_admin:
        return query
    shared = sa.select(_m.image_id).where(_m.image_id == image, _m.member_id == project)
    return query.where(
        sa.or_(
            _c.visibility.in_((Visibility.PUBLIC, Visibility.COMMUNITY)),
            _c.owner == project,
            sa.and_(_c.visibility == Visibility.SHARED, sa.exists(shared)),
        )
    )


def list_page(tx: Tx, wanted: ImageFilter, page: ImagePage) -> list[Image]:
    """A page of images: one statement, and one each for properties and tags.

    Raises:
        BadRequest: unknown marker, sort key or filter.
    """
    query = sa.select(*_COLUMNS).where(_THERE, *_conditions(wanted))
    return _complete(tx, tx.execute(_paged(tx, query, page)).all())


def _one(tx: Tx, query: sa.Select[Any], image_id: str, parameters: Mapping[str, Any] | None = None) -> Image:
    row = tx.execute(query, parameters).first()
    if row is None:
        raise NotFound(kind="Image", id=image_id)
    return _complete(tx, [row])[0]


_SOME = sa.bindparam("images", expanding=True, type_=sa.String)
_PROPERTIES = sa.select(image_properties).where(_p.image_id.in_(_SOME)).order_by(_p.name)
_TAGS = sa.select(image_tags).where(_t.image_id.in_(_SOME)).order_by(_t.tag)


def _complete(tx: Tx, rows: Sequence[sa.Row[Any]]) -> list[Image]:
    ids = [row.id for row in rows]
    properties: dict[str, dict[str, str]] = {image_id: {} for image_id in ids}
    tags: dict[str, list[str]] = {image_id: [] for image_id in ids}
    if ids:
        for row in tx.execute(_PROPERTIES, {"images": ids}):
            properties[row.image_id][row.name] = row.value
        for row in tx.execute(_TAGS, {"images": ids}):
            tags[row.image_id].append(row.tag)
    return [_image(row, properties[row.id], tags[row.id]) for row in rows]


def _image(row: sa.Row[Any], properties: dict[str, str], tags: Sequence[str]) -> Image:
    values = {**row._mapping, "status": ImageStatus(row.status), "visibility": Visibility(row.visibility)}
    return Image(**values, properties=properties, tags=tuple(tags))


def _conditions(wanted: ImageFilter) -> Iterable[sa.ColumnElement[bool]]:
    if wanted.viewer is not None:
        yield _listed_for(wanted.viewer, wanted)
    if wanted.visibility is not None:
        yield _c.visibility == wanted.visibility
    for name, values in wanted.equals.items():
        if name not in EQUALS:
            raise BadRequest(f"Images cannot be filtered by '{name}'.")
        yield _c[name].in_(values)
    for column, flag in ((_c.protected, wanted.protected), (_c.hidden, wanted.hidden)):
        if flag is not None:
            yield column.is_(flag)
    bounds = (
        (_c.size, operator.ge, wanted.size_min),
        (_c.size, operator.le, wanted.size_max),
        (_c.min_disk, operator.eq, wanted.min_disk),
        (_c.min_ram, operator.eq, wanted.min_ram),
    )
    for column, compare, bound in bounds:
        if bound is not None:
            yield compare(column, bound)
    for time in wanted.times:
        yield _COMPARE[time.operator](_c[time.field], time.at)
    for tag in wanted.tags:
        yield _c.id.in_(sa.select(_t.image_id).where(_t.tag == tag))
    for name, value in wanted.properties.items():
        yield _c.id.in_(sa.select(_p.image_id).where(_p.name == name, _p.value == value))


def _listed_for(viewer: str, wanted: ImageFilter) -> sa.ColumnElement[bool]:
    shared = sa.select(_m.image_id).where(_m.member_id == viewer)
    if wanted.member_status is not None:
        shared = shared.where(_m.status == wanted.member_status)
    everybody = [Visibility.PUBLIC]
    if wanted.with_community or wanted.visibility is Visibility.COMMUNITY:
        everybody.append(Visibility.COMMUNITY)
    return sa.or_(
        _c.visibility.in_(everybody),
        _c.owner == viewer,
        sa.and_(_c.visibility == Visibility.SHARED, _c.id.in_(shared)),
    )


def _paged(tx: Tx, query: sa.Select[Any], page: ImagePage) -> sa.Select[Any]:
    keys = dict(page.sort) or {"created_at": True}
    descends = next(reversed(keys.values()))
    for name in ("created_at", "id"):  # so that the order is total
        keys.setdefault(name, descends)
    if unknown := keys.keys() - SORT_KEYS.keys():
        raise BadRequest(f"Images cannot be sorted by '{min(unknown)}'. Sort keys are: {', '.join(SORT_KEYS)}.")
    columns = [SORT_KEYS[name].label(f"sort_{name}") for name in keys]
    if page.marker is not None:
        at = tx.execute(sa.select(*columns).where(_c.id == page.marker, _THERE)).first()
        if at is None:
            raise BadRequest(f"Invalid marker. Image {page.marker} could not be found.")
        query = query.where(_after([(SORT_KEYS[name], down) for name, down in keys.items()], at))
    order = [SORT_KEYS[name].desc() if down else SORT_KEYS[name] for name, down in keys.items()]
    return query.order_by(*order).limit(page.limit)


def _after(keys: Sequence[tuple[sa.ColumnElement[Any], bool]], at: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Rows behind the one whose keys are `at`: further in the first key, or equal in it and further in the second …"""
    further: list[sa.ColumnElement[bool]] = []
    equal: list[sa.ColumnElement[bool]] = []
    for (column, descends), value in zip(keys, at, strict=True):
        further.append(sa.and_(*equal, column < value if descends else column > value))
        equal.append(column == value)
    return sa.or_(*further)


# ---- writing ----------------------------------------------------------------------------------------


def insert(tx: Tx, image: Image) -> None:
    """Add an image.

    Raises:
        AlreadyExists: its id is taken, or was until lately.
    """
    if tx.execute(sa.select(_c.id).where(_c.id == image.id)).first() is not None:
        raise AlreadyExists(detail=f"Image ID {image.id} already exists!")
    values = msgspec.structs.asdict(image)
    insert_row(tx, images, {name: value for name, value in values.items() if name not in _CHILDREN})
    _add_properties(tx, image.id, image.properties)
    _add_tags(tx, image.id, image.tags)


def update(tx: Tx, before: Image, after: Image) -> None:
    """Write what is different in `after`. The caller holds the lock of the image."""
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
    changed = {name: new[name] for name in new if name not in _CHILDREN and new[name] != old[name]}
    if changed:
        update_rows(tx, images, {"id": after.id}, changed)
    stale = [name for name, value in before.properties.items() if after.properties.get(name) != value]
    if stale:
        tx.execute(sa.delete(image_properties).where(_p.image_id == after.id, _p.name.in_(stale)))
    fresh = {name: value for name, value in after.properties.items() if before.properties.get(name) != value}
    _add_properties(tx, after.id, fresh)
    gone = [tag for tag in before.tags if tag not in after.tags]
    if gone:
        tx.execute(sa.delete(image_tags).where(_t.image_id == after.id, _t.tag.in_(gone)))
    _add_tags(tx, after.id, [tag for tag in after.tags if tag not in before.tags])


def _add_properties(tx: Tx, image_id: str, properties: Mapping[str, str]) -> None:
    if properties:
        rows = [{"image_id": image_id, "name": name, "value": value} for name, value in properties.items()]
        tx.execute(sa.insert(image_properties), rows)


def _add_tags(tx: Tx, image_id: str, tags: Iterable[str]) -> None:
    rows = [{"image_id": image_id, "tag": tag} for tag in dict.fromkeys(tags)]
    if rows:
        tx.execute(sa.insert(image_tags), rows)


def delete(tx: Tx, image_id: str, at: datetime) -> None:
    """Make it a deleted image: its bytes are nobody's from now on."""
    values = {"status": ImageStatus.DELETED, "location": None, "upload_id": None, "updated_at": at}
    update_rows(tx, images, {"id": image_id}, values)
    for table in (image_properties, image_tags, image_members):
        tx.execute(sa.delete(table).where(table.c.image_id == image_id))


def prune(tx: Tx, *, before: datetime, limit: int = 500) -> int:
    """Forget images that were deleted before then; how many rows."""
    ids = [
        row.id
        for row in tx.execute(
            sa.select(_c.id).where(_c.status == ImageStatus.DELETED, _c.updated_at < before).limit(limit)
        )
    ]
    return tx.execute(sa.delete(images).where(_c.id.in_(ids))).rowcount if ids else 0


# ---- uploads ----------------------------------------------------------------------------------------


def begin_upload(tx: Tx, image_id: str, upload_id: str, *, at: datetime, silent_since: datetime) -> bool:
    """Make the image this upload's; False if it has bytes, or another upload that lives.

    Args:
        silent_since: an upload that gave no sign of life since then is dead.
    """
    # One conditional write decides between two uploads that begin together.
    dead = sa.and_(_c.status == ImageStatus.SAVING, _c.upload_seen_at < silent_since)
    taken = tx.execute(
        sa.update(images)
        .where(_c.id == image_id, sa.or_(_c.status.in_(RULES["upload"].allowed_from), dead))
        .values(status=RULES["upload"].to, upload_id=upload_id, upload_seen_at=at, updated_at=at)
    )
    return taken.rowcount == 1


def keep_upload(tx: Tx, image_id: str, upload_id: str, *, at: datetime) -> bool:
    """Give a sign of life; False if the image is no longer this upload's."""
    return update_rows(tx, images, {"id": image_id, "upload_id": upload_id}, {"upload_seen_at": at}) == 1


def finish_upload(
    tx: Tx, image_id: str, upload_id: str, received: Received, *, location: str, at: datetime
) -> Image | None:
    """The image with its bytes; None if it is no longer this upload's."""
    values = {
        **msgspec.structs.asdict(received),
        "status": RULES["activate"].to,
        "location": location,
        "upload_id": None,
        "upload_seen_at": None,
        "updated_at": at,
    }
    if update_rows(tx, images, {"id": image_id, "upload_id": upload_id}, values) == 0:
        return None
    return get(tx, image_id)


def give_up_upload(tx: Tx, image_id: str, upload_id: str, *, at: datetime) -> bool:
    """Back to an image without bytes; False if it is no longer this upload's."""
    return update_rows(tx, images, {"id": image_id, "upload_id": upload_id}, _given_up(at)) == 1


def give_up_dead_uploads(tx: Tx, *, at: datetime, silent_since: datetime | None) -> list[str]:
    """Back to images without bytes, for every upload that is dead; their ids.

    Args:
        silent_since: those that gave no sign of life since then; None: all, for no other process uploads.
    """
    dead = _c.status == ImageStatus.SAVING
    if silent_since is not None:
        dead = sa.and_(dead, _c.upload_seen_at < silent_since)
    ids = [row.id for row in tx.execute(sa.select(_c.id).where(dead).with_for_update())]
    if ids:
        tx.execute(sa.update(images).where(_c.id.in_(ids), dead).values(_given_up(at)))
    return ids


def _given_up(at: datetime) -> dict[str, Any]:
    return {"status": RULES["give_up"].to, "upload_id": None, "upload_seen_at": None, "updated_at": at}


def known_locations(tx: Tx, among: Sequence[str]) -> set[str]:
    """Which of these places hold bytes of an image, or are an upload's that is still under way."""
    # A place is called <image id>.<upload id>; see kilonova.images.keys.
    uploads = {place.rpartition(".")[2]: place for place in among}
    # In this order: an upload that ends between the two statements is seen by the second.
    coming = tx.execute(sa.select(_c.upload_id).where(_c.upload_id.in_(list(uploads)), _THERE)).all()
    held = tx.execute(sa.select(_c.location).where(_c.location.in_(list(among)), _THERE)).all()
    return {uploads[row.upload_id] for row in coming} | {row.location for row in held}


# ---- members ----------------------------------------------------------------------------------------


def _member(row: sa.Row[Any]) -> ImageMember:
    return ImageMember(**{**row._mapping, "status": MemberStatus(row.status)})


def members(tx: Tx, image_id: str, *, only: str | None = None) -> list[ImageMember]:
    """The projects that an image is shared with, by id; with `only`, that one if it is among them."""
    query = sa.select(image_members).where(_m.image_id == image_id).order_by(_m.member_id)
    if only is not None:
        query = query.where(_m.member_id == only)
    return [_member(row) for row in tx.execute(query)]


def member(tx: Tx, image_id: str, member_id: str) -> ImageMember:
    """One of them.

    Raises:
        NotFound
    """
    row = select_rows(tx, image_members, {"image_id": image_id, "member_id": member_id}).first()
    if row is None:
        raise NotFound(kind="Image member", id=member_id)
    return _member(row)


def is_member(tx: Tx, image_id: str, project_id: str) -> bool:
    """Whether the image is shared with this project."""
    return select_rows(tx, image_members, {"image_id": image_id, "member_id": project_id}).first() is not None


def add_member(tx: Tx, member: ImageMember) -> None:
    """Share an image with a project.

    Raises:
        AlreadyExists
    """
    if is_member(tx, member.image_id, member.member_id):
        raise AlreadyExists(
            detail=f"The image {member.image_id} is already shared with the project {member.member_id}."
        )
    insert_row(tx, image_members, msgspec.structs.asdict(member))


def answer_member(tx: Tx, image_id: str, member_id: str, status: MemberStatus, at: datetime) -> ImageMember:
    """Write a project's answer.

    Raises:
        NotFound
    """
    update_rows(tx, image_members, {"image_id": image_id, "member_id": member_id}, {"status": status, "updated_at": at})
    return member(tx, image_id, member_id)


def remove_member(tx: Tx, image_id: str, member_id: str) -> None:
    """Share an image with a project no longer.

    Raises:
        NotFound
    """
    gone = tx.execute(sa.delete(image_members).where(_m.image_id == image_id, _m.member_id == member_id))
    if gone.rowcount == 0:
        raise NotFound(kind="Image member", id=member_id)
