"""Taking and giving back quota. Called in the transaction that makes or removes the thing counted."""

from collections.abc import Mapping

import sqlalchemy as sa

from kilonova.model.errors import QuotaExceeded
from kilonova.store.tables.quotas import quota_limits, quota_usages
from kilonova.store.transactions import Tx, insert_if_absent

UNLIMITED = -1


def limits(tx: Tx, owner: str) -> dict[str, int]:
    """Limits of one project or user, where it has none of its own those for all; a resource without any is not limited."""
    rows = tx.execute(
        sa.select(quota_limits.c.owner, quota_limits.c.resource, quota_limits.c.limit).where(
            quota_limits.c.owner.in_((owner, ""))
        )
    ).all()
    merged: dict[str, int] = {}
    for wanted in ("", owner):
        merged.update({row.resource: row.limit for row in rows if row.owner == wanted})
    return merged


def used(tx: Tx, owner: str) -> dict[str, int]:
    """What one project or user uses of each resource."""
    rows = tx.execute(sa.select(quota_usages.c.resource, quota_usages.c.used).where(quota_usages.c.owner == owner))
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
    usage = quota_usages.c
    for resource, amount in sorted(amounts.items()):
        if amount == 0:
            continue
        limit = limit_of.get(resource, UNLIMITED)
        statement = (
            sa.update(quota_usages)
            .where(usage.owner == owner, usage.resource == resource)
            .values(used=usage.used + amount)
        )
        if limit != UNLIMITED:
            statement = statement.where(usage.used + amount <= limit)
        if tx.execute(statement).rowcount:
            continue
        insert_if_absent(tx, quota_usages, {"owner": owner, "resource": resource, "used": 0})
        if tx.execute(statement).rowcount == 0:
            in_use = used(tx, owner).get(resource, 0)
            raise QuotaExceeded(resource=resource, limit=limit, used=in_use, asked=amount)


def give_back(tx: Tx, owner: str, amounts: Mapping[str, int]) -> None:
    """Return what `take` took. Never goes below zero."""
    usage = quota_usages.c
    for resource, amount in sorted(amounts.items()):
        tx.execute(
            sa.update(quota_usages)
            .where(usage.owner == owner, usage.resource == resource)
            .values(used=sa.case((usage.used >= amount, usage.used - amount), else_=0))
        )
