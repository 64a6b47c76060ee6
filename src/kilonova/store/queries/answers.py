"""Requests that were carried out under an ``Idempotency-Key``, and what was answered."""

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from kilonova.model.errors import Repeated
from kilonova.store.tables.answers import answers
from kilonova.store.transactions import Tx, insert_if_absent

KEPT: Final = timedelta(hours=24)
"""How long a key stands for what was done under it."""

_c = answers.c


def take(tx: Tx, key: str, fingerprint: str, *, at: datetime) -> None:
    """What this transaction does is done under `key`.

    Raises:
        Repeated: something was done under it already.
    """
    tx.execute(sa.delete(answers).where(_c.key == key, _c.created_at < at - KEPT))
    if not insert_if_absent(tx, answers, {"key": key, "fingerprint": fingerprint, "created_at": at}):
        raise Repeated(detail="A request with this Idempotency-Key was carried out before.")


def find(tx: Tx, key: str, *, at: datetime) -> Any | None:
    """The row (fingerprint, status, answer) of a key, if something was done under it."""
    return tx.execute(
        sa.select(_c.fingerprint, _c.status, _c.answer).where(_c.key == key, _c.created_at >= at - KEPT)
    ).first()


def keep(tx: Tx, key: str, *, status: int, answer: str) -> None:
    """What was answered."""
    tx.execute(sa.update(answers).where(_c.key == key).values(status=status, answer=answer))


def prune(tx: Tx, *, before: datetime, limit: int = 1000) -> int:
    """Forget old answers; how many."""
    keys = sa.select(_c.key).where(_c.created_at < before).limit(limit).subquery()
    return tx.execute(sa.delete(answers).where(_c.key.in_(sa.select(keys.c.key)))).rowcount
