"""Options: typed dataclasses, filled from INI files and the environment.

An option class is a frozen dataclass with a `section`; its fields have defaults, and a docstring below
each. Files have oslo.config's form, and so do environment variables (``OS_<SECTION>__<OPTION>``, as
``OS_LIBVIRT__VIRT_TYPE=qemu``). Nothing is global: `Config.get` hands out a filled instance.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

from oslo_config import cfg


class OptionClass(Protocol):
    """A dataclass of options."""

    section: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=OptionClass)


class ConfigError(Exception):
    """A file or a value cannot be used; the message names it and says what would do."""


class Config:
    """Options as the operator set them."""

    def __init__(self, files: Sequence[Path] = (), overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """
        Args:
            files: later ones win.
            overrides: section to option to value; from the command line, they win over all.

        Raises:
            ConfigError: a file is not there or is no INI file.
        """
        self._overrides = overrides or {}
        self._values = cfg.ConfigOpts()
        try:
            self._values(args=[], project="kilonova", default_config_files=[str(f) for f in files])
        except cfg.ConfigFilesNotFoundError as error:
            raise ConfigError(f"The configuration file {', '.join(error.config_files)} cannot be read.") from None
        except cfg.ConfigFileParseError as error:
            raise ConfigError(f"{error.config_file} is not an INI file: {error.msg}") from None

    def get(self, options: type[T]) -> T:
        """An instance of `options` with what was set, and the defaults for the rest.

        Raises:
            ConfigError: a value does not fit its type.
        """
        section = options.section
        hints = typing.get_type_hints(options)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cast(Any, options)):
            given = self._overrides.get(section, {}).get(field.name)
            if given is not None:
                values[field.name] = given
                continue
            values[field.name] = self._read(section, field, hints[field.name])
        return options(**values)

    def _read(self, section: str, field: Any, hint: Any) -> Any:
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        group = None if section == "DEFAULT" else section
        self._values.register_opt(_option(field.name, hint, default), group=group)
        try:
            value = self._values[field.name] if group is None else self._values[group][field.name]
        except cfg.ConfigFileValueError as error:
            raise ConfigError(f"[{section}] {field.name}: {error}") from None
        return tuple(value) if isinstance(default, tuple) else value


def _option(name: str, hint: Any, default: Any) -> cfg.Opt:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return cfg.StrOpt(name, default=default, choices=list(typing.get_args(hint)))
    if origin in (types.UnionType, typing.Union):
        [hint] = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return _option(name, hint, default)
    if origin is tuple or hint is tuple:
        return cfg.ListOpt(name, default=list(default))
    kinds = {bool: cfg.BoolOpt, int: cfg.IntOpt, float: cfg.FloatOpt, str: cfg.StrOpt}
    if hint is Path:
        return cfg.StrOpt(name, default=str(default))
    made: cfg.Opt = kinds[hint](name, default=default)
    return made
