"""``kilonova db``: migrate a database, and say where it stands."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "db",
        help="migrate the database, or show which revision it is at",
        description="'kilonova up' migrates its own database when it starts. This is for doing it by hand.",
    )
    parser.add_argument("verb", choices=("upgrade", "downgrade", "current"))
    parser.add_argument("revision", nargs="?", help="where to go (upgrade: head; downgrade needs one, or 'base')")
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="state directory (default: var)")
    parser.add_argument("--url", help="database URL, instead of the state directory's own")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from kilonova.launch.state import StateDir
    from kilonova.store import migrations
    from kilonova.store.engine import Store

    store = Store.open(args.url or StateDir(args.state).database_url, inline=True)
    if args.verb == "upgrade":
        migrations.upgrade(store.engine, args.revision or "head")
    elif args.verb == "downgrade":
        if args.revision is None:
            print("Say where to: 'kilonova db downgrade REVISION', or 'base' for an empty database.")
            return 2
        migrations.downgrade(store.engine, args.revision)
    print(f"revision {migrations.current(store.engine) or '(empty)'}; newest {migrations.revisions()[-1]}")
    return 0
