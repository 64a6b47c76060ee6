"""Keyset paging: a page is `limit` rows after the row that `marker` names.

The three services say "there is more" in three ways: compute with ``<collection>_links``, network with the
same and a ``previous`` besides, image with paths under ``next`` and ``first``. The next page is offered when this one
is full; a client may find it empty.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from kilonova.api.http.json_text import shown
from kilonova.api.http.request import Request
from kilonova.model.errors import BadRequest

MAX_LIMIT = 1000


def page_size(limit: str | int | None, *, most: int = MAX_LIMIT, default: int | None = None) -> int:
    """How many rows to read: what the client asks for, but at most `most`; 0 or nothing is `default` or `most`.

    Raises:
        BadRequest: `limit` is not a whole number of 0 or more.
    """
    if isinstance(limit, str):
        if not limit.isascii() or not limit.isdigit() or len(limit) > 18:
            raise BadRequest(f"Invalid input for query parameters limit: {shown(limit)} is not a number of 0 or more.")
        limit = int(limit)
    if limit is not None and limit < 0:
        raise BadRequest(f"Invalid input for query parameters limit: {limit} is less than 0.")
    return min(limit or default or most, most)


def next_links(req: Request, limit: int, ids: Sequence[str]) -> list[dict[str, str]]:
    """Compute's ``<collection>_links``: one link to the next page, or none.

    Args:
        ids: what the rows of this page are called as markers, in order.
    """
    if not ids or len(ids) < limit:
        return []
    return [{"rel": "next", "href": f"{req.base_url}{_with_marker(req, req.path, ids[-1])}"}]


def neutron_links(req: Request, limit: int | None, ids: Sequence[str]) -> list[dict[str, str]]:
    """Network's ``<collection>_links``; empty unless the client asked for pages."""
    if limit is None:
        return []
    links = next_links(req, limit, ids)
    if ids and any(name == "marker" for name, _ in req.params):
        href = f"{req.base_url}{_with_marker(req, req.path, ids[0], ('page_reverse', 'True'))}"
        links.append({"rel": "previous", "href": href})
    return links


def glance_links(req: Request, limit: int, ids: Sequence[str]) -> dict[str, Any]:
    """Image's ``first`` and ``next``: paths below the service's own root (``/v2/images?…``)."""
    path = "/" + "/".join(req.path.strip("/").split("/")[1:])
    rest = [(name, value) for name, value in req.params if name != "marker"]
    found: dict[str, Any] = {"first": f"{path}?{urlencode(rest)}" if rest else path}
    if ids and len(ids) >= limit:
        found["next"] = _with_marker(req, path, ids[-1])
    return found


def _with_marker(req: Request, path: str, marker: str, *more: tuple[str, str]) -> str:
    dropped = {"marker", *(name for name, _ in more)}
    kept = [(name, value) for name, value in req.params if name not in dropped]
    return f"{path}?{urlencode([*kept, *more, ('marker', marker)])}"
