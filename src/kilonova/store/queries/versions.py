"""Numbers that grow when something changes, so that who remembers it can see that cheaply."""

import sqlalchemy as sa

from kilonova.store.tables.flavors import versions
from kilonova.store.transactions import Tx, insert_if_absent

_c = versions.c
_VALUE = sa.select(_c.value).where(_c.name == sa.bindparam("which"))
_BUMP = sa.update(versions).where(_c.name == sa.bindparam("which")).values(value=_c.value + 1)


def value(tx: Tx, name: str) -> int:
    """The number of `name`; 0 before its first change."""
    return int(tx.execute(_VALUE, {"which": name}).scalar() or 0)


def bump(tx: Tx, name: str) -> None:
    """Something of `name` changes in this transaction."""
    which = {"which": name}
    if tx.execute(_BUMP, which).rowcount == 0 and not insert_if_absent(tx, versions, {"name": name, "value": 1}):
        tx.execute(_BUMP, which)
