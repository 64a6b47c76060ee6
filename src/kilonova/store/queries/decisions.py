"""Stored scheduling decisions, by server."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from kilonova.model.server import Decision
from kilonova.store.tables.servers import decisions
from kilonova.store.transactions import Tx, insert_row


def add(tx: Tx, decision: Decision) -> None:
    """Keep the scheduler's answer."""
    insert_row(tx, decisions, msgspec.structs.asdict(decision))


def of_server(tx: Tx, server_id: str) -> list[Decision]:
    """The scheduler's answers for a server, oldest first."""
    d = decisions.c
    rows = tx.execute(sa.select(decisions).where(d.server_id == server_id).order_by(d.id))
    return [
        Decision(
            server_id=row.server_id,
            request_id=row.request_id,
            attempt=row.attempt,
            host=row.host,
            explanation=row.explanation,
            created_at=row.created_at,
        )
        for row in rows
    ]


def prune(tx: Tx, *, before: datetime, limit: int = 1000) -> int:
    """Forget old decisions; how many."""
    ids = sa.select(decisions.c.id).where(decisions.c.created_at < before).limit(limit).subquery()
    return tx.execute(sa.delete(decisions).where(decisions.c.id.in_(sa.select(ids.c.id)))).rowcount
