"""``kilonova doctor``: look at a configuration and at what it needs, and say what to do."""

import argparse
import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a configuration and this machine, and say what to do",
        description="Check the options of a configuration (a wrong one is told with the nearest right one), broker, "
        "database, clock, hypervisor, network and disk. Changes nothing. Exit status 1 if something fails.",
    )
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="check for these; none: those of its roles")
    parser.add_argument("--config-file", type=Path, action="append", default=[], metavar="FILE", help="INI file")
    parser.add_argument(
        "--config-dir",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="its *.conf, by name, after the files",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="look at the cloud of 'kilonova up' in this directory instead"
    )
    parser.add_argument(
        "--invariants",
        action="store_true",
        help="look at the live cloud instead: does what it has written down agree with itself, and with what its "
        "hypervisors run (nothing stuck, leaked, doubled or lost)? Reads all servers",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if one of them is a failure."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kilonova.cli.docs import PACKAGE, sections
    from kilonova.launch.doctor import examine
    from kilonova.launch.services import SERVICES

    options = [
        (section.name, option.name, section.module) for section in sections(PACKAGE) for option in section.options
    ]
    unknown = [name for name in args.services if name not in SERVICES]
    if unknown:
        print(f"No service '{unknown[0]}'. There are: {', '.join(SERVICES)}.", file=sys.stderr)
        return 2
    findings = asyncio.run(
        examine(
            args.config_file,
            options,
            args.services,
            directories=args.config_dir,
            state=args.state,
            invariants=args.invariants,
        )
    )
    failed = any(finding.level == "fail" for finding in findings)
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
        return int(failed)
    console = Console()
    if not console.is_terminal:
        console.width = 160
    table = Table(box=None)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        mark = Text(finding.level, style=colours[finding.level])
        table.add_row(mark, finding.what, Text(finding.text), Text(finding.remedy))
    console.print(table)
    return int(failed)
