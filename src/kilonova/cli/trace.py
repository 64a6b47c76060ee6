"""``kilonova trace REQUEST_ID``: what one request did, in order, through every service's log.

Logs are read as they are found: of several directories (of several machines, copied together), moved on and packed ones
too, with lines of other programs and lines that a kill cut off among them.
"""

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kilonova.base.log_lines import printable

_OWN = {"time", "service", "host", "level", "event", "module", "request_id", "task", "global_request_id"}
_COLOURS = {"warning": "yellow", "error": "red", "critical": "bold red"}
_LOG = re.compile(r"\.log(\.\d+)?(\.gz)?$")

LISTED = 10
"""Requests that are named where a beginning fits several."""

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """One line of a log."""

    time: datetime
    """When it was written; if it does not say, when the line before it was."""

    fields: dict[str, Any]

    @property
    def request_id(self) -> str:
        return str(self.fields.get("request_id", ""))


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
    parser.add_argument(
        "--state",
        type=Path,
        action="append",
        metavar="DIR",
        help="state directory, whose logs/ is read (default: var); may be given several times",
    )
    parser.add_argument(
        "--logs", type=Path, action="append", default=[], metavar="DIR", help="directory of logs; several times as well"
    )
    parser.add_argument("--json", action="store_true", help="print the lines as they are in the logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace; 1 if there is none."""
    states = args.state or ([] if args.logs else [Path("var")])
    directories = [*(state / "logs" for state in states), *args.logs]
    for directory in directories:
        if not directory.is_dir():
            print(f"There is no directory {directory}. Give --state DIR or --logs DIR.", file=sys.stderr)
            return 1
    lines = find(directories, args.request_id)
    if not lines:
        places = ", ".join(map(str, directories))
        print(f"No line of {args.request_id} in {places}. Check the id, --state and --logs.", file=sys.stderr)
        return 1
    ids = list(dict.fromkeys(line.request_id for line in lines if line.request_id.startswith(args.request_id)))
    if len(ids) > 1 and args.request_id not in ids:
        more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
        print(f"{args.request_id} begins {len(ids)} requests: {', '.join(ids[:LISTED])}{more}.", file=sys.stderr)
        return 1
    if args.json:
        for line in lines:
            print(json.dumps(line.fields))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(_table(lines, ids[0] if ids else args.request_id))
    return 0


def find(directories: Sequence[Path], request_id: str) -> list[Line]:
    """Every line of one request, and of those that it was the cause of, in order of time."""
    found: list[Line] = []
    for directory in directories:
        for path in sorted(directory.iterdir()):
            if not _LOG.search(path.name):
                continue
            try:
                found += read(path, request_id)
            except (OSError, EOFError) as error:
                print(f"{path} cannot be read: {error}. It is left out.", file=sys.stderr)
    # Lines of one moment stay in the order of their file.
    return sorted(found, key=lambda line: line.time)


def read(path: Path, request_id: str) -> Iterator[Line]:
    """The request's lines in one file."""
    before = NEVER
    with _opened(path) as file:
        for text in file:
            if request_id not in text:
                continue
            try:
                fields = json.loads(text)
            except ValueError:
                continue  # cut off by a kill, or another program's
            if not isinstance(fields, dict):
                continue
            before = _time(fields.get("time")) or before
            ids = (fields.get("request_id"), fields.get("global_request_id"))
            if any(str(one).startswith(request_id) for one in ids if one):
                yield Line(before, fields)


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _table(lines: Sequence[Line], request_id: str) -> Table:
    table = Table(title=Text(f"Request {printable(request_id)}"), title_justify="left")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("service", no_wrap=True)
    table.add_column("event", overflow="fold")
    table.add_column("facts", overflow="fold")
    for line in lines:
        fields = line.fields
        service = "@".join(str(fields[key]) for key in ("service", "host") if fields.get(key))
        facts = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if key not in _OWN)
        time = "" if line.time == NEVER else line.time.isoformat(timespec="milliseconds")[11:23]
        # As Text: what stands in a log is shown, and never taken for markup.
        cells = (time, service, str(fields.get("event", "")), facts)
        table.add_row(*(Text(printable(cell)) for cell in cells), style=_COLOURS.get(str(fields.get("level"))))
    return table


def _short(value: Any) -> str:
    """The last line of a trace back: it says what went wrong. `--json` has all of it."""
    lines = str(value).strip().splitlines()
    return lines[-1] if lines else ""
