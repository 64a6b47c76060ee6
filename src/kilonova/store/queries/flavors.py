"""Flavors."""

from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, BadRequest, NotFound
from kilonova.model.flavor import Flavor
from kilonova.store.tables.flavors import flavor_access, flavors
from kilonova.store.transactions import Tx

_c = flavors.c

SORT_KEYS = {
    "flavorid": _c.flavor_id,
    "id": _c.id,
    "name": _c.name,
    "memory_mb": _c.memory_mib,
    "vcpus": _c.vcpus,
    "root_gb": _c.root_gib,
    "swap": _c.swap_mib,
    "ephemeral_gb": _c.ephemeral_gib,
    "disabled": _c.disabled,
    "is_public": _c.is_public,
    "rxtx_factor": _c.rxtx_factor,
    "created_at": _c.created_at,
}


def _flavor(row: Any) -> Flavor:
    values = dict(row._mapping)
    values["id"] = values.pop("flavor_id")
    return Flavor(**values)


def _visible_to(project_id: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    shared = sa.select(flavor_access.c.flavor_id).where(flavor_access.c.project_id == project_id)
    return sa.or_(_c.is_public, _c.flavor_id.in_(shared))


_ONE = sa.select(flavors).where(_c.flavor_id == sa.bindparam("flavor", type_=sa.String))
_ONE_SEEN = _ONE.where(_visible_to(sa.bindparam("project", type_=sa.String)))


def get(tx: Tx, flavor_id: str, *, project_id: str | None = None) -> Flavor:
    """One flavor; with `project_id` only if that project can see it.

    Raises:
        NotFound
    """
    if project_id is None:
        row = tx.execute(_ONE, {"flavor": flavor_id}).first()
    else:
        row = tx.execute(_ONE_SEEN, {"flavor": flavor_id, "project": project_id}).first()
    if row is None:
        raise NotFound(kind="Flavor", id=flavor_id)
    return _flavor(row)


def list_page(
    tx: Tx,
    *,
    project_id: str | None = None,
    is_public: bool | None = True,
    min_ram: int = 0,
    min_disk: int = 0,
    limit: int = 1000,
    marker: str | None = None,
    sort_key: str = "flavorid",
    descends: bool = False,
) -> list[Flavor]:
    """A page of flavors.

    Args:
        project_id: also the private ones that this project has access to.
        is_public: None for all.

    Raises:
        BadRequest: unknown marker or sort key.
    """
    if sort_key not in SORT_KEYS:
        raise BadRequest(f"Flavors cannot be sorted by '{sort_key}'.")
    query = sa.select(flavors).where(_c.memory_mib >= min_ram, _c.root_gib >= min_disk)
    if is_public is True:
        query = query.where(_visible_to(project_id) if project_id else _c.is_public)
    elif is_public is False:
        query = query.where(~_c.is_public)
    column = SORT_KEYS[sort_key]
    if marker is not None:
        at = tx.execute(sa.select(flavors).where(_c.flavor_id == marker)).first()
        if at is None:
            raise BadRequest(f"marker [{marker}] not found")
        value = getattr(at, column.name)
        further = column < value if descends else column > value
        query = query.where(sa.or_(further, sa.and_(column == value, _c.id > at.id)))
    query = query.order_by(column.desc() if descends else column, _c.id).limit(limit)
    return [_flavor(row) for row in tx.execute(query)]


def insert(tx: Tx, flavor: Flavor) -> None:
    """Add a flavor.

    Raises:
        AlreadyExists: its id or its name is taken.
    """
    taken = tx.execute(
        sa.select(_c.flavor_id, _c.name).where(sa.or_(_c.flavor_id == flavor.id, _c.name == flavor.name))
    ).first()
    if taken is not None:
        what = "ID" if taken.flavor_id == flavor.id else "name"
        value = flavor.id if what == "ID" else flavor.name
        raise AlreadyExists(detail=f"Flavor with {what} {value} already exists.")
    values = msgspec.structs.asdict(flavor)
    values["flavor_id"] = values.pop("id")
    tx.execute(sa.insert(flavors).values(**values))


def update(tx: Tx, flavor_id: str, **values: Any) -> Flavor:
    """Change a flavor's description or extra specs.

    Raises:
        NotFound
    """
    tx.execute(sa.update(flavors).where(_c.flavor_id == flavor_id).values(**values))
    return get(tx, flavor_id)


def delete(tx: Tx, flavor_id: str) -> None:
    """Remove a flavor. Servers keep their own copy.

    Raises:
        NotFound
    """
    if tx.execute(sa.delete(flavors).where(_c.flavor_id == flavor_id)).rowcount == 0:
        raise NotFound(kind="Flavor", id=flavor_id)
    tx.execute(sa.delete(flavor_access).where(flavor_access.c.flavor_id == flavor_id))


def access(tx: Tx, flavor_id: str) -> list[str]:
    """Projects that may use a private flavor."""
    f = flavor_access.c
    return [
        row.project_id
        for row in tx.execute(sa.select(f.project_id).where(f.flavor_id == flavor_id).order_by(f.project_id))
    ]


def grant(tx: Tx, flavor_id: str, project_id: str) -> None:
    """Let a project use a private flavor.

    Raises:
        AlreadyExists
    """
    if project_id in access(tx, flavor_id):
        raise AlreadyExists(
            detail=f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination."
        )
    tx.execute(sa.insert(flavor_access).values(flavor_id=flavor_id, project_id=project_id))


def revoke(tx: Tx, flavor_id: str, project_id: str) -> None:
    """Take a private flavor away from a project.

    Raises:
        NotFound
    """
    f = flavor_access.c
    gone = tx.execute(sa.delete(flavor_access).where(f.flavor_id == flavor_id, f.project_id == project_id))
    if gone.rowcount == 0:
        raise NotFound(kind="Flavor access", id=f"{flavor_id} / {project_id}")
