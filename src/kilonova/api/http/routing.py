"""Routes are data: an `Api` is a root, a form of errors, a range of microversions, and a table of routes.

A handler is a plain async function whose parameters are filled in by name: ``cloud``, ``req``, ``body`` (decoded
into its annotated type), ``query`` (likewise), ``stream`` (the raw bytes as they come); every other one is a part
of the path. What it may be given is checked when it is registered, not when it is first called.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kilonova.api.http.errors import ErrorForm
from kilonova.api.http.microversions import Band, Microversions, Version
from kilonova.api.http.request import Reply, Request
from kilonova.api.http.schema import QuerySchema, Schema, hints

__all__ = ["Api", "Extension", "Reply", "Request", "Route"]

JSON_TYPES = ("application/json",)
MAX_BODY = 1024 * 1024

_VARIABLE = re.compile(r"\{(\w+)(:path)?\}")
_INJECTED = frozenset({"cloud", "req", "body", "query", "stream"})

Handler = Callable[..., Awaitable[Reply]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Extension:
    """One entry of ``/extensions``: what a client asks before it uses a feature."""

    alias: str
    name: str
    description: str = ""
    updated: str = "2026-01-01T00:00:00-00:00"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method on one path in one band of microversions."""

    method: str
    path: str
    handler: Handler
    policy: str | None
    status: int
    band: Band
    public: bool
    body_key: str | None
    body_optional: bool
    accepts: Sequence[str]
    max_body: int | None
    once: bool
    variables: tuple[str, ...]
    takes: frozenset[str]
    """Which of ``cloud req body query stream`` the handler wants."""
    body: Schema | None
    query: QuerySchema | None
    path_kinds: dict[str, Schema] = field(default_factory=dict)
    """Path variables that are more than a text."""


class Api:
    """One API at one root. Modules of the API register their routes on it when they are imported."""

    def __init__(
        self,
        name: str,
        *,
        root: str,
        errors: ErrorForm,
        min_version: str | None = None,
        max_version: str | None = None,
        service_type: str | None = None,
        extensions: Sequence[Extension] = (),
        request_id_header: str | None = None,
    ) -> None:
        """
        Args:
            name: ``compute``, ``identity``, ``image``, ``network`` … chooses the form of the version documents;
                with another name there are none.
            root: ``/compute/v2.1``; empty for an API at the server's own root.
            service_type: what the service calls itself in ``OpenStack-API-Version``; `name` if not given.
            request_id_header: a further response header with the request's id.
        """
        if root and (not root.startswith("/") or root.endswith("/")):
            raise TypeError(f"{root!r} must begin with a slash and not end with one.")
        self.name = name
        self.root = root
        self.errors = errors
        self.extensions = list(extensions)
        self.request_id_header = request_id_header or ("x-compute-request-id" if name == "compute" else None)
        self.microversions: Microversions | None = None
        if min_version and max_version:
            self.microversions = Microversions(
                service_type or name,
                Version.parse(min_version),
                Version.parse(max_version),
                "x-openstack-nova-api-version" if name == "compute" else None,
            )
        self.routes: list[Route] = []

    @property
    def service_root(self) -> str:
        """The root without the version: ``/compute``."""
        return self.root[: self.root.index("/", 1)] if self.root.count("/") > 1 else self.root

    def route(
        self,
        method: str,
        path: str,
        *,
        policy: str | None = None,
        status: int = 200,
        since: str | None = None,
        until: str | None = None,
        public: bool = False,
        body_key: str | None = None,
        body_optional: bool = False,
        accepts: Sequence[str] = JSON_TYPES,
        max_body: int | None = MAX_BODY,
        once: bool = False,
    ) -> Callable[[H], H]:
        """Register a handler.

        Args:
            path: below the root; ``{name}`` is one segment, ``{name:path}`` all the rest.
            policy: the rule that must allow it to the caller on its own project, checked before the body is
                read. None if the use case asks itself, knowing whose thing it is.
            since, until: the microversions in which the route exists, both included.
            public: nobody need be logged in.
            body_key: the body is ``{body_key: ...}``; the handler gets what is inside.
            body_optional: no body at all is an empty object.
            accepts: media types of the body.
            max_body: bytes; None is no limit (for `stream` only).
            once: the header ``Idempotency-Key`` is honoured; the use case must do its work with
                `kilonova.cloud.answers.once`.
        """

        def register(handler: H) -> H:
            route = _route(
                handler,
                method=method.upper(),
                path=path,
                policy=policy,
                status=status,
                band=Band.parse(since, until),
                public=public,
                body_key=body_key,
                body_optional=body_optional,
                accepts=tuple(accepts),
                max_body=max_body,
                once=once,
            )
            for other in self.routes:
                same = other.method == route.method and template(other.path) == template(route.path)
                if same and other.band.overlaps(route.band):
                    raise TypeError(f"{method} {path} is declared twice for some microversions.")
            self.routes.append(route)
            return handler

        return register


def template(path: str) -> str:
    """`path` with its variables numbered, so that two routes may call the same segment by different names."""
    count = iter(range(100))
    return _VARIABLE.sub(lambda match: f"{{p{next(count)}{match[2] or ''}}}", path)


def _route(handler: Handler, *, path: str, max_body: int | None, **options: Any) -> Route:
    variables = tuple(match[1] for match in _VARIABLE.finditer(path))
    names = set(inspect.signature(handler).parameters)
    where = f"{handler.__module__}.{handler.__qualname__}"
    if unknown := names - _INJECTED - set(variables):
        raise TypeError(f"{where} asks for {sorted(unknown)}, but {path} has only {list(variables)}.")
    if missing := set(variables) - names:
        raise TypeError(f"{where} does not take {sorted(missing)} of {path}.")
    if "body" in names and "stream" in names:
        raise TypeError(f"{where} takes the body twice, decoded and as a stream.")
    if max_body is None and "body" in names:
        raise TypeError(f"{where} decodes its body, so the body needs a limit.")
    kinds = hints(handler, {*variables, "body", "query"})
    return Route(
        handler=handler,
        path=path,
        max_body=max_body,
        variables=variables,
        takes=frozenset(names & _INJECTED),
        body=Schema(kinds["body"]) if "body" in names else None,
        query=QuerySchema(kinds["query"]) if "query" in names else None,
        path_kinds={name: Schema(kinds[name]) for name in variables if kinds.get(name, str) is not str},
        **options,
    )
