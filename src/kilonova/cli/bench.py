"""``kilonova bench``: what this machine carries."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure what this machine carries",
        description="Measure parts of Kilonova on this machine, without a running cloud. 'scheduler': decisions a "
        "second, their times, CPU time and memory, on made-up hosts with a mixed stream of requests.",
    )
    parser.add_argument("what", choices=("scheduler",))
    parser.add_argument(
        "--hosts", default="100,1000,10000,100000", metavar="N[,N...]", help="numbers of hosts (default: %(default)s)"
    )
    parser.add_argument(
        "--filters",
        choices=("classic", "default", "few"),
        default="classic",
        help="all filters of the classic system, those enabled by default, or the five that every cloud needs",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of hosts (default: %(default)s)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON instead of the table, or besides it in FILE"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print; JSON is one object for one number of hosts, else a list."""
    from kilonova.sim.scheduler_bench import FILTER_SETS, measure  # numpy and the rest: help should not wait for it

    try:
        counts = [int(count) for count in args.hosts.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or max(counts) > 1_000_000:
        print(f"--hosts {args.hosts}: give numbers from 1 to 1000000, with commas.")
        return 2
    results = [measure(count, FILTER_SETS[args.filters], args.seconds) for count in counts]
    if args.json:
        text = json.dumps(results[0] if len(results) == 1 else results)
        if args.json == "-":
            print(text)
            return 0
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    _print(results)
    return 0


def _print(results: list[dict[str, Any]]) -> None:
    columns = list(results[0])
    widths = [max(len(column), *(len(str(row[column])) for row in results)) for column in columns]
    for row in ({column: column for column in columns}, *results):
        print("  ".join(str(row[column]).rjust(width) for column, width in zip(columns, widths, strict=True)))
