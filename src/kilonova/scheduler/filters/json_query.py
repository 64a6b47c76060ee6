"""Queries that users write about hosts."""

import json
import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilonova.scheduler.hints import hint
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, HostView, Mask, RequestSpec, Shortfall

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}

_DEEPEST = 50
"""Levels that a query may have."""


class Unreadable(Exception):
    """The query is no query."""


@dataclass(frozen=True)
class JsonFilter:
    """Hint ``query``: pass hosts for which a JSON query is true.

    ``["and", [">=", "$free_ram_mb", 1024], ["not", ["in", "$host", "a", "b"]]]`` – operators ``= < > <= >= in not
    or and``; ``$name`` is a host's attribute, ``$name.key`` a key in it. An argument that a host does not have is
    left out; a comparison with fewer than two left is false. A query that cannot be read passes no host.
    """

    name: str = "JsonFilter"
    reads: Group = Group.EVERYTHING

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        query = hint(spec, "query")
        return str(query) if query else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        given = hint(spec, "query")
        if not given:
            return hosts.everywhere(True)
        mask = hosts.everywhere(False)
        try:
            query = _read(given)
            for row in np.flatnonzero(hosts.alive):
                mask[row] = _is_true(_ask(query, HostView(hosts, int(row))))
        except Unreadable:
            return hosts.everywhere(False)
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        try:
            _ask(_read(hint(spec, "query")), HostView(hosts, int(np.flatnonzero(among)[0])))
        except Unreadable as error:
            return Shortfall("meets the hint query", f"the query cannot be read: {error}")
        return Shortfall("meets the hint query")


def _read(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON") from None


def _is_true(result: Any) -> bool:
    return any(result) if isinstance(result, list) else bool(result)


def _ask(query: Any, host: HostView, depth: int = 0) -> Any:
    """What a query (a list: operator and arguments) says of one host."""
    if depth > _DEEPEST:
        raise Unreadable(f"it is nested more than {_DEEPEST} deep")
    if not query:
        return True
    if not isinstance(query, list):
        raise Unreadable("each part must be a list")
    command, arguments = query[0], []
    for argument in query[1:]:
        value = _is_true(_ask(argument, host, depth + 1)) if isinstance(argument, list) else _value(argument, host)
        if value is not None:
            arguments.append(value)
    if command == "and":
        return all(arguments)
    if command == "or":
        return any(arguments)
    if command == "not":
        return [not argument for argument in arguments]
    if command == "in":
        return len(arguments) > 1 and arguments[0] in arguments[1:]
    if isinstance(command, str) and command in _COMPARE:
        return len(arguments) > 1 and all(_compare(command, arguments[0], other) for other in arguments[1:])
    raise Unreadable(f"'{command}' is no operator")


def _compare(command: str, left: Any, right: Any) -> bool:
    try:
        return bool(_COMPARE[command](left, right))
    except TypeError:
        return False  # a number and a text


def _value(argument: Any, host: HostView) -> Any:
    if not isinstance(argument, str) or not argument.startswith("$"):
        return argument if argument != "" else None
    first, *keys = argument[1:].split(".")
    value = None if first.startswith("_") else getattr(host, first, None)
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
