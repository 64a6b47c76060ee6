#!/usr/bin/env python3
"""Say what runs of `kilonova simulate` killed services in the middle of, all together, and whether it was enough.

A kill counts for each kind of task that was in the hands of the service that died, or under way on the host that did;
one while nothing was under way does not count. Fails if a rule was broken, if there were fewer such kill points than
asked for, or none of a kind that is asked for. Of fewer runs than make a whole soak no number is asked: too few kill
points are only remarked on.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

KINDS = ("boot", "delete", "rebuild", "reboot", "stop", "start")
SHOWN = ("runs", "kills", "stuck", "leaked", "doubled", "violations", "wall_s")


def lacking(points: Counter[str], least: int) -> list[str]:
    """What there was too little of; empty if there was enough of all."""
    found = [f"no service was killed in the middle of a {kind}" for kind in KINDS if not points[kind]]
    total = sum(points[kind] for kind in KINDS)
    if total < least:
        found.append(f"{total:,} kill points, and {least:,} are asked for")
    return found


def main() -> int:
    """Read, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog="Exit status 1 if it fails."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what kilonova simulate --json printed")
    parser.add_argument(
        "--least", type=int, default=10_000, metavar="N", help="kill points asked for (default: %(default)s)"
    )
    parser.add_argument(
        "--whole", type=int, default=0, metavar="RUNS", help="runs of a whole soak (default: %(default)s, so any is)"
    )
    args = parser.parse_args()
    points: Counter[str] = Counter()
    runs = broken = 0
    for file in args.files:
        told = json.loads(file.read_text())
        told.setdefault("runs", 1)
        of_kinds = {kind: told["kill_points"].get(f"server.{kind}", 0) for kind in KINDS}
        points.update(of_kinds)
        runs += told["runs"]
        broken += told["violations"]
        print(f"{file.stem}: {', '.join(f'{name} {told[name]}' for name in SHOWN)}")
        print(f"    killed in the middle of: {', '.join(f'{kind} {count}' for kind, count in of_kinds.items())}")
    total = sum(points.values())
    print(f"together: {total:,} kill points in {runs} runs: {', '.join(f'{k} {points[k]:,}' for k in KINDS)}")
    if broken:
        print(f"FAILED: {broken} violations")
    is_whole = runs >= args.whole
    for what in (found := lacking(points, args.least)):
        print(f"FAILED: {what}" if is_whole else f"remark: {what}, of a whole soak of {args.whole} runs")
    return int(broken > 0 or (is_whole and bool(found)))


if __name__ == "__main__":
    sys.exit(main())
