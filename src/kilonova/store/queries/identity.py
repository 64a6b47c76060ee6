"""Identity's rows: domains, projects, users, groups, roles, application credentials and revoked tokens.

Whatever changes what a token stands for calls `changed` in its own transaction, so that no process goes on
believing what it remembers (see `kilonova.identity.epoch`).
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, NotFound
from kilonova.store.queries import versions
from kilonova.store.tables import identity as t
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows, update_rows

TABLES: Final = {"domain": t.domains, "project": t.projects, "user": t.users, "group": t.groups, "role": t.roles}

_VERSION: Final = "identity"


def epoch(tx: Tx) -> int:
    """Grows with every change of what some token stands for."""
    return versions.value(tx, _VERSION)


def changed(tx: Tx) -> None:
    """What a token stands for changes in this transaction. Called last, since others wait for this row."""
    versions.bump(tx, _VERSION)


def plain(row: Any) -> dict[str, Any]:
    """A row by the names of its columns (SQLAlchemy's are more than texts, and JSON wants texts)."""
    return {str(name): value for name, value in row._mapping.items()}


def get(tx: Tx, kind: str, id: str) -> dict[str, Any]:
    """One domain, project, user, group or role.

    Raises:
        NotFound
    """
    row = select_rows(tx, TABLES[kind], {"id": id}).first()
    if row is None:
        raise NotFound(kind=kind, id=id)
    return plain(row)


def find(
    tx: Tx, kind: str, /, *, limit: int | None = None, after: Mapping[str, Any] | None = None, **where: Any
) -> list[dict[str, Any]]:
    """Those whose columns equal `where`, by name.

    Args:
        after: only those that come after this row.
    """
    table = TABLES[kind]
    c = table.c
    query = sa.select(table).where(*(c[k] == v for k, v in where.items())).order_by(c.name, c.id).limit(limit)
    if after is not None:
        query = query.where((c.name > after["name"]) | ((c.name == after["name"]) & (c.id > after["id"])))
    return [plain(row) for row in tx.execute(query)]


def by_id(tx: Tx, kind: str, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those of `ids` that are there."""
    table, wanted, found = TABLES[kind], sorted(ids), {}
    for start in range(0, len(wanted), 1000):  # what a database takes in one statement is bounded
        query = sa.select(table).where(table.c.id.in_(wanted[start : start + 1000]))
        found.update({row.id: plain(row) for row in tx.execute(query)})
    return found


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
        changed(tx)
    return get(tx, kind, id)


def delete(tx: Tx, kind: str, id: str) -> None:
    """Remove one, with the memberships and the credentials that name it.

    Raises:
        NotFound
    """
    get(tx, kind, id)
    members, credentials = t.group_members.c, t.application_credentials.c
    if kind == "user":
        tx.execute(sa.delete(t.group_members).where(members.user_id == id))
        tx.execute(sa.delete(t.application_credentials).where(credentials.user_id == id))
    elif kind == "group":
        tx.execute(sa.delete(t.group_members).where(members.group_id == id))
    elif kind == "project":
        tx.execute(sa.delete(t.application_credentials).where(credentials.project_id == id))
    tx.execute(sa.delete(TABLES[kind]).where(TABLES[kind].c.id == id))
    changed(tx)


def keep_better_hash(tx: Tx, user_id: str, before: str, after: str) -> None:
    """The same password, hashed as it is done now; unless it was changed meanwhile."""
    update_rows(tx, t.users, {"id": user_id, "password_hash": before}, {"password_hash": after})


# ---- groups -------------------------------------------------------------------------------------------------


def add_member(tx: Tx, group_id: str, user_id: str) -> None:
    """A user becomes a member of a group; twice is once."""
    if insert_if_absent(tx, t.group_members, {"group_id": group_id, "user_id": user_id}):
        changed(tx)


def remove_member(tx: Tx, group_id: str, user_id: str) -> None:
    """
    Raises:
        NotFound: the user is no member.
    """
    m = t.group_members.c
    if tx.execute(sa.delete(t.group_members).where(m.group_id == group_id, m.user_id == user_id)).rowcount == 0:
        raise NotFound(kind="group member", id=user_id)
    changed(tx)


def is_member(tx: Tx, group_id: str, user_id: str) -> bool:
    """Whether a user is a member of a group."""
    return select_rows(tx, t.group_members, {"group_id": group_id, "user_id": user_id}).first() is not None


def members(tx: Tx, group_id: str, /, **where: Any) -> list[dict[str, Any]]:
    """The users of a group whose columns equal `where`, by name."""
    return _joined(tx, t.users, t.group_members.c.user_id, t.group_members.c.group_id == group_id, where)


def groups_of(tx: Tx, user_id: str, /, **where: Any) -> list[dict[str, Any]]:
    """The groups of a user whose columns equal `where`, by name."""
    return _joined(tx, t.groups, t.group_members.c.group_id, t.group_members.c.user_id == user_id, where)


def _joined(tx: Tx, table: sa.Table, by: Any, one: Any, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    query = sa.select(table).join(t.group_members, by == table.c.id).where(one)
    query = query.where(*(table.c[k] == v for k, v in where.items())).order_by(table.c.name, table.c.id)
    return [plain(row) for row in tx.execute(query)]


# ---- tokens and credentials ---------------------------------------------------------------------------------


def revoke(tx: Tx, audit_id: str, expires_at: datetime, now: datetime) -> None:
    """A token is good no more; rows of tokens that have expired anyway are forgotten."""
    tx.execute(sa.delete(t.revocations).where(t.revocations.c.expires_at < now))
    insert_if_absent(tx, t.revocations, {"audit_id": audit_id, "expires_at": expires_at})
    changed(tx)


def is_revoked(tx: Tx, audit_id: str) -> bool:
    """Whether a token was revoked."""
    return select_rows(tx, t.revocations, {"audit_id": audit_id}).first() is not None


def credentials(tx: Tx, /, **where: Any) -> list[dict[str, Any]]:
    """Application credentials whose columns equal `where`."""
    return [plain(row) for row in select_rows(tx, t.application_credentials, where)]


def insert_credential(tx: Tx, values: Mapping[str, Any]) -> None:
    """Add one.

    Raises:
        AlreadyExists
    """
    if credentials(tx, user_id=values["user_id"], name=values["name"]):
        raise AlreadyExists(detail=f"An application credential named {values['name']} exists already.")
    insert_row(tx, t.application_credentials, values)


def delete_credential(tx: Tx, user_id: str, id: str) -> None:
    """Remove one, and with it the tokens that were made with it.

    Raises:
        NotFound
    """
    c = t.application_credentials.c
    if tx.execute(sa.delete(t.application_credentials).where(c.id == id, c.user_id == user_id)).rowcount == 0:
        raise NotFound(kind="application_credential", id=id)
    changed(tx)
