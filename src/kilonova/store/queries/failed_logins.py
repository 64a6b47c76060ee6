"""Failed logins, counted for all API processes together.

One row for each who-from-where that failed lately, by the hash of both: somebody may have typed a password where the
name belongs. Rows of a span that is over go with the next failure of anybody, so there are never more than the
failures of one span and of the pause since.
"""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from kilonova.model.errors import TooManyRequests
from kilonova.store.tables.identity import failed_logins
from kilonova.store.transactions import Tx, insert_if_absent

SPAN: Final = timedelta(minutes=1)
"""From the first failure on; within it there is a limit."""

_c = failed_logins.c


def check(tx: Tx, key: str, *, limit: int, now: datetime) -> bool:
    """Whether there are failures of `key` in this span.

    Raises:
        TooManyRequests: as many as there may be.
    """
    row = tx.execute(sa.select(_c.count, _c.since).where(_c.key == key)).first()
    if row is None or not now - SPAN < row.since <= now + SPAN:
        return False
    if row[0] >= limit:
        raise _refusal(row.since, now)
    return True


def add(tx: Tx, key: str, *, limit: int, now: datetime) -> None:
    """One more.

    Raises:
        TooManyRequests: there were as many as there may be, so this one was never looked at.
    """
    # A span that begins in the future is from before a clock was set back.
    tx.execute(sa.delete(failed_logins).where((_c.since <= now - SPAN) | (_c.since > now + SPAN)))
    if insert_if_absent(tx, failed_logins, {"key": key, "count": 1, "since": now}):
        return
    more = sa.update(failed_logins).where(_c.key == key, _c.count < limit).values(count=_c.count + 1)
    if tx.execute(more).rowcount == 0:
        raise _refusal(tx.execute(sa.select(_c.since).where(_c.key == key)).scalar() or now, now)


def clear(tx: Tx, key: str, *, limit: int, now: datetime) -> None:
    """Forget those of `key`: it has logged in.

    Raises:
        TooManyRequests: others made it too many meanwhile.
    """
    tx.execute(sa.delete(failed_logins).where(_c.key == key, _c.count < limit))
    check(tx, key, limit=limit, now=now)


def _refusal(since: datetime, now: datetime) -> TooManyRequests:
    wait_s = (since + SPAN - now).total_seconds()
    return TooManyRequests(retry_after_s=max(1, min(int(wait_s) + 1, 60)), detail="Too many failed logins.")
