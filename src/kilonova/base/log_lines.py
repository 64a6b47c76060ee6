"""A log event as text: one line of JSON for machines, or one for people at a terminal. Never raises."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from kilonova.base.masking import mask_urls, masked

_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS

_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}

_HEAD: Final = ("time", "level", "service", "host", "event")


def as_json(event: Mapping[str, Any]) -> bytes:
    """One object and a line's end."""
    try:
        return orjson.dumps(event, default=_plain, option=_OPTIONS) + b"\n"
    except (TypeError, ValueError, RecursionError):
        pass  # numbers over 64 bits, text that is no Unicode
    try:
        return json.dumps({str(key): value for key, value in event.items()}, default=_plain).encode() + b"\n"
    except (TypeError, ValueError, RecursionError):
        return json.dumps({key: _text(value) for key, value in event.items() if isinstance(key, str)}).encode() + b"\n"


def as_text(event: Mapping[str, Any], *, colour: bool) -> bytes:
    """``12:30:05.123 warning  conductor@host  event  key=value``; what is not printable is escaped."""
    level = str(event.get("level", ""))
    who = "@".join(str(event[key]) for key in ("service", "host") if event.get(key))
    facts = " ".join(
        f"{key}={printable(_text(value))}" for key, value in event.items() if key not in (*_HEAD, "module", "exception")
    )
    shown = f"{level:<8}"
    if colour:
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
    line = f"{str(event.get('time', ''))[11:23]} {shown} {printable(who)}  {printable(_text(event.get('event')))}  "
    line = f"{line}{facts}".rstrip()
    for more in str(event.get("exception") or "").splitlines():
        line += f"\n    {printable(more)}"
    return f"{line}\n".encode(errors="backslashreplace")


def _plain(value: Any) -> Any:
    """What the JSON library does not know, as something that it does; secrets in its fields are masked."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return masked("", {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)})
    names = getattr(value, "__struct_fields__", None)
    if isinstance(names, tuple) and not isinstance(value, type):
        return masked("", {name: getattr(value, name, None) for name in names})
    return mask_urls(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # a log line is not the place to find out
        return f"<{type(value).__name__}>"


def printable(text: str) -> str:
    """`text` without anything that could steer a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]
