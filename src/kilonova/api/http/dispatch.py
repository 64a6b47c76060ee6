"""From a matched path to an answer: microversion, who asks, may they, what do they say, the handler.

The order is part of the contract: a client that may not do a thing learns nothing about its body (403 before
400), and nobody who is not logged in makes us read one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kilonova.api.http.bodies import Source, check_announced, check_media_type, chunks, read_all
from kilonova.api.http.json_text import parse, shown
from kilonova.api.http.microversions import UNVERSIONED, Version
from kilonova.api.http.request import CloudParts, Reply, Request, kept
from kilonova.api.http.routing import Api, Route
from kilonova.api.http.schema import parse_query
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, NotFound, Repeated


@dataclass(slots=True)
class Call:
    """One HTTP request under way: what is known of it before a route is found, and for its log line after."""

    api: Api | None
    method: str
    path: str
    request_id: str
    base_url: str
    source_address: str
    headers: Mapping[str, str]
    query_string: bytes
    receive: Any
    """The server's own `receive`, to see the client go."""
    incoming: Any
    """The same with a limit on silence, if there is a body; knows whether the client hung up."""
    version: Version | None = None
    """Set once negotiated; then the response says so."""
    ctx: RequestContext | None = None
    status: int = 0


class Endpoint:
    """One method of one path: the routes that share it, apart in their microversions."""

    def __init__(self, api: Api, routes: Sequence[Route], cloud: CloudParts) -> None:
        self._api = api
        self._routes = tuple(routes)
        self._only = routes[0] if len(routes) == 1 and routes[0].band.since is None is routes[0].band.until else None
        self._cloud = cloud

    async def __call__(self, call: Call, path: Sequence[str], source: Source) -> tuple[Reply, int]:
        """The handler's reply and its status.

        Args:
            path: what stood for the path's variables, in order.
            source: where the request's body can be had.
        """
        version = UNVERSIONED
        if self._api.microversions is not None:
            version = call.version = self._api.microversions.negotiate(call.headers)
        route = self._only or self._pick(version, call)
        ctx = await self._caller(route, call)
        if route.policy is not None:
            own = {"project_id": ctx.project_id, "user_id": ctx.user_id}
            self._cloud.parts.policy.authorize(ctx, route.policy, own)
        params = parse_query(call.query_string)
        request = Request(
            ctx,
            version,
            call.method,
            call.path,
            self._api.root,
            call.base_url,
            call.headers,
            params,
            self._cloud.identity,
            route.status,
        )
        arguments = _path_arguments(route, path)
        takes = route.takes
        if "cloud" in takes:
            arguments["cloud"] = self._cloud
        if "req" in takes:
            arguments["req"] = request
        if route.query is not None:
            arguments["query"] = route.query.read_pairs(params, version)
        if route.body is not None:
            raw = await _read_body(route, call, source)
            arguments["body"] = _body(route, call, raw, version)
            given = call.headers.get("idempotency-key")
            if route.once and given is not None:
                return await self._once(route, request, arguments, given, raw)
        elif "stream" in takes:
            check_media_type(call.headers, route.accepts)
            check_announced(call.headers, route.max_body)
            arguments["stream"] = chunks(source, call.headers, route.max_body, call.incoming)
        reply = await route.handler(**arguments)
        return reply, reply.status or route.status

    async def _once(
        self, route: Route, request: Request, arguments: dict[str, Any], given: str, raw: bytes
    ) -> tuple[Reply, int]:
        """The handler's reply, or that to the first request with the same key."""
        answers = self._cloud.answers
        once = answers.once(request.ctx, f"{request.method} {request.path}", given, raw)
        if known := await answers.find(once):
            return _again(known)
        request.ctx = msgspec.structs.replace(request.ctx, once=once)
        try:
            reply = await route.handler(**arguments)
        except Repeated:  # somebody was faster
            known = await answers.find(once, wait=True)
            assert known is not None
            return _again(known)
        await answers.keep(once, *kept(reply, route.status))
        return reply, reply.status or route.status

    def _pick(self, version: Version, call: Call) -> Route:
        for route in self._routes:
            if version in route.band:
                return route
        raise NotFound(kind="The resource", id=call.path)

    async def _caller(self, route: Route, call: Call) -> RequestContext:
        if route.public:
            return RequestContext(request_id=call.request_id, source_address=call.source_address)
        token = call.headers.get("x-auth-token", "")
        ctx = call.ctx = await self._cloud.identity.authenticate(token, call.request_id, call.source_address)
        return ctx


def _path_arguments(route: Route, values: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(zip(route.variables, values, strict=True))
    for value in values:
        # An empty segment names nothing, and a NUL is in no name that a database could hold.
        if not value or "\0" in value:
            raise NotFound(kind="The resource", id=shown(value))
    for name, schema in route.path_kinds.items():
        try:
            arguments[name] = schema.read_text(arguments[name])
        except BadRequest:
            raise NotFound(kind=name.removesuffix("_id").replace("_", " ").capitalize(), id=arguments[name]) from None
    return arguments


def _again(known: tuple[int, Any]) -> tuple[Reply, int]:
    status, (headers, body) = known
    return Reply(body, {**headers, "Idempotency-Replayed": "true"}, status), status


async def _read_body(route: Route, call: Call, source: Source) -> bytes:
    assert route.max_body is not None
    return await read_all(source, call.headers, route.max_body, call.incoming)


def _body(route: Route, call: Call, raw: bytes, version: Version) -> Any:
    schema = route.body
    assert schema is not None
    if not raw:
        if route.body_optional:
            return schema.read({}, version)
        raise BadRequest("Malformed request body: it is missing.")
    check_media_type(call.headers, route.accepts)
    value = parse(raw)
    key = route.body_key
    if key is None:
        return schema.read(value, version)
    if not isinstance(value, dict):
        raise BadRequest(f"Malformed request body: it must be an object with the key '{key}'.")
    if key not in value:
        raise BadRequest(f"Invalid input for field/attribute body: '{key}' is a required property.")
    if len(value) > 1:
        other = next(name for name in value if name != key)
        raise BadRequest(f"Additional properties are not allowed ({shown(other)} was unexpected).")
    return schema.read(value[key], version, at=key)
