"""What must not be seen: which names are secrets, and passwords inside URLs.

A last line of defence for log lines, `/inspect` and messages, not a licence to hand secrets to them. Never raises.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

MASK: Final = "***"

DEPTH: Final = 8
"""Levels of lists and mappings that are looked into; what lies deeper is masked whole."""

_NUMBERS: Final = (int, float)
_NESTS: Final = (Mapping, list, tuple, set, frozenset)

# Looked for in names as joined letters: admin_pass, adminPass and X-Auth-Token are all found.
_ALWAYS: Final = re.compile(r"passw|adminpass|userpass|passphrase|secret|credential")
_TEXT: Final = re.compile(r"token|privatekey|authkey|accesskey|apikey|userdata|authorization|cookie")
"""Secret as text; as a number it is a count or a time, such as ``token_lifetime``."""

# The password runs to the last "@" before the path; only a raw "/" in it, which no URL may have, needs the second form.
_URL: Final = re.compile(r"(\b[a-zA-Z][\w+.-]*://[^\s:/@\"']*):(?:[^\s/\"']*|[^\s@\"']*)@")


@lru_cache(maxsize=4096)
def is_secret(name: str, *, number: bool = False) -> bool:
    """Whether a field or option of this name holds something that only its owner may know."""
    joined = re.sub(r"[^a-z]", "", name.lower())
    return _ALWAYS.search(joined) is not None or (not number and _TEXT.search(joined) is not None)


def mask_urls(text: str) -> str:
    """`text` without the passwords of the URLs in it."""
    return _URL.sub(rf"\1:{MASK}@", text) if "://" in text else text


def masked(name: str, value: Any, depth: int = DEPTH) -> Any:
    """`value` as it may be shown under `name`: secrets masked at every level. What is empty stays as it is."""
    # On the way of every log line: the commonest kinds come first.
    if isinstance(value, str):
        return MASK if value and is_secret(name) else mask_urls(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, _NUMBERS):
        return MASK if is_secret(name, number=True) else value
    if is_secret(name) or (depth == 0 and isinstance(value, _NESTS)):
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, _NESTS):
        return [masked("", inner, depth - 1) for inner in value]
    return value
