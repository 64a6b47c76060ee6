"""``kilonova simulate``: a whole cloud in one event loop, where everything goes wrong that can, from a seed."""

import argparse
import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kilonova.sim.plan import Plan, Result

_DESCRIPTION = """\
Run a whole cloud (its real code: API use cases, conductors, schedulers, agents, tasks, RPC, database) in one event
loop on a virtual clock. Users create, stop, start, reboot, rebuild and delete servers, while services are killed at any
await and started again, messages and commit answers are lost, doubled and late, the broker dies, drivers of guests and
networks fail and hang, hosts lose power or die, and clocks disagree. Then there is peace, and all must come to rest and
agree: nothing stuck, leaked, doubled or lost. Small clouds are checked after every transaction.

The same seed is the same run, event for event: equal seeds print equal history hashes. A run that breaks a rule is made
shorter by itself, and the command that replays the short one is told.
"""

SHOWN = 50
"""Broken rules that are told one by one; their number counts all."""

_EPILOG = """\
examples:
  kilonova simulate --hosts 4 --servers 8 --seed 7              one small cloud; what happened to it
  kilonova simulate --hosts 4 --servers 8 --seed 7 --verbose    the same, event by event
  kilonova simulate --hosts 100 --servers 500 --seeds 1-200 --jobs 2 --json
  kilonova simulate --faults kill,messages --seed 7             only these go wrong
  kilonova simulate --faults all --without 12,40- --seed 7      all but the 12th fault and those from the 40th on

Exit status: 0 all is as promised, 1 a rule was broken, 2 the question was wrong.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="kill, lose and delay everything in a simulated cloud, and see that nothing is stuck, leaked or doubled",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hosts", type=_positive, default=4, metavar="N", help="compute hosts (default: %(default)s)")
    parser.add_argument(
        "--servers", type=_positive, default=8, metavar="N", help="servers that users ask for (default: %(default)s)"
    )
    parser.add_argument(
        "--faults",
        default="all",
        metavar="LIST",
        help="all, none, or names with commas: groups (kill, pauses, messages, database, driver, hosts, clocks, users) "
        "or single kinds such as kill.conductor; a wrong name lists them (default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, default=1, metavar="S", help="which run (default: %(default)s)")
    which.add_argument("--seeds", metavar="A-B", help="all these runs; JSON is then their sums")
    parser.add_argument("--without", default="", metavar="LIST", help="faults that do not happen, by number: 3,7-9,41-")
    parser.add_argument("--conductors", type=_positive, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--schedulers", type=_positive, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--apis", type=_positive, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--hardware",
        choices=("plain", "fine"),
        default="plain",
        help="fine: NUMA cells, CPUs of one's own, huge pages and PCI devices, and flavors that ask for them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--span",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="simulated seconds of requests and faults, before the peace (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--verbose", action="store_true", help="print the history, to standard error")
    parser.add_argument(
        "--shrink",
        type=int,
        default=150,
        metavar="N",
        help="runs to try for making a failing one shorter; 0: leave it as it is (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number from 1")
    return number


def run(args: argparse.Namespace) -> int:
    """Simulate; 1 if a rule was broken."""
    from kilonova.sim.faults import LeftOut, kinds_of
    from kilonova.sim.plan import Plan

    try:
        seeds = _seeds(args.seeds) if args.seeds else [args.seed]
        plans = [
            Plan(
                seed=seed,
                hosts=args.hosts,
                servers=args.servers,
                faults=kinds_of(args.faults.split(",")),
                conductors=args.conductors,
                schedulers=args.schedulers,
                apis=args.apis,
                span_s=args.span,
                hardware=args.hardware,
                left_out=LeftOut.parse(args.without),
            )
            for seed in seeds
        ]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if args.verbose and len(plans) > 1:
        print("--verbose is for one seed: give --seed.", file=sys.stderr)
        return 2
    results, wall_s = _run(plans, args)
    failed = [result for result in results if result.violations]
    told = _told(args, results, wall_s)
    if failed and args.shrink > 0:
        first = min(failed, key=lambda result: result.seed)
        told["shrunk"] = _shrink(first, next(plan for plan in plans if plan.seed == first.seed), args.shrink)
    if args.json:
        print(json.dumps(told))
    else:
        _print(told)
    return int(bool(failed))


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        seeds = []
    if not seeds:
        raise ValueError(f"--seeds {text}: give two numbers, such as 1-200.")
    return seeds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(plans: "list[Plan]", args: argparse.Namespace) -> "tuple[list[Result], float]":
    from kilonova.sim.campaign import run_all
    from kilonova.sim.simulation import Simulation

    started = time.perf_counter()
    results: list[Result] = []
    if args.verbose:
        results.append(Simulation(plans[0], show=_say).run())
    else:
        for result in run_all(plans, jobs=args.jobs):
            results.append(result)
            verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "all well"
            _say(
                f"[{len(results)}/{len(plans)}] seed {result.seed}: {verdict}, {result.kills} kills, "
                f"{result.events} events, {result.simulated_s:.0f} s simulated in {result.wall_s:.1f} s"
            )
    results.sort(key=lambda result: result.seed)
    return results, time.perf_counter() - started


def _told(args: argparse.Namespace, results: "list[Result]", wall_s: float) -> dict[str, Any]:
    if len(results) == 1:
        return _counted(dataclasses.asdict(results[0]))
    from kilonova.sim.campaign import together

    told = {"seeds": args.seeds, "hosts": args.hosts, "servers": args.servers, "runs": len(results)}
    told["failed_seeds"] = [result.seed for result in results if result.violations]
    told |= together(results)
    told["longest_run_s"] = max(result.wall_s for result in results)
    told["wall_s"] = round(wall_s, 3)
    told["history_hashes"] = {str(result.seed): result.history_hash for result in results}
    return _counted(told)


def _counted(told: dict[str, Any]) -> dict[str, Any]:
    """`violations` as a number, like what stands beside it; what the first of them were, as `broken_rules`."""
    broken = told["violations"]
    return told | {"violations": len(broken), "broken_rules": broken[:SHOWN]}


def _shrink(failing: "Result", plan: "Plan", most: int) -> dict[str, Any]:
    from kilonova.sim.campaign import run_plan, run_until_broken
    from kilonova.sim.shrink import shrink

    _say(f"seed {plan.seed} breaks a rule; looking for a shorter history, in {most} runs at most")
    best, _ = shrink(failing, plan, run_until_broken, most=most, say=_say)
    result = run_plan(best)  # to its end, as the command does
    _say(f"replay with: {best.command()} --verbose")
    return {
        "command": best.command(),
        "events": result.events,
        "faults": sum(result.struck.values()),
        "servers": best.servers,
        "hosts": best.hosts,
        "broken_rules": result.violations[:SHOWN],
        "history_hash": result.history_hash,
    }


def _print(told: dict[str, Any]) -> None:
    shown = {name: value for name, value in told.items() if name not in ("broken_rules", "shrunk", "history_hashes")}
    width = max(map(len, shown))
    for name, value in shown.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print(f"{name.ljust(width)}  {value}")
    for text in told["broken_rules"]:
        print(f"VIOLATION  {text}")
    if "shrunk" in told:
        print(f"shorter    {told['shrunk']['events']} events: {told['shrunk']['command']} --verbose")
    print("A rule was broken." if told["violations"] else "All is as promised.")
