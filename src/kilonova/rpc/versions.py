"""Versions of conversations: ``major.minor``.

A service that offers 2.7 understands everything from 2.0 to 2.7, and nothing of another major version.
"""

from functools import lru_cache


@lru_cache(maxsize=1024)
def parse(version: str) -> tuple[int, int]:
    """``"2.10"`` as (2, 10).

    Raises:
        ValueError: it is not two numbers with a dot between.
    """
    major, dot, minor = version.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise ValueError(f"'{version}' is not a version such as '1.0'")
    return int(major), int(minor)


@lru_cache(maxsize=4096)
def satisfies(asked: str, offered: str) -> bool:
    """Whether a service that offers `offered` understands a message of version `asked`."""
    try:
        asked_major, asked_minor = parse(asked)
    except ValueError:
        return False
    offered_major, offered_minor = parse(offered)
    return asked_major == offered_major and asked_minor <= offered_minor
