"""What several resources of the Compute API have in common: links, times, booleans in queries."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from kilonova.api.http.routing import Request
from kilonova.model.errors import BadRequest

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^(?!\s)[^\x00-\x1f\x7f]*(?<!\s)$")]
Text = Annotated[str, Meta(max_length=255)]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-_:. ]{1,255}$")]
MetadataValue = Annotated[str, Meta(max_length=255)]
ServerId = Annotated[str, Meta(max_length=64)]


def links(req: Request, *path: str) -> list[dict[str, str]]:
    """``self`` and ``bookmark`` of a resource; the bookmark has no version in it."""
    url = req.url(*path)
    return [{"rel": "self", "href": url}, {"rel": "bookmark", "href": url.replace("/v2.1/", "/", 1)}]


def timestamp(at: datetime | None) -> str | None:
    """``2026-01-31T09:00:00Z``."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp_us(at: datetime | None) -> str | None:
    """``2026-01-31T09:00:00.000000``, as newer resources have it."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def moment(name: str, text: str | None) -> datetime | None:
    """A time from a query, in ISO 8601; without a zone it is UTC.

    Raises:
        BadRequest
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Invalid input for query parameters {name}: '{text}' is not an ISO 8601 time.") from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def boolean(name: str, text: str | None) -> bool | None:
    """A boolean from a query in any of the usual spellings.

    Raises:
        BadRequest
    """
    if text is None:
        return None
    plain = text.strip().lower()
    if plain in _TRUE:
        return True
    if plain in _FALSE:
        return False
    raise BadRequest(f"Invalid input for query parameters {name}: '{text}' is not a boolean.")


def whole(name: str, text: str | None, *, default: int = 0) -> int:
    """A whole number, 0 or greater, from a query.

    Raises:
        BadRequest
    """
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest(f"Invalid input for query parameters {name}: '{text}' is not a whole number.")
    return int(text)
