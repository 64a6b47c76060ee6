"""``kilonova explain --what-if``: where servers would go, and how many, asked of a running cloud."""

import argparse
import asyncio
import sys
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kilonova.cli.rest import Rest, RestError, credentials

WORDS = {
    "flavor": "flavorRef",
    "image": "imageRef",
    "zone": "availability_zone",
    "host": "host",
    "project": "project_id",
    "most": "most",
}
"""What can be said, and its name in the API. Besides: ``hint=NAME:VALUE``, any number of times."""


class WhatIfError(Exception):
    """The question cannot be asked so; the message says how."""


def question_of(text: str) -> dict[str, Any]:
    """The API's question from ``flavor=m1.small,zone=az1,hint=group:ID``.

    Raises:
        WhatIfError
    """
    question: dict[str, Any] = {}
    hints: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        word, equals, value = part.partition("=")
        if word == "hint" and ":" in value:
            name, _, what = value.partition(":")
            hints[name] = [*hints[name], what] if isinstance(hints.get(name), list) else what
        elif word in WORDS and equals and value:
            question[WORDS[word]] = value
        else:
            raise WhatIfError(f"'{part}': give {', '.join(f'{name}=...' for name in WORDS)}, or hint=NAME:VALUE.")
    if "flavorRef" not in question:
        raise WhatIfError("Say at least which flavor: --what-if flavor=NAME.")
    if "most" in question:
        if not question["most"].isdecimal():
            raise WhatIfError(f"most={question['most']}: give a number from 1 to 1000.")
        question["most"] = int(question["most"])
    return {**question, "scheduler_hints": hints} if hints else question


def run(args: argparse.Namespace) -> int:
    """Ask and print; 1 if no host would take one, 2 if the question cannot be answered."""
    file = args.state / "clouds.yaml"
    try:
        question = question_of(args.what_if)
        if not file.exists():
            raise WhatIfError(f"There is no {file}: is a cloud running with --state {args.state}?")
        found = asyncio.run(_ask(credentials(file), question))
    except (WhatIfError, RestError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(msgspec.json.encode(found).decode())
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 140
        console.print(render(found))
    return 0 if found["fits"] else 1


async def _ask(auth: dict[str, str], question: dict[str, Any]) -> dict[str, Any]:
    async with await Rest.login(auth) as rest:
        question["flavorRef"] = await _id_of(rest, "compute", "/flavors", "flavors", question["flavorRef"])
        if "imageRef" in question:
            question["imageRef"] = await _id_of(rest, "image", "/images", "images", question["imageRef"])
        answer = await rest.ask("compute", "POST", "/kilonova-what-if", json={"what_if": question})
        found: dict[str, Any] = answer["what_if"]
        return found


async def _id_of(rest: Rest, service: str, path: str, key: str, name: str) -> str:
    """The id of what is called `name`; `name` itself, for it may be an id."""
    found = await rest.find(service, path, key, name)
    return str(found["id"]) if found else name


def render(found: dict[str, Any]) -> RenderableType:
    """The answer for people."""
    if not found["fits"]:
        return Text(f"No valid host. {found['explanation']['missing']}", style="red")
    at_least = "" if found["is_all"] else "at least "
    head = Text.assemble(
        "The next one would go to ", (found["host"], "bold green"), f"; {at_least}{found['fits']} fit."
    )
    table = Table(title="How many would go where", title_justify="left")
    table.add_column("host", no_wrap=True)
    table.add_column("servers", justify="right")
    hosts = sorted(found["hosts"].items(), key=lambda item: (-item[1], item[0]))
    for host, count in hosts[:20]:
        table.add_row(Text(host), str(count))
    if len(hosts) > 20:
        table.add_row(f"and {len(hosts) - 20} more hosts", str(sum(count for _, count in hosts[20:])))
    parts: list[RenderableType] = [head, table]
    if found["missing_for_more"]:
        parts.append(Text(f"For one more: {found['missing_for_more']}"))
    return Group(*parts)
