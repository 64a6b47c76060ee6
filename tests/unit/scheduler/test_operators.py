"""Requirements in extra specs: each operator, and what cannot be read."""

import pytest

from kilonova.scheduler.operators import fault_of, matches


@pytest.mark.parametrize(
    ("value", "requirement", "is_met"),
    [
        # no operator: as text, the whole of it
        ("fast", "fast", True),
        ("fast", "faster", False),
        ("4", "4.0", False),
        ("two words", "two words", True),
        ("", "", True),
        ("x", "", False),
        # numbers; "=" is "at least", as it always was
        ("4", "= 4", True),
        ("5", "= 4", True),
        ("3", "= 4", False),
        ("4", "== 4.0", True),
        ("5", "== 4", False),
        ("5", "!= 4", True),
        ("4", "!= 4", False),
        ("10", ">= 9", True),
        ("8", ">= 9", False),
        ("8", "<= 9", True),
        ("10", "<= 9", False),
        ("many", ">= 9", False),
        ("many", "!= 9", False),
        ("9", ">= many", False),
        ("9", ">=", False),
        # texts
        ("abc", "s== abc", True),
        ("abc", "s== abd", False),
        ("abc", "s!= abd", True),
        ("abc", "s!= abc", False),
        ("10", "s< 9", True),
        ("9", "s< 10", False),
        ("abc", "s<= abc", True),
        ("abd", "s<= abc", False),
        ("abd", "s> abc", True),
        ("abc", "s> abc", False),
        ("abc", "s>= abc", True),
        ("abb", "s>= abc", False),
        # parts and alternatives
        ("avx aes sse", "<in> aes", True),
        ("avx sse", "<in> aes", False),
        ("['aes', 'avx']", "<in> avx", True),
        ("['aes', 'avx', 'sse']", "<all-in> aes sse", True),
        ("['aes', 'avx']", "<all-in> aes sse", False),
        ("['aes-ni']", "<all-in> aes", False),
        ("aes avx", "<all-in> aes avx", True),
        ("b", "<or> a <or> b <or> c", True),
        ("d", "<or> a <or> b <or> c", False),
        ("<or>", "<or> a <or> b", False),
        ("a", "<or>", False),
        (None, ">= 1", False),
        (None, "x", False),
        # what only looks like an operator
        ("> 4", "> 4", True),
        ("5", "> 4", False),
    ],
)
def test_each_operator(value: str | None, requirement: str, is_met: bool) -> None:
    assert matches(value, requirement) is is_met


@pytest.mark.parametrize(
    ("requirement", "fault"),
    [
        (">= many", "'many' is no number"),
        ("= ", "'=' compares with nothing"),
        ("<in>", "'<in>' compares with nothing"),
        ("<or>", "'<or>' compares with nothing"),
        ("s==", "'s==' compares with nothing"),
        (">= 4", ""),
        ("s== many", ""),
        ("<or> a <or> b", ""),
        ("plain", ""),
        ("", ""),
    ],
)
def test_what_can_match_nothing_is_told(requirement: str, fault: str) -> None:
    assert fault_of(requirement) == fault
