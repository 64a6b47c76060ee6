"""Host aggregates, for operators and for the scheduler."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kilonova.model.aggregate import Aggregate
from kilonova.model.errors import AlreadyExists, NotFound
from kilonova.model.host import AggregateState
from kilonova.store.queries import versions
from kilonova.store.tables.flavors import aggregate_hosts, aggregates
from kilonova.store.tables.servers import servers
from kilonova.store.transactions import Tx, insert_if_absent, select_rows

_VERSION = "aggregates"


def version(tx: Tx) -> int:
    """Grows with every change of any aggregate."""
    return versions.value(tx, _VERSION)


def changed(tx: Tx) -> None:
    """Tell schedulers that something changed. Called in the transaction that changes it."""
    versions.bump(tx, _VERSION)


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


# ---- for operators ------------------------------------------------------------------------------------------


def list_all(tx: Tx) -> list[Aggregate]:
    """Every aggregate, by id."""
    hosts: dict[int, list[str]] = {}
    for row in tx.execute(sa.select(aggregate_hosts).order_by(aggregate_hosts.c.host)):
        hosts.setdefault(row.aggregate_id, []).append(row.host)
    rows = tx.execute(sa.select(aggregates).order_by(aggregates.c.id))
    return [Aggregate(**row._mapping, hosts=tuple(hosts.get(row.id, ()))) for row in rows]


def get(tx: Tx, aggregate_id: int) -> Aggregate:
    """One aggregate.

    Raises:
        NotFound
    """
    row = select_rows(tx, aggregates, {"id": aggregate_id}).first()
    if row is None:
        raise NotFound(kind="Aggregate", id=str(aggregate_id))
    query = sa.select(aggregate_hosts.c.host).where(aggregate_hosts.c.aggregate_id == aggregate_id)
    hosts = tx.execute(query.order_by(aggregate_hosts.c.host)).scalars()
    return Aggregate(**row._mapping, hosts=tuple(hosts))


def insert(tx: Tx, *, uuid: str, name: str, metadata: Mapping[str, str], at: datetime) -> int:
    """Add an aggregate without hosts; its id.

    Raises:
        AlreadyExists
    """
    _check_name(tx, name)
    values = {"uuid": uuid, "name": name, "metadata": dict(metadata), "created_at": at}
    key = tx.execute(sa.insert(aggregates).values(**values)).inserted_primary_key
    assert key is not None
    changed(tx)
    return int(key[0])


def update(tx: Tx, aggregate_id: int, *, at: datetime, **values: Any) -> None:
    """Set ``name`` or ``metadata``.

    Raises:
        AlreadyExists
    """
    if "name" in values:
        _check_name(tx, values["name"], besides=aggregate_id)
    tx.execute(sa.update(aggregates).where(aggregates.c.id == aggregate_id).values(**values, updated_at=at))
    changed(tx)


def _check_name(tx: Tx, name: str, *, besides: int = 0) -> None:
    query = sa.select(aggregates.c.id).where(aggregates.c.name == name, aggregates.c.id != besides)
    if tx.execute(query).first() is not None:
        raise AlreadyExists(detail=f"Aggregate {name} already exists.")


def delete(tx: Tx, aggregate_id: int) -> None:
    """Remove an aggregate that has no hosts."""
    tx.execute(sa.delete(aggregates).where(aggregates.c.id == aggregate_id))
    changed(tx)


def add_host(tx: Tx, aggregate_id: int, host: str) -> None:
    """Put a host into an aggregate.

    Raises:
        AlreadyExists
    """
    if not insert_if_absent(tx, aggregate_hosts, {"aggregate_id": aggregate_id, "host": host}):
        raise AlreadyExists(detail=f"Aggregate {aggregate_id} already has host {host}.")
    changed(tx)


def remove_host(tx: Tx, aggregate_id: int, host: str) -> None:
    """Take a host out.

    Raises:
        NotFound
    """
    where = (aggregate_hosts.c.aggregate_id == aggregate_id, aggregate_hosts.c.host == host)
    if tx.execute(sa.delete(aggregate_hosts).where(*where)).rowcount == 0:
        raise NotFound(kind=f"Host in aggregate {aggregate_id}", id=host)
    changed(tx)


def forget_host(tx: Tx, host: str) -> None:
    """A host is gone for good: it is in no aggregate any more."""
    if tx.execute(sa.delete(aggregate_hosts).where(aggregate_hosts.c.host == host)).rowcount:
        changed(tx)


def hosts_with_servers(tx: Tx, hosts: Sequence[str]) -> list[str]:
    """Those of `hosts` that have servers."""
    if not hosts:
        return []
    query = sa.select(servers.c.host).where(servers.c.host.in_(hosts), servers.c.deleted_at.is_(None)).distinct()
    return sorted(tx.execute(query).scalars())
