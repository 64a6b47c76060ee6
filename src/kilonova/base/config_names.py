"""Names in configuration files and in the environment that no option has, each with the nearest that one has.

oslo.config passes over what nobody registered, so a slip of the pen would leave a default in force unnoticed.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import iniparser

Known = Mapping[str, set[str]]
"""Section to the names of its options."""

LIKENESS: Final = 0.5
"""How alike two names must be (0 to 1) for one to be offered instead of the other."""


@dataclass(frozen=True)
class Given:
    """One option, as somebody set it; never its value."""

    where: str
    section: str
    option: str


@dataclass(frozen=True)
class Unknown:
    """An option or section that nobody reads."""

    given: Given
    no_section: bool
    advice: str

    def __str__(self) -> str:
        given = self.given
        if self.no_section:
            return f"{given.where}: there is no section [{given.section}]"
        return f"{given.where}: [{given.section}] has no option '{given.option}'"


class _Reader(iniparser.BaseParser):
    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._section = "DEFAULT"
        self.seen: list[Given] = []

    def new_section(self, section: str) -> None:
        self._section = "DEFAULT" if section.upper() == "DEFAULT" else section.lower()

    def assignment(self, key: str, value: list[str]) -> None:
        self.seen.append(Given(self._where, self._section, key))


def in_file(file: Path) -> list[Given]:
    """What one file sets.

    Raises:
        ValueError: the file cannot be read, or is no INI file; the message says where.
    """
    reader = _Reader(str(file))
    try:
        with file.expanduser().open(encoding="utf-8") as lines:
            reader.parse(lines)
    except (OSError, UnicodeDecodeError, iniparser.ParseError) as error:
        raise ValueError(f"{file}: {error}") from None
    return reader.seen


def in_environment(known: Known, environment: Mapping[str, str] = os.environ) -> Iterator[Given]:
    """What variables named ``OS_<SECTION>__<OPTION>`` set. Those of sections that we lack may be another program's."""
    for name in sorted(environment):
        section, two, option = name.removeprefix("OS_").partition("__")
        section = section if section == "DEFAULT" else section.lower()
        if name.startswith("OS_") and two and section in known:
            yield Given(f"environment variable {name}", section, option.lower())


def unknown(given: Sequence[Given], known: Known) -> list[Unknown]:
    """Those of `given` that are in no option class."""
    found = []
    for one in given:
        if one.section not in known:
            found.append(Unknown(one, True, _advice(one, known)))
        elif one.option not in known[one.section]:
            found.append(Unknown(one, False, _advice(one, known)))
    return found


def _advice(given: Given, known: Known) -> str:
    elsewhere = sorted(section for section, options in known.items() if given.option in options)
    near_section = _nearest(given.section, known)
    if given.section not in known and near_section:
        return f"Did you mean [{near_section}]?"
    if elsewhere:
        return f"It belongs into [{elsewhere[0]}]."
    if near := _nearest(given.option, known.get(given.section, ())):
        return f"Did you mean '{near}'?"
    everywhere = {option: section for section in sorted(known, reverse=True) for option in known[section]}
    if near := _nearest(given.option, everywhere):
        return f"Did you mean '{near}' of [{everywhere[near]}]?"
    return "Remove it; docs/configuration.md has all there are."


def _nearest(name: str, names: Mapping[str, object] | set[str] | tuple[()]) -> str:
    """The most alike of `names`, or nothing."""
    lowered = {candidate.lower(): candidate for candidate in sorted(names)}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=LIKENESS)
    return lowered[found[0]] if found else ""
