"""Schema migrations: one change a file, run in order, tested up and down.

Expand first (old code still runs), contract a release later. `upgrade` is quick where nothing is to be
done, so that every start can call it.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

HERE = Path(__file__).parent
VERSION_TABLE = "schema_version"


class MigrationFailed(RuntimeError):
    """The database refused a change; the message says what it said."""


def revisions() -> list[str]:
    """All revisions, oldest first: the beginnings of the files' names, such as ``0001``."""
    return sorted(path.name.split("_")[0] for path in (HERE / "versions").glob("[0-9]*_*.py"))


def current(engine: sa.Engine) -> str | None:
    """The revision that the database is at; None if it is empty."""
    if not sa.inspect(engine).has_table(VERSION_TABLE):
        return None
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return None if found is None else str(found)


def upgrade(engine: sa.Engine, to: str = "head") -> bool:
    """Bring the database to revision `to`; whether anything was done."""
    if to == "head" and current(engine) == revisions()[-1]:
        return False
    if engine.dialect.name == "mysql" and current(engine) is None:
        _tell_mariadb_how_to_compare(engine)
    _alembic(engine, "upgrade", to)
    return True


def _tell_mariadb_how_to_compare(engine: sa.Engine) -> None:
    """Names are compared byte by byte, and all of Unicode can be written: as in the other databases."""
    with engine.connect() as connection:
        connection.execute(sa.text("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"))


def downgrade(engine: sa.Engine, to: str) -> None:
    """Take the database back to revision `to`; ``base`` is empty."""
    _alembic(engine, "downgrade", to)


def _alembic(engine: sa.Engine, verb: str, to: str) -> None:
    from alembic import command  # imported here: it takes a fifth of a second that most starts need not pay
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["engine"] = engine
    run: Any = getattr(command, verb)
    try:
        run(config, to)
    except sa.exc.DBAPIError as error:
        raise MigrationFailed(str(error.orig).splitlines()[0]) from error
