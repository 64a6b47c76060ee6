"""What became of services, kept for a while: written in the transaction that makes it so."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from kilonova.model.service import ServiceChange, ServiceEvent
from kilonova.store.tables.hosts import service_events
from kilonova.store.transactions import Tx

_c = service_events.c


def add(tx: Tx, names: Iterable[tuple[str, str]], event: ServiceChange, cause: str, *, at: datetime) -> None:
    """The same happened to each (service, host) of `names`."""
    rows = [
        {"service": service, "host": host, "event": event.value, "cause": cause[:255], "at": at}
        for service, host in names
    ]
    if rows:
        tx.execute(sa.insert(service_events), rows)


def newest(
    tx: Tx, *, service: str | None = None, host: str | None = None, before_id: int | None = None, limit: int = 100
) -> list[ServiceEvent]:
    """Events, newest first; older ones than `before_id` only, if that is given."""
    query = sa.select(service_events).order_by(_c.id.desc()).limit(limit)
    for column, wanted in ((_c.service, service), (_c.host, host)):
        if wanted is not None:
            query = query.where(column == wanted)
    if before_id is not None:
        query = query.where(_c.id < before_id)
    return [
        ServiceEvent(
            id=row.id, service=row.service, host=row.host, event=ServiceChange(row.event), cause=row.cause, at=row.at
        )
        for row in tx.execute(query)
    ]


def prune(tx: Tx, *, before: datetime, limit: int = 1000) -> int:
    """Forget old events; how many."""
    ids = sa.select(_c.id).where(_c.at < before).limit(limit).subquery()
    return tx.execute(sa.delete(service_events).where(_c.id.in_(sa.select(ids.c.id)))).rowcount
