"""``kilonova inspect``: what the processes of this machine are doing right now."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text


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
    parser.add_argument("--service", metavar="NAME", help="only processes that run this service")
    parser.add_argument("--json", action="store_true", help="print a list of objects, one a process")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print; 1 if no process answers."""
    found = []
    for file in sorted((args.state / "run").glob("*.json")):
        told = json.loads(file.read_text())
        if args.service and args.service not in told["services"]:
            continue
        try:
            found.append(httpx.get(f"{told['url']}/inspect", timeout=10, trust_env=False).raise_for_status().json())
        except httpx.HTTPError as error:
            print(f"{', '.join(told['services'])} (pid {told['pid']}) does not answer: {error}", file=sys.stderr)
    if not found:
        print(f"No process of {args.state} answers. Is --state the state_path of its configuration?", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 160
    for process in found:
        show(console, process)
    return 0


def show(console: Console, process: dict[str, Any]) -> None:
    """One process: its head, then a table for each section that has something to show."""
    waiting = process["waiting for"]
    head = Text(f"{', '.join(process['services'])} on {process['host']}, pid {process['pid']}: ", style="bold")
    head.append("ready", style="green") if not waiting else head.append(
        "; ".join(f"{name}: {cause}" for name, cause in waiting.items()), style="red"
    )
    console.print(head)
    for name, rows in process.items():
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            continue
        table = Table(title=f"{name} ({len(rows)})", title_justify="left")
        for column in rows[0]:
            table.add_column(str(column), overflow="fold")
        for row in rows[:50]:
            table.add_row(*(Text(_shown(value)) for value in row.values()))
        console.print(table)


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)
