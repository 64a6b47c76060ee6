"""Which versions fit."""

import pytest

from kilonova.rpc.versions import parse, satisfies


@pytest.mark.parametrize(
    ("asked", "offered", "fits"),
    [
        ("1.0", "1.0", True),
        ("1.9", "1.10", True),
        ("1.10", "1.9", False),
        ("1.0", "2.0", False),
        ("2.0", "1.9", False),
        ("2.19", "2.37", True),
        ("1", "1.0", False),
        ("x", "1.0", False),
        ("1.0.0", "1.0", False),
    ],
)
def test_minor_versions_only_add(asked: str, offered: str, fits: bool) -> None:
    assert satisfies(asked, offered) is fits


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.a", "1.-1", " 1.0", "1.0 "])
def test_what_is_no_version_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        parse(text)
