"""``kilonova db``: migrate a database, and say where it stands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "db",
        help="migrate the database, or show which revision it is at",
        description="'kilonova up' migrates its own database when it starts. Clouds of several processes are migrated "
        "by hand, before the first of them starts.",
    )
    parser.add_argument("verb", choices=("upgrade", "downgrade", "current"))
    parser.add_argument("revision", nargs="?", help="where to go (upgrade: head; downgrade needs one, or 'base')")
    parser.add_argument("--config-file", type=Path, action="append", default=[], metavar="FILE", help="INI file")
    parser.add_argument("--state", type=Path, metavar="DIR", help="state directory of 'kilonova up' (default: var)")
    parser.add_argument("--url", help="database URL, instead of the configured one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if the database cannot be used, 2 if that cannot be asked for."""
    from kilonova.base.config import ConfigError
    from kilonova.model.errors import Unavailable
    from kilonova.store import health, migrations
    from kilonova.store.engine import Store

    if args.verb == "downgrade" and args.revision is None:
        return _refuse("Say where to: 'kilonova db downgrade REVISION', or 'base' for an empty database.")
    known = migrations.revisions()
    if args.revision is not None and args.revision not in (*known, "head", "base"):
        return _refuse(f"There is no revision '{args.revision}'. There are: base, {', '.join(known)}.")
    try:
        url = _url(args)
        stands = health.look(url).revision
    except (ConfigError, FileNotFoundError) as error:
        return _refuse(str(error))
    except Unavailable as error:
        print(f"The database cannot be used: {error.message}", file=sys.stderr)
        return 1
    if refusal := _why_not(args.verb, args.revision, stands, known):
        return _refuse(refusal)
    store = Store.open(url, inline=True, patience_s=None)
    try:
        if args.verb == "upgrade":
            migrations.upgrade(store.engine, args.revision or "head")
        elif args.verb == "downgrade":
            migrations.downgrade(store.engine, args.revision)
    except migrations.MigrationFailed as error:
        print(f"The database refused: {error}", file=sys.stderr)
        print(f"It is at revision {migrations.current(store.engine) or '(empty)'}.", file=sys.stderr)
        return 1
    print(f"revision {migrations.current(store.engine) or '(empty)'}; newest {known[-1]}")
    return 0


def _why_not(verb: str, wanted: str | None, stands: str | None, known: Sequence[str]) -> str:
    """What keeps a database at revision `stands` from going where it is wanted; empty: nothing."""
    if stands is not None and stands not in known:
        return (
            f"The database is at revision '{stands}', which this program does not know: it was made by a newer one. "
            f"Use that one; this one knows {known[0]} to {known[-1]}."
        )
    places = ["base", *known]
    here = places.index(stands or "base")
    if verb == "upgrade":
        there = places.index(wanted) if wanted not in (None, "head") else len(places) - 1
        return "" if there >= here else f"The database is at {places[here]} already: to go back to {wanted}, downgrade."
    if verb == "downgrade":
        there = places.index(wanted) if wanted not in (None, "head") else len(places) - 1
        return "" if there <= here else f"The database is at {places[here]}: to go on to {wanted}, upgrade."
    return ""


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 2


def _url(args: argparse.Namespace) -> str:
    """The database that is meant.

    Raises:
        ConfigError: a file cannot be read.
        FileNotFoundError: there is no such state directory; the message says so.
    """
    from kilonova.base.config import Config
    from kilonova.launch.options import DatabaseOptions, DeploymentOptions
    from kilonova.launch.state import StateDir

    if args.url:
        return str(args.url)
    state = StateDir(args.state or Path("var"))
    if args.config_file:
        config = Config(args.config_file)
        if connection := config.get(DatabaseOptions).connection:
            return connection
        state = StateDir(args.state or Path(config.get(DeploymentOptions).state_path))
    if not state.root.is_dir():
        raise FileNotFoundError(f"There is no directory {state.root}. Give --config-file, --state or --url.")
    return state.database_url
