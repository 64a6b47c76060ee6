"""What all collections of Network v2.0 do alike: be listed as the query wants, and take one new thing or many."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import UNSET, Struct

from kilonova.api.http.paging import neutron_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.model.errors import BadRequest

Made = TypeVar("Made")

# ---- lists --------------------------------------------------------------------------------------------------

_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir", "fields", "page_reverse"})


def listed(req: Request, name: str, rows: list[dict[str, Any]]) -> Reply:
    """A collection as the query wants it: filtered (a repeated parameter is any of), sorted, paged, cut to fields."""
    wanted: dict[str, list[str]] = {}
    keys, directions, fields = [], [], set()
    limit = marker = None
    for key, value in req.params:
        if key == "limit":
            limit = value
        elif key == "marker":
            marker = value
        elif key == "sort_key":
            keys.append(value)
        elif key == "sort_dir":
            directions.append(value)
        elif key == "fields":
            fields.add(value)
        elif key not in _PAGING:
            wanted.setdefault("project_id" if key == "tenant_id" else key, []).append(value)
    found = [row for row in rows if all(_matches(row, key, values) for key, values in wanted.items())]
    for key, direction in reversed(list(zip(keys, directions + ["asc"] * len(keys), strict=False))):
        found.sort(key=lambda row, key=key: str(row.get(key, "")), reverse=direction == "desc")  # type: ignore[misc]
    if marker is not None:
        places = [index for index, row in enumerate(found) if row["id"] == marker]
        if not places:
            raise BadRequest(f"Invalid input for marker: {marker} is not in this list.")
        found = found[places[0] + 1 :]
    body: dict[str, Any] = {}
    if limit is not None:
        size = page_size(limit)
        found = found[:size]
        body[f"{name}_links"] = neutron_links(req, size, [row["id"] for row in found])
    if fields:
        found = [{key: value for key, value in row.items() if key in fields} for row in found]
    return Reply({name: found, **body})


def _matches(row: dict[str, Any], key: str, values: list[str]) -> bool:
    if key == "fixed_ips":
        pairs = [value.partition("=")[::2] for value in values]
        return all(any(fixed.get(k) == v for fixed in row["fixed_ips"]) for k, v in pairs)
    if key not in row:
        return True  # a filter of an extension that is not here: nothing to hold against the row
    have = row[key]
    if isinstance(have, bool):
        return any(have == (value.lower() in ("true", "1")) for value in values)
    return str(have) in values


# ---- new things ---------------------------------------------------------------------------------------------


async def create(
    req: Request,
    name: str,
    body: Struct,
    order: Callable[[Any], Callable[[], Awaitable[Made]]],
    view: Callable[[Made], dict[str, Any]],
) -> Reply:
    """Make what a body of ``POST`` asks for, one thing or many, and answer in kind.

    All are checked before the first is made. A request with an ``Idempotency-Key`` has its answer kept with
    the last one made, so a repeated one is answered alike.

    Args:
        name: what one thing is called in the body; many have an ``s`` more.
        order: from one thing's fields to the use case that makes it, which is not called yet.
        view: what a client is shown of it.

    Raises:
        BadRequest, and what `order` and the use case raise.
    """
    fields, many = _wanted(body, name)
    orders = [order(one) for one in fields]
    views: list[dict[str, Any]] = []

    def reply(shown: list[dict[str, Any]]) -> Reply:
        return Reply({f"{name}s": shown} if many else {name: shown[0]})

    def last(made: Made) -> Reply | None:
        return reply([*views, view(made)]) if len(views) + 1 == len(orders) else None

    req.answers_with(last)
    for make in orders:
        views.append(view(await make()))
    return reply(views)


def _wanted(body: Struct, name: str) -> tuple[list[Any], bool]:
    """The things that a body asks for, and whether it asked for many."""
    one, many = getattr(body, name), getattr(body, f"{name}s")
    if (many is UNSET) == (one is UNSET):
        raise BadRequest(f"The body needs either '{name}' or '{name}s'.")
    return ([one], False) if many is UNSET else (many, True)
