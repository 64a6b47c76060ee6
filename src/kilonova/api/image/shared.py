"""What the resources of the Image API have in common: ids, times, numbers and booleans in queries."""

from collections.abc import Mapping
from datetime import UTC, datetime

from kilonova.api.http.json_text import shown
from kilonova.api.http.schema import Uuid
from kilonova.model.errors import BadRequest

ImageId = Uuid
"""In a path, anything else is not found."""

_BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "t", "true", "on", "y", "yes"), True),
    **dict.fromkeys(("0", "f", "false", "off", "n", "no"), False),
}


def timestamp(at: datetime) -> str:
    """``2026-01-31T09:00:00Z``."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def bad_query(name: str, text: str, what: str) -> BadRequest:
    """The error for a parameter that cannot be read."""
    return BadRequest(f"Invalid input for query parameters {name}: {shown(text)} is not {what}.")


def boolean(name: str, text: str | None) -> bool | None:
    """A boolean in any of the usual spellings.

    Raises:
        BadRequest
    """
    if text is None:
        return None
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise bad_query(name, text, "a boolean")
    return value


def whole(name: str, text: str | None) -> int | None:
    """A whole number of 0 or more.

    Raises:
        BadRequest
    """
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_query(name, text, "a whole number of 0 or more")
    return int(text)


def moment(name: str, text: str) -> datetime:
    """A time in ISO 8601; without a zone it is UTC.

    Raises:
        BadRequest
    """
    try:
        at = datetime.fromisoformat(text.strip().replace(" ", "+"))  # an unescaped + arrives as a space
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise bad_query(name, text, "a time in ISO 8601") from None
