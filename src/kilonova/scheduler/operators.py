"""The small language of requirements in extra specs: ``>= 4``, ``s== x86_64``, ``<in> aes``, ``<or> a <or> b``.

A requirement without an operator is compared as text. Numbers that cannot be read match nothing.
"""

import ast
import operator
from collections.abc import Callable

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,  # historic: "as many as"
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}

_OPERATORS = frozenset({*_NUMBERS, *_TEXTS, "<in>", "<all-in>", "<or>"})


def matches(value: str | None, requirement: str) -> bool:
    """Whether `value` (of a host or an aggregate) is as `requirement` (of a flavor) says."""
    words = requirement.split()
    if not words:
        return value == requirement
    name, operands = words[0], words[1:]
    if name not in _OPERATORS:
        return value == requirement
    if value is None or not operands:
        return False
    if name in _NUMBERS:
        try:
            return _NUMBERS[name](float(value), float(operands[0]))
        except ValueError:
            return False
    if name in _TEXTS:
        return _TEXTS[name](value, operands[0])
    if name == "<in>":
        return operands[0] in value
    if name == "<all-in>":
        items = _items(value)
        return all(operand in items for operand in operands)
    return value in operands[::2]  # a <or> b <or> c


def fault_of(requirement: str) -> str:
    """Why a requirement can match nothing at all, in words; empty if it can be read."""
    words = requirement.split()
    if not words or words[0] not in _OPERATORS:
        return ""
    if len(words) == 1:
        return f"'{words[0]}' compares with nothing"
    if words[0] in _NUMBERS:
        try:
            float(words[1])
        except ValueError:
            return f"'{words[1]}' is no number"
    return ""


def _items(value: str) -> list[object] | str:
    """A value that is a written list or set is looked into; any other is searched as text."""
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return list(read) if isinstance(read, list | tuple | set | frozenset | dict) else value
