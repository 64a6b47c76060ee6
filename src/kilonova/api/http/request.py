"""What a handler is given and what it gives back; nothing of the web framework shows through."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from kilonova.api.http.microversions import Version
from kilonova.base.clock import Clock
from kilonova.base.ids import Ids
from kilonova.base.metrics import CollectorRegistry
from kilonova.model.context import Answer, Once, RequestContext


class Identity(Protocol):
    """Who can say who a token belongs to."""

    def authenticate(self, token: str, request_id: str, source_address: str) -> Awaitable[RequestContext]:
        """
        Raises:
            Unauthorized
        """
        ...


class Authority(Protocol):
    """Who can say whether a caller may do a thing."""

    def authorize(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> None:
        """
        Raises:
            PolicyDenied
        """
        ...


class Parts(Protocol):
    """The parts of the cloud that the framework itself uses."""

    @property
    def policy(self) -> Authority: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> Ids: ...


class KeptAnswers(Protocol):
    """What was answered to requests that shall have one effect, see `kilonova.cloud.answers.Answers`."""

    def once(self, ctx: RequestContext, what: str, given: str, body: bytes) -> Once: ...
    def find(self, once: Once, *, wait: bool = False) -> Awaitable[tuple[int, Any] | None]: ...
    def keep(self, once: Once, status: int, answer: Any) -> Awaitable[None]: ...


class HasRegistry(Protocol):
    """Who has the metrics of this process."""

    @property
    def registry(self) -> CollectorRegistry: ...


class CloudParts(Protocol):
    """As much of `kilonova.cloud.cloud.Cloud` as the framework itself uses."""

    @property
    def parts(self) -> Parts: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def answers(self) -> KeptAnswers: ...
    @property
    def readiness(self) -> HasRegistry: ...


@dataclass(slots=True)
class Request:
    """One request, as a handler sees it."""

    ctx: RequestContext
    """Who asks. On a public route nobody: only the request's id and the address it came from."""
    microversion: Version
    method: str
    path: str
    """The path under the server's root, decoded, without the query."""
    root: str
    """Where the API lives, as ``/compute/v2.1``."""
    base_url: str
    """``http://host:port``, as the client sees this server."""
    headers: Mapping[str, str]
    """By lower-case name."""
    params: list[tuple[str, str]]
    """The query, decoded, in the order sent; a handler mostly takes `query` instead."""
    identity: Identity
    status: int = 200
    """Of the answer, unless the handler says otherwise."""

    def answers_with(self, render: Callable[[Any], "Reply | None"]) -> None:
        """Say what will be answered once the thing is made, so that a repeated request is answered alike.

        Args:
            render: from what the use case made to the reply; None as long as more will be made.
        """
        if self.ctx.once is not None:

            def answer(made: Any) -> Answer | None:
                reply = render(made)
                return None if reply is None else kept(reply, self.status)

            self.ctx.once.render = answer

    def url(self, *path: str) -> str:
        """The absolute URL of something under the API's root: ``req.url("servers", server_id)``."""
        return "/".join((self.base_url + self.root, *(quote(str(part), safe="~:@!$&'()*+,;=") for part in path)))

    async def authenticate(self) -> RequestContext:
        """The caller by its token, for public routes that ask only sometimes.

        Raises:
            Unauthorized
        """
        token = self.headers.get("x-auth-token", "")
        return await self.identity.authenticate(token, self.ctx.request_id, self.ctx.source_address)


@dataclass(slots=True)
class Reply:
    """The answer. Without a body it is empty; `bytes` and `str` are sent as they are, all else as JSON.

    `stream` is sent as it comes, with bounded memory; give a ``Content-Length`` if it is known.
    """

    body: object | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    """None is the route's own."""
    stream: AsyncIterator[bytes] | None = None
    content_type: str | None = None
    """None is JSON for a body, and ``application/octet-stream`` for bytes and streams."""


def kept(reply: Reply, status: int) -> Answer:
    """What is kept of a reply; `status` unless it has its own."""
    return reply.status or status, [dict(reply.headers), reply.body]
