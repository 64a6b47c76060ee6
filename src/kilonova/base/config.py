"""Options: typed dataclasses, filled from INI files and the environment.

An option class is a frozen dataclass with a `section`; its fields have defaults, and a docstring below
each. Files have oslo.config's form, and so do environment variables (``OS_<SECTION>__<OPTION>``, as
``OS_LIBVIRT__VIRT_TYPE=qemu``). Nothing is global: `Config.get` hands out a filled instance.

What wins, the strongest first: the command line (`overrides`), the environment, files of the last directory down to
the first (in each, ``*.conf`` by name, later ones win), the last file down to the first, the default. Only files
that were named are read, never those that lie in a system's own places.
"""

import dataclasses
import types as python_types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

from oslo_config import cfg, types

from kilonova.base.config_names import Given, Known, Unknown, in_environment, in_file, unknown
from kilonova.base.masking import masked


class OptionClass(Protocol):
    """A dataclass of options."""

    section: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=OptionClass)
V = TypeVar("V")

_RELOADABLE = "reloadable"


class ConfigError(Exception):
    """A file or a value cannot be used; the message names it and says what would do."""


def reloadable(default: V) -> V:
    """The default of an option that a running process takes over on SIGHUP; all others need a restart."""
    return dataclasses.field(default=default, metadata={_RELOADABLE: True})


@dataclasses.dataclass(frozen=True)
class Change:
    """An option whose value is another than the one in use; both are masked where they are secret."""

    section: str
    option: str
    before: Any
    after: Any
    taken_over: bool
    """Whether it is in force now; if not, after a restart."""


class Config:
    """Options as the operator set them."""

    def __init__(
        self,
        files: Sequence[Path] = (),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        directories: Sequence[Path] = (),
    ) -> None:
        """
        Args:
            files: later ones win.
            overrides: section to option to value; from the command line, they win over all. None is not set.
            directories: their ``*.conf`` in order of their names; they win over `files`.

        Raises:
            ConfigError: a file or directory is not there or cannot be read, or a file is no INI file.
        """
        self._files = tuple(files)
        self._directories = tuple(directories)
        self._overrides = overrides or {}
        self._values = self._read_files()
        self._handed_out: dict[type[OptionClass], OptionClass] = {}

    def get(self, options: type[T]) -> T:
        """An instance of `options` with what was set, and the defaults for the rest. The same one until `reload`.

        Raises:
            ConfigError: a value does not fit its type.
        """
        found = self._handed_out.get(options)
        if found is None:
            found = self._handed_out[options] = self._fill(options, self._values)
        return cast(T, found)

    def reload(self) -> list[Change]:
        """Read files and environment again, and say what is other than what is in use.

        What is marked `reloadable` is in what `get` returns from now on; the rest stays as it was, and is told
        again each time until the restart.

        Raises:
            ConfigError: something cannot be used; then all stays as it was.
        """
        values = self._read_files()
        fresh = {options: self._fill(options, values) for options in self._handed_out}
        changes: list[Change] = []
        for options, after in fresh.items():
            before = self._handed_out[options]
            taken: dict[str, Any] = {}
            for field in dataclasses.fields(cast(Any, options)):
                old, new = getattr(before, field.name), getattr(after, field.name)
                if old == new:
                    continue
                can = bool(field.metadata.get(_RELOADABLE))
                if can:
                    taken[field.name] = new
                shown = masked(field.name, old), masked(field.name, new)
                changes.append(Change(options.section, field.name, *shown, taken_over=can))
            self._handed_out[options] = dataclasses.replace(cast(Any, before), **taken)
        return sorted(changes, key=lambda change: (change.section, change.option))

    def shown(self) -> dict[str, dict[str, Any]]:
        """Section to option to value, of all that was asked for; secrets are masked."""
        found: dict[str, dict[str, Any]] = {}
        for options, values in self._handed_out.items():
            section = found.setdefault(options.section, {})
            for field in dataclasses.fields(cast(Any, options)):
                section[field.name] = masked(field.name, getattr(values, field.name))
        return {section: dict(sorted(found[section].items())) for section in sorted(found)}

    def unknown(self, known: Known) -> list[Unknown]:
        """Names in files, environment and overrides that no option has.

        Raises:
            ConfigError: a file cannot be read any more.
        """
        given: list[Given] = []
        try:
            for file in (*self._files, *self._in_directories()):
                given += in_file(file)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        given += in_environment(known)
        for section, values in self._overrides.items():
            given += [Given("command line", section, option) for option in values]
        return unknown(given, known)

    def _in_directories(self) -> list[Path]:
        return [file for directory in self._directories for file in sorted(directory.expanduser().glob("*.conf"))]

    def _read_files(self) -> cfg.ConfigOpts:
        for directory in self._directories:
            if not directory.expanduser().is_dir():  # oslo.config would pass over it
                raise ConfigError(f"The configuration directory {directory} is not there.")
        values = cfg.ConfigOpts()
        try:
            # Both lists are given, even when empty: else oslo.config would look into ~ and /etc.
            values(
                args=[],
                project="kilonova",
                default_config_files=[str(file) for file in self._files],
                default_config_dirs=[str(directory) for directory in self._directories],
            )
        except (cfg.ConfigFilesNotFoundError, cfg.ConfigFilesPermissionDeniedError) as error:
            raise ConfigError(f"The configuration file {', '.join(error.config_files)} cannot be read.") from None
        except cfg.ConfigFileParseError as error:
            raise ConfigError(f"{error.config_file} is not an INI file: {error.msg}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"A configuration file cannot be read: {error}") from None
        return values

    def _fill(self, options: type[T], values: cfg.ConfigOpts) -> T:
        section = options.section
        hints = typing.get_type_hints(options)
        found = {
            field.name: self._value(values, section, field, hints[field.name])
            for field in dataclasses.fields(cast(Any, options))
        }
        return options(**found)

    def _value(self, values: cfg.ConfigOpts, section: str, field: Any, hint: Any) -> Any:
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        option = _option(field.name, hint, default)
        given = self._overrides.get(section, {}).get(field.name)
        if given is not None:
            try:
                return _typed(option.type(given), hint)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"[{section}] {field.name}: {error} (given on the command line)") from None
        group = None if section == "DEFAULT" else section
        values.register_opt(option, group=group)
        try:
            value = values[field.name] if group is None else values[group][field.name]
        except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
            # oslo.config's own message may hold the value, which may be a secret.
            raise ConfigError(
                f"[{section}] {field.name}: '$' begins the name of another option, and there is none; "
                "write '$$' for a dollar."
            ) from None
        except cfg.Error as error:
            raise ConfigError(f"[{section}] {field.name}: {error}") from None
        except ValueError as error:  # of environment variables
            raise ConfigError(f"[{section}] {field.name}: {error}") from None
        return _typed(value, hint)


def _plain(hint: Any) -> Any:
    """`hint` without its ``| None``."""
    if typing.get_origin(hint) in (python_types.UnionType, typing.Union):
        [hint] = [arm for arm in typing.get_args(hint) if arm is not type(None)]
    return hint


def _typed(value: Any, hint: Any) -> Any:
    """What oslo.config made of the text, as the field's own type."""
    hint = _plain(hint)
    if value is None:
        return None
    if hint is Path:
        return Path(value).expanduser()
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_typed(item, inner) for item in value)
    return value


def _option(name: str, hint: Any, default: Any) -> cfg.Opt:
    hint = _plain(hint)
    if typing.get_origin(hint) is tuple:
        item = _option(name, typing.get_args(hint)[0], None).type
        return cfg.ListOpt(name, item_type=item, default=list(default))
    if default is not None and hint is Path:
        default = str(default)
    return cfg.Opt(name, type=_type(hint), default=default)


def _type(hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        return types.String(choices=list(typing.get_args(hint)))
    kinds = {bool: types.Boolean, int: types.Integer, float: types.Float, str: types.String, Path: types.String}
    return kinds[hint]()
