"""The whole HTTP face of the cloud as one ASGI application: many APIs on one port, told apart by their roots.

Falcon routes and frames; around it stands `HttpApp`, which sees every request from its first byte to the last of
its answer, so that each has an id, an error in its own API's form, and exactly one line in the log.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import falcon
import falcon.asgi
import orjson

from kilonova.api.http import discovery
from kilonova.api.http.bodies import Incoming, Outgoing, close
from kilonova.api.http.dispatch import Call, Endpoint
from kilonova.api.http.errors import JSON, JSON_ERRORS, Face, Failure
from kilonova.api.http.request import CloudParts, Reply
from kilonova.api.http.routing import Api, Route, template
from kilonova.base.ids import request_id
from kilonova.base.log import bind, get_logger
from kilonova.base.metrics import Histogram
from kilonova.model.errors import BadRequest, CloudError, MethodNotAllowed, NotFound

log = get_logger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]

_GLOBAL_ID = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?\Z")
_FAULT = 500


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """``[api]`` of kilonova.conf."""

    section: ClassVar[str] = "api"

    public_url: str = ""
    """How clients reach this cloud, as ``https://cloud.example.org``; empty: as each request's Host header says."""

    body_idle_timeout_s: float = 60.0
    """A client that sends nothing of its body for this long is let go."""


def make_app(apis: Sequence[Api], cloud: CloudParts, options: HttpOptions | None = None) -> "HttpApp":
    """The ASGI application that serves `apis` out of `cloud`."""
    app = falcon.asgi.App()
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(Exception, _on_error)
    app.add_error_handler(falcon.HTTPError, _on_error)  # for its own errors falcon has a default, which is nearer
    served: list[Api] = []
    for api in apis:
        discovery.extension_routes(api)
        served += [api, *discovery.documents(api)]
    if not any(api.root == "" for api in apis):
        served.append(discovery.everything(apis))
    paths: dict[str, dict[str, list[tuple[Api, Route]]]] = defaultdict(lambda: defaultdict(list))
    for api in served:
        for route in api.routes:
            path = (api.root + template(route.path)).rstrip("/") or "/"
            paths[path][route.method].append((api, route))
    for path, methods in paths.items():
        endpoints = {
            method: Endpoint(found[0][0], [route for _, route in found], cloud) for method, found in methods.items()
        }
        app.add_route(path, _resource(endpoints))
    return HttpApp(app, served, cloud, options or HttpOptions())


def _resource(endpoints: dict[str, Endpoint]) -> Any:
    """A falcon resource: one responder a method. A GET answers a HEAD as well, unless there is one."""
    if "GET" in endpoints:
        endpoints.setdefault("HEAD", endpoints["GET"])
    responders = {f"on_{method.lower()}": _responder(endpoint) for method, endpoint in endpoints.items()}
    return type("Resource", (), responders)()


def _responder(endpoint: Endpoint) -> Any:
    async def respond(_: Any, req: falcon.asgi.Request, resp: falcon.asgi.Response, **path: str) -> None:
        call: Call = req.scope["kilonova"]
        try:
            reply, status = await endpoint(call, tuple(path.values()), req)
            if reply.stream is not None and call.method == "HEAD":
                await close(reply.stream)
                reply.stream, reply.body = None, b""
            _fill(resp, reply, status, call)
        except Exception as error:
            _fill_face(resp, _face(call, _translated(call, error)))

    return respond


def _fill(resp: falcon.asgi.Response, reply: Reply, status: int, call: Call) -> None:
    resp.status = status
    body = reply.body
    if reply.headers:
        for name, value in reply.headers.items():
            resp.set_header(name, value)
    if reply.stream is not None:
        resp.content_type = reply.content_type or "application/octet-stream"
        resp.stream = Outgoing(reply.stream, call.receive)
    elif body is None:
        resp.data = b""
        if reply.content_type is not None:
            resp.content_type = reply.content_type
    elif isinstance(body, bytes):
        resp.content_type = reply.content_type or "application/octet-stream"
        resp.data = body
    elif isinstance(body, str):
        resp.content_type = reply.content_type or "text/plain; charset=utf-8"
        resp.data = body.encode()
    else:
        resp.content_type = reply.content_type or JSON
        resp.data = orjson.dumps(body)


def _fill_face(resp: falcon.asgi.Response, face: Face) -> None:
    resp.status = face.status
    resp.content_type = face.content_type
    resp.data = face.body
    for name, value in face.headers.items():
        resp.set_header(name, value)


async def _on_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: dict[str, Any], **_: Any
) -> None:
    """What falcon itself refuses: no such path, no such method, a header it cannot read."""
    call: Call = req.scope["kilonova"]
    _fill_face(resp, _face(call, _translated(call, error)))


def _translated(call: Call, error: Exception) -> Exception:
    if isinstance(error, falcon.HTTPNotFound):
        return NotFound(kind="The resource", id=call.path)
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or {}).get("Allow", "")
        return MethodNotAllowed(call.method, call.path, [name.strip() for name in str(allowed).split(",")])
    if isinstance(error, falcon.HTTPError) and error.status_code < _FAULT:
        return BadRequest(error.description or error.title or "The request cannot be understood.")
    return error


def _face(call: Call, error: BaseException) -> Face:
    """`error` in the form of the call's API; logged if it is a fault of ours."""
    failure = Failure.of(error, request_id=call.request_id, base_url=call.base_url)
    if not isinstance(error, CloudError):
        log.error("request failed", method=call.method, path=call.path, exc_info=error)
    elif failure.status == _FAULT:
        log.error("request failed", method=call.method, path=call.path, code=error.code, exc_info=error)
    return (call.api.errors if call.api is not None else JSON_ERRORS)(failure)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpApp:
    """The outermost layer: request ids, headers of every response, the access log, and a last resort."""

    def __init__(self, inner: falcon.asgi.App[Any, Any], apis: Sequence[Api], cloud: CloudParts, options: HttpOptions):
        self._inner = cast("Callable[..., Awaitable[None]]", inner)
        self._clock = cloud.parts.clock
        self._ids = cloud.parts.ids
        self._options = options
        self._requests = Histogram(
            "kilonova_http_requests_seconds",
            "Time of HTTP requests, by API, method and hundreds of the status.",
            ("api", "method", "status"),
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60),
            registry=cloud.readiness.registry,
        )
        self._public_url = options.public_url.rstrip("/")
        # The longest root wins: /compute/v2.1 before /compute.
        self._roots = sorted(((api.root, api) for api in apis), key=lambda pair: -len(pair[0]))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = self._clock.monotonic()
        call = self._call(scope, receive)
        scope["kilonova"] = call
        scope["query_string"] = b""  # falcon would parse it as well, and trip over what is no UTF-8
        bound = {"service": "api", "request_id": call.request_id}
        global_id = call.headers.get("x-openstack-request-id")
        if global_id is not None and _GLOBAL_ID.match(global_id):
            bound["global_request_id"] = global_id
        with bind(**bound):
            await self._serve(scope, call, send)
            ctx = call.ctx
            seconds = self._clock.monotonic() - started
            api = call.api.name if call.api is not None else "none"
            method = call.method if call.method in _METHODS else "other"
            self._requests.labels(api, method, call.status // 100 * 100).observe(seconds)
            log.info(
                "request",
                method=call.method,
                path=call.path,
                status=call.status,
                ms=round(seconds * 1000, 2),
                user=ctx.user_id if ctx else None,
                project=ctx.project_id if ctx else None,
            )

    async def _serve(self, scope: dict[str, Any], call: Call, send: Send) -> None:
        started = False

        async def send_on(event: dict[str, Any]) -> None:
            nonlocal started
            if event["type"] == "http.response.start":
                started = True
                call.status = event["status"]
                event["headers"] = [*event["headers"], *self._headers(call)]
            await send(event)

        try:
            await self._inner(scope, call.incoming, send_on)
        except Exception as error:
            if started:
                # Too late for another answer: what is sent stays incomplete, and the server drops the connection.
                log.error("response broken off", method=call.method, path=call.path, exc_info=error)
                return
            face = _face(call, error)
            headers = [("content-type", face.content_type), ("connection", "close"), *face.headers.items()]
            raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            raw.append((b"content-length", str(len(face.body)).encode()))
            await send_on({"type": "http.response.start", "status": face.status, "headers": raw})
            await send_on({"type": "http.response.body", "body": face.body})

    def _call(self, scope: dict[str, Any], receive: Any) -> Call:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1")
            headers[key] = f"{headers[key]}, {value.decode('latin-1')}" if key in headers else value.decode("latin-1")
        path = scope["path"]
        client = scope.get("client")
        # Without a body nothing is waited for, so nothing need be timed.
        has_body = "content-length" in headers or "transfer-encoding" in headers
        return Call(
            api=self._api_at(path),
            method=scope["method"],
            path=path,
            request_id=request_id(self._ids),
            base_url=self._public_url or self._base_url(scope, headers),
            source_address=client[0] if client else "",
            headers=headers,
            query_string=scope["query_string"],
            receive=receive,
            incoming=Incoming(receive, self._options.body_idle_timeout_s) if has_body else receive,
        )

    def _api_at(self, path: str) -> Api | None:
        for root, api in self._roots:
            if path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
                return api
        return None

    @staticmethod
    def _base_url(scope: dict[str, Any], headers: dict[str, str]) -> str:
        host = headers.get("host", "")
        if not _HOST.match(host):
            server = scope.get("server") or ("localhost", None)
            host = server[0] if server[1] is None else f"{server[0]}:{server[1]}"
        return f"{scope.get('scheme', 'http')}://{host}"

    @staticmethod
    def _headers(call: Call) -> list[tuple[bytes, bytes]]:
        value = call.request_id.encode()
        headers = [(b"x-openstack-request-id", value)]
        if call.api is not None:
            if call.api.request_id_header is not None:
                headers.append((call.api.request_id_header.encode(), value))
            if call.version is not None and call.api.microversions is not None:
                headers += call.api.microversions.response_headers(call.version)
        return headers
