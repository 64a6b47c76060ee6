"""From the bytes of a request to plain JSON values, refusing what would hurt further in.

Stricter than the standard, because two readers of one body must never disagree about it and because
every value may end up in a database: no duplicate keys, no NUL in strings, no lone surrogates, no
numbers over 64 bits or outside the finite, no deep nesting.
"""

import json
import re
from typing import Any, Never

from kilonova.model.errors import BadRequest

MAX_DEPTH = 64
"""Objects and arrays within each other at most; the deepest body of any OpenStack API has about ten."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def parse(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        BadRequest: it is not JSON, or not of the sort that is taken here; the message says which.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The request body is not valid UTF-8 at byte {error.start}.") from None
    # Brackets in strings count here as well, so most bodies are settled by two quick counts.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"Malformed request body: it is not valid JSON at line {error.lineno} column {error.colno} ({error.msg})."
        ) from None
    if "\\u" in text:  # the only way in for NUL and lone surrogates: the decoder refuses raw control characters
        _check_strings(value, "")
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        bracket = token[0]
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(f"Malformed request body: it is nested more than {MAX_DEPTH} deep.")
        elif bracket in "]}":
            depth -= 1


def _check_strings(value: Any, at: str) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise BadRequest(f"Invalid input for field/attribute {at or 'body'}: it must not contain a NUL character.")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRequest(f"Invalid input for field/attribute {at or 'body'}: it contains half a surrogate pair.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_strings(key, f"{at}, in the name of a key" if at else "in the name of a key")
            _check_strings(inner, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_strings(inner, f"{at}[{index}]")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadRequest(f"Malformed request body: the key {shown(key)} stands twice in one object.")
            seen.add(key)
    return found


def _whole(text: str) -> int:
    # Python itself refuses to read thousands of digits, with an error that is no JSONDecodeError.
    if len(text) < 19:
        return int(text)
    if len(text) > 20 or not _INT_MIN <= (value := int(text)) <= _INT_MAX:
        raise BadRequest("Malformed request body: a number in it is too large.")
    return value


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadRequest("Malformed request body: a number in it is too large.")
    return value


def _constant(name: str) -> Never:
    raise BadRequest(f"Malformed request body: {name} is not a JSON value.")


def shown(text: str) -> str:
    """What a client sent, short and harmless enough to send back in a sentence."""
    short = text if len(text) <= 80 else text[:79] + "…"
    return "'" + short.encode("utf-8", "replace").decode().translate(_CONTROLS) + "'"


_CONTROLS = dict.fromkeys((*range(32), 127), "�")
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_constant)
