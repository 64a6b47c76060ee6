"""Identity's rows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, NotFound
from kilonova.store.tables import identity as t
from kilonova.store.transactions import Tx, insert_row, select_rows, update_rows

TABLES = {"domain": t.domains, "project": t.projects, "user": t.users, "role": t.roles}


def _plain(row: Any) -> dict[str, Any]:
    # SQLAlchemy's names of columns are more than texts, and JSON wants texts.
    return {str(name): value for name, value in row._mapping.items()}


def get(tx: Tx, kind: str, id: str) -> dict[str, Any]:
    """One domain, project, user or role.

    Raises:
        NotFound
    """
    row = select_rows(tx, TABLES[kind], {"id": id}).first()
    if row is None:
        raise NotFound(kind=kind, id=id)
    return _plain(row)


def find(tx: Tx, kind: str, /, **where: Any) -> list[dict[str, Any]]:
    """Those whose columns equal `where`, by name."""
    table = TABLES[kind]
    query = sa.select(table).where(*(table.c[k] == v for k, v in where.items())).order_by(table.c.name)
    return [_plain(row) for row in tx.execute(query)]


def insert(tx: Tx, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Add one.

    Raises:
        AlreadyExists
    """
    unique = {key: values[key] for key in ("domain_id", "name") if key in values}
    if find(tx, kind, **unique):
        raise AlreadyExists(detail=f"Duplicate entry found with name {values['name']}.")
    insert_row(tx, TABLES[kind], values)
    return get(tx, kind, values["id"])


def update(tx: Tx, kind: str, id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Change one.

    Raises:
        NotFound, AlreadyExists
    """
    row = get(tx, kind, id)
    if "name" in values and values["name"] != row["name"]:
        unique = {"name": values["name"]} | ({"domain_id": row["domain_id"]} if "domain_id" in row else {})
        if find(tx, kind, **unique):
            raise AlreadyExists(detail=f"Duplicate entry found with name {values['name']}.")
    if values:
        update_rows(tx, TABLES[kind], {"id": id}, values)
    return get(tx, kind, id)


def delete(tx: Tx, kind: str, id: str) -> None:
    """Remove one, and the assignments that name it.

    Raises:
        NotFound
    """
    get(tx, kind, id)
    a = t.role_assignments.c
    named = {"user": a.user_id == id, "role": a.role_id == id}.get(kind, sa.and_(a.scope == kind, a.scope_id == id))
    tx.execute(sa.delete(t.role_assignments).where(named))
    tx.execute(sa.delete(TABLES[kind]).where(TABLES[kind].c.id == id))


def assign(tx: Tx, user_id: str, scope: str, scope_id: str, role_id: str) -> None:
    """Give a user a role somewhere. Giving it twice is giving it once."""
    row = {"user_id": user_id, "scope": scope, "scope_id": scope_id, "role_id": role_id}
    if select_rows(tx, t.role_assignments, row).first() is None:
        insert_row(tx, t.role_assignments, row)


def unassign(tx: Tx, user_id: str, scope: str, scope_id: str, role_id: str) -> None:
    """Take a role away.

    Raises:
        NotFound
    """
    a = t.role_assignments.c
    gone = tx.execute(
        sa.delete(t.role_assignments).where(
            a.user_id == user_id, a.scope == scope, a.scope_id == scope_id, a.role_id == role_id
        )
    )
    if gone.rowcount == 0:
        raise NotFound(kind="role assignment", id=role_id)


def assignments(tx: Tx, **where: Any) -> list[dict[str, Any]]:
    """Role assignments whose columns equal `where`."""
    return [_plain(row) for row in select_rows(tx, t.role_assignments, where)]


def revoke(tx: Tx, audit_id: str, expires_at: datetime, now: datetime) -> None:
    """A token is good no more; rows of tokens that have expired anyway are forgotten."""
    tx.execute(sa.delete(t.revocations).where(t.revocations.c.expires_at < now))
    if not is_revoked(tx, audit_id):
        insert_row(tx, t.revocations, {"audit_id": audit_id, "expires_at": expires_at})


def is_revoked(tx: Tx, audit_id: str) -> bool:
    """Whether a token was revoked."""
    return select_rows(tx, t.revocations, {"audit_id": audit_id}).first() is not None


def credentials(tx: Tx, /, **where: Any) -> list[dict[str, Any]]:
    """Application credentials whose columns equal `where`."""
    return [_plain(row) for row in select_rows(tx, t.application_credentials, where)]


def insert_credential(tx: Tx, values: Mapping[str, Any]) -> None:
    """Add one.

    Raises:
        AlreadyExists
    """
    if credentials(tx, user_id=values["user_id"], name=values["name"]):
        raise AlreadyExists(detail=f"An application credential named {values['name']} exists already.")
    insert_row(tx, t.application_credentials, values)


def delete_credential(tx: Tx, id: str) -> None:
    """Remove one."""
    tx.execute(sa.delete(t.application_credentials).where(t.application_credentials.c.id == id))
