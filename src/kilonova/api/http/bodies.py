"""Bodies on the way in and out: never more than allowed in memory, never waiting longer than sensible."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from kilonova.api.http.json_text import shown
from kilonova.model.errors import BadRequest, CloudError, TooLarge, UnsupportedType

DECODED_BODY_S = 120.0
"""A body that is read whole (1 MiB mostly) must have arrived after this long, however steadily it trickles."""

Receive = Callable[[], Awaitable[Any]]


class ClientTooSlow(CloudError):
    """No byte of the body came for too long."""

    status = 408
    code = "request.timeout"

    @property
    def message(self) -> str:
        return "The request body did not arrive in time."


class Source(Protocol):
    """The web framework's request, for its bytes."""

    @property
    def stream(self) -> AsyncIterable[bytes]: ...


class Incoming:
    """The server's `receive` with a limit on silence, and a memory of whether the client hung up."""

    def __init__(self, receive: Receive, idle_s: float) -> None:
        self._receive = receive
        self._idle_s = idle_s
        self.hung_up = False

    async def __call__(self) -> Any:
        try:
            async with asyncio.timeout(self._idle_s):
                event = await self._receive()
        except TimeoutError:
            raise ClientTooSlow from None
        if event["type"] == "http.disconnect":
            self.hung_up = True
        return event


async def chunks(source: Source, headers: Mapping[str, str], limit: int | None, incoming: Any) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        TooLarge: it is longer than `limit` bytes, whether or not it says so.
        BadRequest: the client hung up before the end.
    """
    check_announced(headers, limit)
    count = 0
    async for chunk in source.stream:
        if not chunk:
            continue
        count += len(chunk)
        if limit is not None and count > limit:
            raise TooLarge(limit)
        yield chunk
    if getattr(incoming, "hung_up", False):
        raise BadRequest("The connection was closed before the end of the request body.")


def check_announced(headers: Mapping[str, str], limit: int | None) -> None:
    """
    Raises:
        TooLarge: the client says itself that it will send more than `limit` bytes.
        BadRequest: what it says is no length.
    """
    length = headers.get("content-length")
    if length is None:
        return
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise BadRequest(f"Content-Length {shown(length)} is not a length.")
    if limit is not None and int(length) > limit:
        raise TooLarge(limit)


async def read_all(source: Source, headers: Mapping[str, str], limit: int, incoming: Any) -> bytes:
    """The whole body, which is at most `limit` bytes long.

    Raises:
        TooLarge, BadRequest, ClientTooSlow
    """
    try:
        async with asyncio.timeout(DECODED_BODY_S):
            parts = [chunk async for chunk in chunks(source, headers, limit, incoming)]
    except TimeoutError:
        raise ClientTooSlow from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_media_type(headers: Mapping[str, str], accepted: Sequence[str]) -> None:
    """A body without a type is taken for what the route accepts, as OpenStack's services do.

    Raises:
        UnsupportedType
    """
    given = headers.get("content-type")
    if given is None or given in accepted:
        return
    kind, _, parameters = given.partition(";")
    if kind.strip().lower() not in accepted:
        raise UnsupportedType(f"The content type {shown(kind)} is not supported here; use {' or '.join(accepted)}.")
    charset = parameters.strip().lower().partition("charset=")[2].strip('"')
    if charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedType(f"The character set {shown(charset)} is not supported; use UTF-8.")


class Outgoing:
    """A reply's stream, which ends when its client has gone and is closed in any case."""

    def __init__(self, stream: AsyncIterator[bytes], receive: Receive) -> None:
        self._stream = stream
        self._gone = asyncio.ensure_future(_client_gone(receive))

    def __aiter__(self) -> "Outgoing":
        return self

    async def __anext__(self) -> bytes:
        # The server swallows what is sent to a client that has gone: without this, a whole image would be read for it.
        if self._gone.done():
            raise StopAsyncIteration
        return await anext(self._stream)

    async def close(self) -> None:
        """Called by the web framework when the last byte is sent or something broke."""
        self._gone.cancel()
        await close(self._stream)


async def close(stream: AsyncIterator[bytes]) -> None:
    """End a stream before its end, so that its files are closed now and not some time."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
