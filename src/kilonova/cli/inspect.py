"""``kilonova inspect``: what the processes of this machine are doing right now."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kilonova.base.log_lines import printable
from kilonova.launch.running import running

LISTED: Final = 50
"""Rows of a table that are shown."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "inspect",
        help="look into running processes: tasks, calls, messages, queues",
        description="Show what the processes of 'kilonova service' on this machine are doing: what each waits for, its "
        "tasks, the calls that wait for an answer, the messages in hand, the depths of its queues.",
    )
    parser.add_argument(
        "--state", type=Path, default=Path("/var/lib/kilonova"), metavar="DIR", help="state_path (default: %(default)s)"
    )
    parser.add_argument("--url", metavar="URL", help="instead: the process whose [operations] listen this is")
    parser.add_argument("--service", metavar="NAME", help="only processes that run this service")
    parser.add_argument("--config", action="store_true", help="also the options in use (secrets are masked)")
    parser.add_argument("--json", action="store_true", help="print a list of objects, one a process")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print; 1 if no process answers."""
    complain = partial(print, file=sys.stderr)
    there = () if args.url else running(args.state, service=args.service, complain=complain)
    asked = [(args.url, args.url)] if args.url else [(str(process), process.url) for process in there]
    found = []
    for name, url in asked:
        try:
            answer = httpx.get(f"{url.rstrip('/')}/inspect", timeout=10, trust_env=False).raise_for_status().json()
            if not isinstance(answer, dict) or not {"services", "waiting for"} <= answer.keys():
                raise ValueError("something else answers there")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            print(f"{name} does not answer: {error}", file=sys.stderr)
            continue
        if not args.service or args.service in answer["services"]:
            found.append(answer)
    if not found:
        which = f" with the service {args.service}" if args.service else ""
        where, advice = (args.url, "") if args.url else (args.state, " Is --state the state_path of its configuration?")
        print(f"No process of {where}{which} answers.{advice}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 160
    for process in found:
        show(console, process, config=args.config)
    return 0


def show(console: Console, process: dict[str, Any], *, config: bool = False) -> None:
    """One process: its head, then a table for each section that has something to show."""
    waiting = process["waiting for"]
    head = Text(f"{', '.join(process['services'])} on {process['host']}, pid {process['pid']}: ", style="bold")
    head.append("ready", style="green") if not waiting else head.append(
        "; ".join(f"{name}: {cause}" for name, cause in waiting.items()), style="red"
    )
    console.print(head)
    for name, value in process.items():
        rows = _rows(name, value, config)
        if not rows:
            continue
        table = Table(title=Text(f"{name} ({len(rows)})"), title_justify="left")
        for column in rows[0]:
            table.add_column(Text(str(column)), overflow="fold")
        most = len(rows) if name == "config" else LISTED
        for row in rows[:most]:
            table.add_row(*(Text(printable(_shown(row.get(column)))) for column in rows[0]))
        console.print(table)
        if len(rows) > most:
            console.print(f"and {len(rows) - most} more; --json has all")


def _rows(name: str, value: Any, config: bool) -> list[dict[str, Any]]:
    """The lines of one section's table; none, if it is none."""
    if name == "config":
        sections = value.items() if config else ()
        return [
            {"section": section, "option": option, "value": set_to}
            for section, options in sections
            for option, set_to in options.items()
        ]
    if isinstance(value, dict) and value and name != "waiting for":
        return [value]
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)
