"""Request bodies and queries as msgspec Structs; a field can belong to some microversions only.

``Annotated[str | None, Since("2.19")]`` on a field makes it exist from 2.19 on: in an older request it is an
unknown field. For each band of microversions in which a Struct looks different, a subclass of it is
made on first use, in which the fields outside the band take no value at all. So the handler always
gets an instance of the Struct it asked for, and msgspec does all the checking.
"""

import re
import types
import typing
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from kilonova.api.http.json_text import shown
from kilonova.api.http.microversions import UNVERSIONED, Version
from kilonova.model.errors import BadRequest

_UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"

Uuid = Annotated[str, Meta(pattern=_UUID_PATTERN)]
"""An id in canonical form: lower case, with hyphens. In a path, anything else is not found."""

MAX_QUERY_FIELDS = 200


class Since(str):
    """Mark of a field: it exists from this microversion on."""


class Until(str):
    """Mark of a field: it exists up to this microversion, included."""


class _Nothing:
    """The type of a field outside its band: no value fits it."""


_NO_SUCH_FIELD = "no such field in this microversion"


def _refuse(kind: type, value: Any) -> Any:
    if kind is _Nothing:
        raise ValueError(_NO_SUCH_FIELD)
    raise NotImplementedError(f"no way to read {kind}")


class Schema:
    """What a body or a query must look like: any type that msgspec can read, with bands on Struct fields."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._edges = sorted(_edges(kind, set()))
        self._variants: dict[int, Any] = {}

    def at(self, version: Version) -> Any:
        """The type as it is for `version`; always the same object for the same band."""
        if not self._edges:
            return self.kind
        index = bisect_right(self._edges, version)
        variant = self._variants.get(index)
        if variant is None:
            variant = self._variants[index] = _variant(self.kind, version, {})
        return variant

    def read(self, value: Any, version: Version = UNVERSIONED, *, at: str = "") -> Any:
        """`value` (plain JSON) as this type.

        Args:
            at: where in the body `value` stood, for the message.

        Raises:
            BadRequest: it does not fit; the message names the field.
        """
        try:
            return msgspec.convert(value, self.at(version), dec_hook=_refuse)
        except msgspec.ValidationError as error:
            raise BadRequest(explain(str(error), at=at)) from None

    def read_text(self, text: str) -> Any:
        """A text (a part of a path) as this type: ``"5"`` fits a whole number.

        Raises:
            BadRequest
        """
        try:
            return msgspec.convert(text, self.kind, strict=False, dec_hook=_refuse)
        except msgspec.ValidationError as error:
            raise BadRequest(explain(str(error))) from None


_schemas: dict[Any, Schema] = {}


def convert(value: Any, kind: Any, *, at: str = "", version: Version = UNVERSIONED) -> Any:
    """`value` (plain JSON) as a `kind`, for parts of a body that a handler chooses the type of itself.

    Raises:
        BadRequest: it does not fit; the message names the field, as a part of `at`.
    """
    schema = _schemas.get(kind)
    if schema is None:
        schema = _schemas[kind] = Schema(kind)
    return schema.read(value, version, at=at)


# ---- queries ------------------------------------------------------------------------------------------------


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string, in order.

    Raises:
        BadRequest
    """
    if not raw:
        return []
    try:
        pairs = parse_qsl(raw.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise BadRequest("The query string is not valid UTF-8.") from None
    except ValueError:
        raise BadRequest(f"The query string has more than {MAX_QUERY_FIELDS} parameters.") from None
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise BadRequest(f"Invalid input for query parameters {shown(name)}: it must not contain a NUL character.")
    return pairs


class QuerySchema(Schema):
    """A query string as a Struct.

    A parameter that may be given several times is a list (or tuple) in the Struct; any other may stand once.
    Unknown parameters are ignored, or refused if the Struct has ``forbid_unknown_fields``; so are those
    that belong to another microversion.
    """

    def __init__(self, kind: type[Struct]) -> None:
        super().__init__(kind)
        fields = msgspec.structs.fields(kind)
        self._several = {f.encode_name for f in fields if _is_several(f.type)}
        self._strict = kind.__struct_config__.forbid_unknown_fields
        self._bands = [(f.encode_name, *_marks(f.type)) for f in fields if _marks(f.type) != (None, None)]

    def read_pairs(self, pairs: Sequence[tuple[str, str]], version: Version) -> Any:
        """The Struct that `pairs` say.

        Raises:
            BadRequest
        """
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in self._several:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise BadRequest(f"Invalid input for query parameters {shown(name)}: it may be given only once.")
            else:
                values[name] = value
        if not self._strict:
            for name, since, until in self._bands:
                if not _inside(version, since, until):
                    values.pop(name, None)
        try:
            return msgspec.convert(values, self.at(version), strict=False, dec_hook=_refuse)
        except msgspec.ValidationError as error:
            raise BadRequest(explain(str(error), what="query parameters")) from None


def _is_several(kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    if origin is Annotated:
        return _is_several(typing.get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return any(_is_several(arm) for arm in typing.get_args(kind))
    return origin in (list, tuple, set, frozenset)


# ---- bands --------------------------------------------------------------------------------------------------


def _marks(kind: Any) -> tuple[Version | None, Version | None]:
    since = until = None
    if typing.get_origin(kind) is Annotated:
        for mark in kind.__metadata__:
            if isinstance(mark, Since):
                since = Version.parse(mark)
            elif isinstance(mark, Until):
                until = Version.parse(mark)
    return since, until


def _inside(version: Version, since: Version | None, until: Version | None) -> bool:
    return (since is None or version >= since) and (until is None or version <= until)


def _edges(kind: Any, seen: set[Any]) -> set[Version]:
    """The microversions at which `kind` begins to look different."""
    edges: set[Version] = set()
    if isinstance(kind, type) and issubclass(kind, Struct):
        if kind not in seen:
            seen.add(kind)
            for f in msgspec.structs.fields(kind):
                since, until = _marks(f.type)
                edges |= {v for v in (since, until and until.next) if v}
                edges |= _edges(f.type, seen)
        return edges
    for argument in typing.get_args(kind):
        if not isinstance(argument, (Meta, str)):
            edges |= _edges(argument, seen)
    return edges


def _variant(kind: Any, version: Version, made: dict[Any, Any]) -> Any:
    """`kind` with every Struct in it as it is for `version`."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        if not _edges(kind, set()):
            return kind
        if kind not in made:
            made[kind] = kind  # a Struct that contains itself: the inner ones keep every field
            made[kind] = _struct_variant(kind, version, made)
        return made[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is None or origin is typing.Literal:
        return kind
    if origin is Annotated:
        inner = _variant(arguments[0], version, made)
        return Annotated[(inner, *arguments[1:])]
    changed = tuple(_variant(argument, version, made) for argument in arguments)
    if changed == arguments:
        return kind
    if origin is types.UnionType:
        return Union[changed]  # noqa: UP007 - made of types that are only known here
    return origin[changed]


def _struct_variant(kind: type[Struct], version: Version, made: dict[Any, Any]) -> type[Struct]:
    changed: list[tuple[str, Any, Any]] = []
    for f in msgspec.structs.fields(kind):
        since, until = _marks(f.type)
        if _inside(version, since, until):
            inner = _variant(f.type, version, made)
            if inner is f.type:
                continue
        elif f.required:
            raise TypeError(f"{kind.__name__}.{f.name} does not exist in {version}, so it needs a default.")
        else:
            inner = _Nothing
        changed.append((f.name, inner, _same_default(f)))
    if not changed:
        return kind
    return msgspec.defstruct(kind.__name__, changed, bases=(kind,), kw_only=True, module=kind.__module__)


def _same_default(f: Any) -> Any:
    if f.default is not msgspec.NODEFAULT:
        return msgspec.field(name=f.encode_name, default=f.default)
    if f.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(name=f.encode_name, default_factory=f.default_factory)
    return msgspec.field(name=f.encode_name)


# ---- messages -----------------------------------------------------------------------------------------------

_AT = re.compile(r"(?s)(?P<says>.*?)(?: - at `(?P<path>.*)`)?\Z")
_UNKNOWN = re.compile(r"(?s)Object contains unknown field `(?P<name>.*)`\Z")
_MISSING = re.compile(r"(?s)Object missing required field `(?P<name>.*)`\Z")


def explain(message: str, *, at: str = "", what: str = "field/attribute") -> str:
    """msgspec's complaint as OpenStack's clients expect it: with the field's name first."""
    match = cast("re.Match[str]", _AT.match(message))
    says, path = match["says"], _dotted(match["path"] or "", at)
    if unknown := _UNKNOWN.match(says):
        inside = f" in {path}" if path else ""
        return f"Additional properties are not allowed ({shown(unknown['name'])} was unexpected){inside}."
    if says == _NO_SUCH_FIELD:
        inside, _, name = path.rpartition(".")
        where = f" in {inside}" if inside else ""
        return f"Additional properties are not allowed ({shown(name)} was unexpected){where}."
    if missing := _MISSING.match(says):
        return f"Invalid input for {what} {path or 'body'}: {shown(missing['name'])} is a required property."
    if "matching regex" in says and "{8}" in says and "{12}" in says:
        says = "it is not a UUID"  # kinder than the pattern that says so
    return f"Invalid input for {what} {path or 'body'}: {says[0].lower() + says[1:]}."


def _dotted(path: str, at: str) -> str:
    """``$.networks[0].uuid`` below ``server`` as ``server.networks[0].uuid``."""
    path = path.replace("key` in `", "").removeprefix("$").removeprefix(".")
    if not at or not path:
        return at or path
    return f"{at}{path}" if path.startswith("[") else f"{at}.{path}"


def hints(function: Any, names: set[str]) -> Mapping[str, Any]:
    """The types of some of a function's parameters, without resolving the others.

    The others (`cloud`, `req`) may be names that exist for the type checker alone.
    """
    resolved: dict[str, Any] = {}
    for name, annotation in function.__annotations__.items():
        if name in names:
            if isinstance(annotation, str):
                annotation = eval(annotation, function.__globals__)  # noqa: S307 - our own source text
            resolved[name] = annotation
    return resolved
