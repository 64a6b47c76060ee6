"""Images."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, BadRequest, Conflict, NotFound
from kilonova.model.image import Image
from kilonova.store.tables.images import image_members, images
from kilonova.store.transactions import Tx, insert_row, select_rows, update_rows

_c = images.c

SORT_KEYS = {
    name: _c[name]
    for name in ("name", "status", "disk_format", "container_format", "size", "id", "created_at", "updated_at")
}


def _image(row: Any) -> Image:
    return Image(**row._mapping)


def find(tx: Tx, image_id: str) -> Image | None:
    """One image, whoever asks."""
    row = select_rows(tx, images, {"id": image_id}).first()
    return None if row is None else _image(row)


def get(tx: Tx, image_id: str) -> Image:
    """One image, whoever asks.

    Raises:
        NotFound
    """
    image = find(tx, image_id)
    if image is None:
        raise NotFound(kind="Image", id=image_id)
    return image


def get_usable(tx: Tx, image_id: str, *, project_id: str, is_admin: bool) -> Image:
    """One image that a project can see and use.

    Raises:
        NotFound
    """
    image = get(tx, image_id)
    if is_admin or image.owner == project_id or image.visibility in ("public", "community"):
        return image
    if image.visibility == "shared" and member(tx, image_id, project_id) is not None:
        return image
    raise NotFound(kind="Image", id=image_id)


def list_page(
    tx: Tx,
    *,
    project_id: str | None,
    where: Mapping[str, Any],
    tags: list[str],
    limit: int,
    marker: str | None,
    sort: list[tuple[str, bool]],
    member_status: str = "accepted",
) -> list[Image]:
    """A page of images. With `project_id`, those that it sees; `sort` has pairs (key, descends).

    Raises:
        BadRequest: unknown sort key or marker.
    """
    query = sa.select(images).where(*(_c[key] == value for key, value in where.items() if key in _c))
    if project_id is not None:
        accepted = sa.select(image_members.c.image_id).where(image_members.c.project_id == project_id)
        if member_status != "all":
            accepted = accepted.where(image_members.c.status == member_status)
        shared = sa.and_(_c.visibility == "shared", _c.id.in_(accepted))
        seen = [_c.owner == project_id, _c.visibility == "public", shared]
        if where.get("visibility") == "community":
            seen.append(_c.visibility == "community")
        query = query.where(sa.or_(*seen))
    columns: list[tuple[Any, bool]] = []
    for key, descends in sort:
        if key not in SORT_KEYS:
            raise BadRequest(f"Images cannot be sorted by '{key}'.")
        columns.append(
            (sa.func.coalesce(SORT_KEYS[key], ""), descends) if key == "name" else (SORT_KEYS[key], descends)
        )
    columns.append((_c.id, columns[-1][1] if columns else True))
    if marker is not None:
        at = tx.execute(
            sa.select(*(column.label(f"k{n}") for n, (column, _) in enumerate(columns))).where(_c.id == marker)
        ).first()
        if at is None:
            raise BadRequest(f"Marker {marker} could not be found.")
        further: list[Any] = []
        same: list[Any] = []
        for (column, descends), value in zip(columns, at, strict=True):
            further.append(sa.and_(*same, column < value if descends else column > value))
            same.append(column == value)
        query = query.where(sa.or_(*further))
    query = query.order_by(*(column.desc() if descends else column for column, descends in columns))
    own = {key: value for key, value in where.items() if key not in _c}
    found: list[Image] = []
    for row in tx.execute(query):
        if set(tags) <= set(row.tags) and all(row.properties.get(key) == value for key, value in own.items()):
            found.append(_image(row))
            if len(found) == limit:
                break
    return found


def insert(tx: Tx, values: Mapping[str, Any]) -> Image:
    """Add an image.

    Raises:
        AlreadyExists
    """
    if find(tx, values["id"]) is not None:
        raise AlreadyExists(detail=f"Image ID {values['id']} already exists!")
    insert_row(tx, images, values)
    return get(tx, values["id"])


def update(tx: Tx, image_id: str, *, at: datetime, **values: Any) -> Image:
    """Change an image."""
    update_rows(tx, images, {"id": image_id}, {**values, "updated_at": at})
    return get(tx, image_id)


def begin_upload(tx: Tx, image_id: str, *, at: datetime) -> None:
    """From queued to saving.

    Raises:
        Conflict: it has bytes already, or somebody else uploads.
    """
    where = {"id": image_id, "status": "queued"}
    if update_rows(tx, images, where, {"status": "saving", "updated_at": at}) == 0:
        status = get(tx, image_id).status
        raise Conflict(f"Image {image_id} is {status}: its bytes can be uploaded once, while it is queued.")


def reset_uploads(tx: Tx, *, at: datetime) -> int:
    """Uploads that a former process was cut off in can be begun anew."""
    return update_rows(tx, images, {"status": "saving"}, {"status": "queued", "updated_at": at})


def ids(tx: Tx) -> set[str]:
    """Every image there is."""
    return {row.id for row in tx.execute(sa.select(_c.id))}


def delete(tx: Tx, image_id: str) -> None:
    """Forget an image and its members."""
    tx.execute(sa.delete(image_members).where(image_members.c.image_id == image_id))
    tx.execute(sa.delete(images).where(_c.id == image_id))


# ---- members ------------------------------------------------------------------------------------------------


def member(tx: Tx, image_id: str, project_id: str) -> dict[str, Any] | None:
    """One member."""
    row = select_rows(tx, image_members, {"image_id": image_id, "project_id": project_id}).first()
    return None if row is None else dict(row._mapping)


def members(tx: Tx, image_id: str) -> list[dict[str, Any]]:
    """With whom an image is shared."""
    return [dict(row._mapping) for row in select_rows(tx, image_members, {"image_id": image_id})]


def add_member(tx: Tx, image_id: str, project_id: str, *, at: datetime) -> None:
    """Share an image.

    Raises:
        AlreadyExists
    """
    if member(tx, image_id, project_id) is not None:
        raise AlreadyExists(detail=f"Image {image_id} is shared with {project_id} already.")
    row = {"image_id": image_id, "project_id": project_id, "status": "pending", "created_at": at, "updated_at": at}
    insert_row(tx, image_members, row)


def set_member(tx: Tx, image_id: str, project_id: str, status: str, *, at: datetime) -> None:
    """A member accepts or rejects."""
    update_rows(
        tx, image_members, {"image_id": image_id, "project_id": project_id}, {"status": status, "updated_at": at}
    )


def remove_member(tx: Tx, image_id: str, project_id: str) -> None:
    """Share it no more."""
    m = image_members.c
    tx.execute(sa.delete(image_members).where(m.image_id == image_id, m.project_id == project_id))
