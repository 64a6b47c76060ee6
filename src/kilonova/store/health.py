"""How a database is, seen from outside: for `kilonova doctor`."""

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from kilonova.model.errors import Unavailable
from kilonova.store import migrations
from kilonova.store.engine import Store

_NOW = {"postgresql": "SELECT now() AT TIME ZONE 'UTC'", "mysql": "SELECT UTC_TIMESTAMP(6)"}


@dataclass(frozen=True)
class Health:
    """What was found."""

    kind: str
    """``sqlite``, ``postgresql`` or ``mysql``."""
    revision: str | None
    newest: str
    skew_s: float
    """Seconds between its clock and ours."""


def look(url: str) -> Health:
    """Connect and look.

    Raises:
        Unavailable: it cannot be reached, or the URL is none; the message says why, without secrets.
    """
    try:
        engine = Store.open(url, inline=True).engine
        revision = migrations.current(engine)
        skew = 0.0
        if asked := _NOW.get(engine.dialect.name):
            with engine.connect() as connection:
                theirs = connection.execute(sa.text(asked)).scalar_one()
            skew = abs((datetime.now(UTC) - theirs.replace(tzinfo=UTC)).total_seconds())
        engine.dispose()
    except sa.exc.DBAPIError as error:
        raise Unavailable(str(error.orig).splitlines()[0]) from None
    except (sa.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise Unavailable(str(error).splitlines()[0]) from None
    return Health(engine.dialect.name, revision, migrations.revisions()[-1], skew)
