"""Key pairs, each owned by a user."""

from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.errors import AlreadyExists, BadRequest, NotFound
from kilonova.model.keypair import KeyPair
from kilonova.store.tables.flavors import keypairs
from kilonova.store.transactions import Tx

_c = keypairs.c


def _keypair(row: Any) -> KeyPair:
    return KeyPair(**row._mapping)


def get(tx: Tx, user_id: str, name: str) -> KeyPair:
    """One key pair of a user.

    Raises:
        NotFound
    """
    row = tx.execute(sa.select(keypairs).where(_c.user_id == user_id, _c.name == name)).first()
    if row is None:
        raise NotFound(kind="Keypair", id=f"{name} for user {user_id}")
    return _keypair(row)


def list_page(tx: Tx, user_id: str, *, limit: int = 1000, marker: str | None = None) -> list[KeyPair]:
    """A user's key pairs by name.

    Raises:
        BadRequest: unknown marker.
    """
    query = sa.select(keypairs).where(_c.user_id == user_id).order_by(_c.name).limit(limit)
    if marker is not None:
        if tx.execute(sa.select(_c.id).where(_c.user_id == user_id, _c.name == marker)).first() is None:
            raise BadRequest(f"marker [{marker}] not found")
        query = query.where(_c.name > marker)
    return [_keypair(row) for row in tx.execute(query)]


def insert(tx: Tx, keypair: KeyPair) -> None:
    """Add a key pair.

    Raises:
        AlreadyExists
    """
    if tx.execute(sa.select(_c.id).where(_c.user_id == keypair.user_id, _c.name == keypair.name)).first():
        raise AlreadyExists(detail=f"Key pair '{keypair.name}' already exists.")
    values = msgspec.structs.asdict(keypair)
    del values["id"]
    tx.execute(sa.insert(keypairs).values(**values))


def delete(tx: Tx, user_id: str, name: str) -> None:
    """Remove a key pair.

    Raises:
        NotFound
    """
    if tx.execute(sa.delete(keypairs).where(_c.user_id == user_id, _c.name == name)).rowcount == 0:
        raise NotFound(kind="Keypair", id=f"{name} for user {user_id}")
