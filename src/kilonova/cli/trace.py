"""``kilonova trace REQUEST_ID``: what one request did, in order, through every service's log."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_OWN = {"time", "service", "host", "level", "event", "module", "request_id", "task", "global_request_id"}


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "trace",
        help="show what one request did, through every service's log",
        description="Read the logs under the state directory and show every line of one request, in order of time. "
        "A request's id is in the x-openstack-request-id header of its answer, and in "
        "'openstack server event list SERVER'.",
    )
    parser.add_argument("request_id", metavar="REQUEST_ID", help="such as req-3f0c8a1e-...; a beginning is enough")
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="state directory (default: var)")
    parser.add_argument("--json", action="store_true", help="print the lines as they are in the logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace; 1 if there is none."""
    lines = sorted(read(args.state / "logs", args.request_id), key=lambda line: str(line["time"]))
    if not lines:
        print(f"No line of {args.request_id} in {args.state / 'logs'}. Check the id, and --state DIR.", file=sys.stderr)
        return 1
    if args.json:
        for line in lines:
            print(json.dumps(line))
        return 0
    table = Table(title=f"Request {lines[0]['request_id']}", title_justify="left")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("service", no_wrap=True)
    table.add_column("event", no_wrap=True)
    table.add_column("facts", overflow="fold")
    for line in lines:
        facts = " ".join(f"{key}={value}" for key, value in line.items() if key not in _OWN)
        service = f"{line.get('service', '')}@{line['host']}" if line.get("host") else str(line.get("service", ""))
        table.add_row(str(line["time"])[11:23], service, str(line["event"]), facts)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    return 0


def read(logs: Path, request_id: str) -> Iterator[dict[str, Any]]:
    """Every log line of one request, file by file."""
    for path in sorted(logs.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                if request_id not in text:
                    continue
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    continue  # cut off by a kill
                if str(line.get("request_id", "")).startswith(request_id):
                    yield line
