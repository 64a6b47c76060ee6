"""``kilonova``: one command, a subcommand for each thing an operator does."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from kilonova import __version__

COMMANDS = ("up", "service", "first_run", "trace", "explain", "inspect", "doctor", "simulate", "db", "bench", "docs")
"""Modules of this room, each with ``add_parser(subparsers)`` and ``run(args) -> int``."""

_EPILOG = """\
examples:
  kilonova up --state /var/lib/kilonova            a whole cloud in this process, with real virtual machines
  kilonova up --virt fake --hosts 100              the same API over 100 simulated hosts; needs no root
  kilonova trace req-3f0c...                       what one request did, through every service's log
  kilonova explain SERVER                          why a server landed where it did, or nowhere
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="kilonova",
        description="A compute cloud that starts with one command and speaks OpenStack.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kilonova {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        # Commands import what they need when they run, so that help stays quick.
        importlib.import_module(f"kilonova.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
