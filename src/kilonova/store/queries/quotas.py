"""Taking and giving back quota. Called in the transaction that makes or removes the thing counted."""

from collections.abc import Mapping

import sqlalchemy as sa

from kilonova.model.errors import QuotaExceeded
from kilonova.store.tables.quotas import quota_limits, quota_usages
from kilonova.store.transactions import Tx, insert_if_absent, select_rows

UNLIMITED = -1

_u = quota_usages.c
_AMOUNT = sa.bindparam("amount", type_=sa.BigInteger)
_MINE = sa.update(quota_usages).where(_u.owner == sa.bindparam("who"), _u.resource == sa.bindparam("what"))
_TAKE = _MINE.values(used=_u.used + _AMOUNT)
_TAKE_WITHIN = _TAKE.where(_u.used + _AMOUNT <= sa.bindparam("limit", type_=sa.BigInteger))
_RETURN = _MINE.values(used=sa.case((_u.used >= _AMOUNT, _u.used - _AMOUNT), else_=0))
_LIMITS = sa.select(quota_limits.c.owner, quota_limits.c.resource, quota_limits.c.limit).where(
    sa.or_(quota_limits.c.owner == sa.bindparam("who"), quota_limits.c.owner == "")
)


def limits(tx: Tx, owner: str) -> dict[str, int]:
    """Limits of one project or user: its own, else those for all. A resource without any is not limited."""
    rows = tx.execute(_LIMITS, {"who": owner}).all()
    merged: dict[str, int] = {}
    for wanted in ("", owner):
        merged.update({row.resource: row.limit for row in rows if row.owner == wanted})
    return merged


def used(tx: Tx, owner: str) -> dict[str, int]:
    """What one project or user uses of each resource."""
    rows = select_rows(tx, quota_usages, {"owner": owner})
    return {row.resource: row.used for row in rows}


def set_limits(tx: Tx, owner: str, wanted: Mapping[str, int]) -> None:
    """Set limits of one project or user; with an empty `owner`, the defaults."""
    for resource, limit in sorted(wanted.items()):
        row = {"owner": owner, "resource": resource, "limit": limit}
        if not insert_if_absent(tx, quota_limits, row):
            tx.execute(
                sa.update(quota_limits)
                .where(quota_limits.c.owner == owner, quota_limits.c.resource == resource)
                .values(limit=limit)
            )


def clear_limits(tx: Tx, owner: str) -> None:
    """Back to the defaults."""
    tx.execute(sa.delete(quota_limits).where(quota_limits.c.owner == owner))


def take(tx: Tx, owner: str, amounts: Mapping[str, int]) -> None:
    """Take `amounts` of one project's or user's quota, all or nothing.

    One conditional UPDATE per resource decides the race, in name order so that two takers cannot lock
    each other out; the caller's transaction makes it all or nothing.

    Raises:
        QuotaExceeded: names the first resource that does not fit.
    """
    limit_of = limits(tx, owner)
    for resource, amount in sorted(amounts.items()):
        if amount == 0:
            continue
        limit = limit_of.get(resource, UNLIMITED)
        statement, parameters = _TAKE, {"who": owner, "what": resource, "amount": amount}
        if limit != UNLIMITED:
            statement, parameters = _TAKE_WITHIN, {**parameters, "limit": limit}
        if tx.execute(statement, parameters).rowcount:
            continue
        insert_if_absent(tx, quota_usages, {"owner": owner, "resource": resource, "used": 0})
        if tx.execute(statement, parameters).rowcount == 0:
            in_use = used(tx, owner).get(resource, 0)
            raise QuotaExceeded(resource=resource, limit=limit, used=in_use, asked=amount)


def give_back(tx: Tx, owner: str, amounts: Mapping[str, int]) -> None:
    """Return what `take` took. Never goes below zero."""
    for resource, amount in sorted(amounts.items()):
        tx.execute(_RETURN, {"who": owner, "what": resource, "amount": amount})
