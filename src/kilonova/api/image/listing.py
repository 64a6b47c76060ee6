"""The query of ``GET /images``: filters, order and page. Any other parameter is a property of the image's own."""

import csv
from collections.abc import Sequence
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import fields

from kilonova.api.http.json_text import shown
from kilonova.api.image.shared import bad_query, boolean, moment, whole
from kilonova.model.errors import BadRequest
from kilonova.model.image import Comparison, ImageFilter, MemberStatus, Visibility

_COLUMNS: Final = {
    "id": "id",
    "name": "name",
    "status": "status",
    "owner": "owner",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "checksum": "checksum",
    "os_hash_algo": "hash_algo",
    "os_hash_value": "hash_value",
}
_OPERATORS: Final = frozenset({"gt", "gte", "lt", "lte", "eq", "neq"})
_IN: Final = "in:"


class ImageListQuery(Struct, kw_only=True):
    """Query of ``GET /images``. ``name=in:a,b`` is any of several; ``created_at=gt:2026-01-01`` compares."""

    limit: str | None = None
    marker: str | None = None
    sort: str | None = None
    sort_key: list[str] = []
    sort_dir: list[str] = []
    id: str | None = None
    name: str | None = None
    status: str | None = None
    owner: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    visibility: str | None = None
    member_status: str | None = None
    protected: str | None = None
    os_hidden: str | None = None
    tag: list[str] = []
    size_min: str | None = None
    size_max: str | None = None
    min_disk: str | None = None
    min_ram: str | None = None
    created_at: list[str] = []
    updated_at: list[str] = []


_KNOWN: Final = frozenset(f.encode_name for f in fields(ImageListQuery))


def filter_of(query: ImageListQuery, params: Sequence[tuple[str, str]]) -> ImageFilter:
    """Which images are asked for.

    Raises:
        BadRequest: names the parameter.
    """
    equals = {
        column: _values(name, value) for name, column in _COLUMNS.items() if (value := getattr(query, name)) is not None
    }
    times = [_comparison(name, value) for name in ("created_at", "updated_at") for value in getattr(query, name)]
    answer = query.member_status
    return ImageFilter(
        equals=equals,
        visibility=None if query.visibility in (None, "all") else _word("visibility", query.visibility, Visibility),
        with_community=query.visibility == "all",
        member_status=None if answer == "all" else _word("member_status", answer or "accepted", MemberStatus),
        protected=boolean("protected", query.protected),
        hidden=boolean("os_hidden", query.os_hidden) or False,
        tags=tuple(query.tag),
        properties={name: value for name, value in params if name not in _KNOWN},
        size_min=whole("size_min", query.size_min),
        size_max=whole("size_max", query.size_max),
        min_disk=whole("min_disk", query.min_disk),
        min_ram=whole("min_ram", query.min_ram),
        times=tuple(times),
    )


def order_of(query: ImageListQuery) -> tuple[tuple[str, bool], ...]:
    """In which order, as keys with whether each descends; from ``sort``, or from ``sort_key`` and ``sort_dir``.

    Raises:
        BadRequest
    """
    if query.sort is not None:
        if query.sort_key or query.sort_dir:
            raise BadRequest("Old and new sorting syntax cannot be combined: use sort, or sort_key and sort_dir.")
        pairs = [part.strip().partition(":")[::2] for part in query.sort.split(",")]
        keys = [name for name, _ in pairs]
        directions = [direction or "desc" for _, direction in pairs]
    else:
        keys = list(query.sort_key) or (["created_at"] if query.sort_dir else [])
        directions = list(query.sort_dir) or ["desc"]
        if len(directions) == 1:
            directions *= len(keys)
    if len(directions) != len(keys):
        raise BadRequest("Number of sort dirs does not match the number of sort keys.")
    if len(set(keys)) != len(keys):
        raise BadRequest("Invalid input for query parameters sort_key: each key may be given only once.")
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise bad_query("sort_dir", direction, "one of asc, desc")
    return tuple((key, direction == "desc") for key, direction in zip(keys, directions, strict=True))


def _values(name: str, text: str) -> tuple[str, ...]:
    if not text.startswith(_IN):
        return (text,)
    try:
        [values] = csv.reader([text.removeprefix(_IN)], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise BadRequest(f"Invalid input for query parameters {name}: {shown(text)} is no list.") from None
    return tuple(values)


def _comparison(name: str, text: str) -> Comparison:
    operator, colon, rest = text.partition(":")
    if colon and operator in _OPERATORS:
        return Comparison(field=name, operator=operator, at=moment(name, rest))
    return Comparison(field=name, operator="eq", at=moment(name, text))


W = TypeVar("W", Visibility, MemberStatus)


def _word(name: str, text: str, words: type[W]) -> W:
    try:
        return words(text)
    except ValueError:
        raise bad_query(name, text, f"one of {', '.join(words)}, all") from None
