"""Fields that several resources of Network v2.0 have: how they are read, and how they are shown."""

from datetime import datetime
from ipaddress import IPv4Address
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct

from kilonova.model.errors import BadRequest

Text = Annotated[str, Meta(max_length=255)]
Project = Annotated[str, Meta(max_length=64)]


def stamp(at: datetime) -> str:
    """A time as Network v2.0 writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def given(body: Struct, columns: dict[str, str]) -> dict[str, Any]:
    """Columns that the body gives: `columns` maps a field to its column."""
    found = {column: getattr(body, name) for name, column in columns.items()}
    return {column: value for column, value in found.items() if value is not UNSET}


def owner_of(body: Any) -> str | None:
    """The project that a create body names."""
    for name in ("project_id", "tenant_id"):
        if isinstance(getattr(body, name), str):
            return str(getattr(body, name))
    return None


def address(name: str, text: str) -> str:
    """An IPv4 address, in the field called `name`.

    Raises:
        BadRequest
    """
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise BadRequest(f"Invalid input for {name}. Reason: '{text[:60]}' is not a valid IP address.") from None
