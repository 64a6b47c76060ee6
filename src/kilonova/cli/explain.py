"""``kilonova explain SERVER``: why a server landed where it did, or nowhere."""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kilonova.cli.rest import Rest, RestError, credentials
from kilonova.model.errors import Unavailable
from kilonova.model.request_spec import Explanation
from kilonova.model.server import Decision, Page, ServerFilter

LISTED = 6
"""Names of removed hosts shown for each filter."""

_STEPS = {"force_host": "forced by an administrator; filters are skipped"}


_ID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")

MOST_NAMED = 5
"""Servers of one name that a message lists."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "explain",
        help="show why a server landed where it did, or nowhere",
        description="Show the stored decisions of the scheduler for one server: the filters and how many hosts each "
        "left, the scores of the best hosts, the host chosen, and what was missing if there was none.",
    )
    parser.add_argument("server", metavar="SERVER", nargs="?", help="a server's id or name")
    parser.add_argument(
        "--what-if",
        metavar="flavor=NAME[,image=NAME][,zone=NAME][,host=NAME][,project=ID][,hint=NAME:VALUE][,most=N]",
        help="instead: where such a server would go now, and how many more would fit; claims nothing",
    )
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="state directory (default: var)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a decision")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the decisions; 1 if there are none, 2 if the question cannot be answered."""
    if args.what_if:
        from kilonova.cli import what_if

        return what_if.run(args)
    if args.server is None:
        print("Give a server's id or name, or --what-if flavor=NAME.", file=sys.stderr)
        return 2
    try:
        found = _decisions(args.state, args.server)
    except (RestError, FileNotFoundError, NoSuchServer) as error:
        print(error, file=sys.stderr)
        return 2
    except Unavailable as error:
        print(f"The database in {args.state} cannot be used: {error.message}", file=sys.stderr)
        return 2
    if not found:
        print(
            f"No decision about {args.server} is kept. It may not have been scheduled yet, or it is long ago.",
            file=sys.stderr,
        )
        return 1
    if args.json:
        for decision in found:
            print(msgspec.json.encode(decision).decode())
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(render_all(found))
    return 0


class NoSuchServer(Exception):
    """No server has that name, or several have; the message says which."""


def _the_one(name: str, ids: Sequence[str]) -> str:
    if not ids:
        raise NoSuchServer(f"There is no server '{name}'. A server that was deleted can be named by its id.")
    if len(ids) > 1:
        raise NoSuchServer(f"Several servers are called '{name}'; give the id of one: {', '.join(ids)}.")
    return ids[0]


def _decisions(state: Path, server: str) -> list[Decision]:
    """From the API; from the embedded database where the cloud does not run.

    Raises:
        RestError: the API says no.
        NoSuchServer
        Unavailable: the database is of no use.
        FileNotFoundError: there is neither.
    """
    clouds, database = state / "clouds.yaml", state / "kilonova.sqlite"
    if clouds.exists():
        try:
            return asyncio.run(_ask(credentials(clouds), server))
        except RestError as error:
            if error.status == 404:
                return []
            if not database.exists():
                raise
    if not database.exists():
        raise FileNotFoundError(f"There is no cloud in {state}: neither clouds.yaml nor a database. Check --state DIR.")
    # The store is heavy, and help must be quick: hence imported here.
    from kilonova.store import health
    from kilonova.store.engine import Store
    from kilonova.store.queries import decisions, servers

    url = f"sqlite:///{database}"
    found = health.look(url)
    if found.revision != found.newest:
        raise Unavailable(
            f"{database} is at revision {found.revision or '(empty)'}, this program needs {found.newest}. "
            f"Run: kilonova db upgrade --state {state}"
        )
    store = Store.open(url)
    if not _ID.fullmatch(server):
        named = store.run_now(servers.list_page, _called(server), Page(limit=MOST_NAMED))
        server = _the_one(server, [one.id for one in named])
    return store.run_now(decisions.of_server, server)


def _called(name: str) -> ServerFilter:
    return ServerFilter(name=f"^{re.escape(name)}$")


async def _ask(auth: dict[str, str], server_id: str) -> list[Decision]:
    async with await Rest.login(auth) as rest:
        if not _ID.fullmatch(server_id):
            query = urlencode({"all_tenants": 1, "name": _called(server_id).name, "limit": MOST_NAMED})
            named = await rest.ask("compute", "GET", f"/servers?{query}")
            server_id = _the_one(server_id, [one["id"] for one in named["servers"]])
        answer = await rest.ask("compute", "GET", f"/servers/{server_id}/kilonova-decisions")
        return [
            Decision(
                server_id=server_id,
                request_id=one["request_id"],
                attempt=one["attempt"],
                host=one["host"],
                explanation=one["explanation"],
                created_at=datetime.fromisoformat(one["created_at"]).replace(tzinfo=UTC),
            )
            for one in answer["decisions"]
        ]


def render_all(decisions: Sequence[Decision]) -> RenderableType:
    """Every decision about one server, oldest first."""
    return Group(*(render(decision) for decision in decisions))


def render(decision: Decision) -> RenderableType:
    """One decision: filters, scores, result."""
    explanation = msgspec.convert(decision.explanation, Explanation)
    head = Text.assemble(
        (f"Attempt {decision.attempt}", "bold"),
        f" at {decision.created_at:%Y-%m-%d %H:%M:%S} UTC, {decision.request_id}",
    )
    parts: list[RenderableType] = [head, _filters(explanation)]
    if explanation.scores:
        parts.append(_scores(explanation, decision.host))
    parts += [_result(decision, explanation), Text()]
    return Group(*parts)


def _filters(explanation: Explanation) -> Table:
    table = Table(title="Filters", title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column("left", justify="right")
    table.add_column("removed", justify="right")
    table.add_column("which", overflow="fold")
    before = 0
    for number, (name, left) in enumerate(explanation.filters):
        if number == 0:
            table.add_row("(all hosts)", str(left), "", "")
        else:
            gone = before - left
            which = Text(_names(explanation.removed.get(name, ()), gone) or _STEPS.get(name, ""))
            table.add_row(name, str(left), str(gone or ""), which)
        before = left
    return table


def _names(hosts: Sequence[str], count: int) -> str:
    listed = ", ".join(hosts[:LISTED])
    more = count - len(hosts[:LISTED])
    return f"{listed} and {more} more" if hosts and more > 0 else listed


def _scores(explanation: Explanation, claimed: str | None) -> Table:
    table = Table(title="Scores of the best (0 to 1, times multiplier)", title_justify="left")
    table.add_column("host", no_wrap=True)
    weighers = list(next(iter(explanation.scores.values())))
    for name in weighers:
        table.add_column(name.removesuffix("Weigher"), justify="right")
    table.add_column("total", justify="right", style="bold")
    for host, scores in explanation.scores.items():
        shown = [f"{scores.get(name, 0.0):.3f}" for name in weighers]
        table.add_row(host, *shown, f"{sum(scores.values()):.3f}", style="green" if host == claimed else None)
    return table


def _result(decision: Decision, explanation: Explanation) -> Text:
    if decision.host is None:
        return Text(f"No valid host. {explanation.missing}", style="red")
    text = Text.assemble("Placed on ", (decision.host, "bold green"))
    for host, what in explanation.races_lost.items():
        text.append(f"\nLost the race for {what} on {host}: somebody else took it in between.")
    return text
