"""Host aggregates, for operators and for the scheduler."""

from typing import Any

import sqlalchemy as sa

from kilonova.model.host import AggregateState
from kilonova.store.tables.flavors import aggregate_hosts, aggregates, versions
from kilonova.store.transactions import Tx, insert_if_absent

_VERSION = "aggregates"


def version(tx: Tx) -> int:
    """Grows with every change of any aggregate."""
    value = tx.execute(sa.select(versions.c.value).where(versions.c.name == _VERSION)).scalar()
    return int(value or 0)


def changed(tx: Tx) -> None:
    """Tell schedulers that something changed. Called in the transaction that changes it."""
    bump = sa.update(versions).where(versions.c.name == _VERSION).values(value=versions.c.value + 1)
    if tx.execute(bump).rowcount == 0 and not insert_if_absent(tx, versions, {"name": _VERSION, "value": 1}):
        tx.execute(bump)


def states(tx: Tx) -> tuple[int, list[AggregateState]]:
    """The version, and every aggregate as the scheduler sees it."""
    hosts: dict[int, list[str]] = {}
    for row in tx.execute(sa.select(aggregate_hosts).order_by(aggregate_hosts.c.host)):
        hosts.setdefault(row.aggregate_id, []).append(row.host)
    rows: Any = tx.execute(sa.select(aggregates).order_by(aggregates.c.id))
    found = [
        AggregateState(id=row.id, name=row.name, hosts=tuple(hosts.get(row.id, ())), metadata=row.metadata)
        for row in rows
    ]
    return version(tx), found


def zone_of_hosts(tx: Tx) -> dict[str, str]:
    """Host name to availability zone, for the hosts that an aggregate puts into one."""
    zones: dict[str, str] = {}
    for aggregate in states(tx)[1]:
        zone = aggregate.metadata.get("availability_zone")
        if zone:
            zones.update(dict.fromkeys(aggregate.hosts, zone))
    return zones
