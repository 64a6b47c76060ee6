"""What travels between services: plain JSON, one object a message.

A message names a method and carries its arguments; objects among them carry their own ``version`` field.
A reply carries either a result or an error, and the `msg_id` of the message that it answers. Arguments
and results stay raw JSON here: only the dispatcher and the caller know their types.
"""

import contextlib
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from kilonova.model.errors import CloudError, MessageTooLarge, RemoteFault, from_wire

NULL = msgspec.Raw(b"null")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what was expected (msgspec's ValidationError is among them)."""
VERSION_METHOD = "rpc.version"
"""Every endpoint answers this method with its `Offer`, whatever version it is asked in."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A call (`reply_to` is set), a cast, or one copy of a fan-out."""

    envelope: str = "1.0"
    msg_id: str
    """Unique; the reply carries it, and a second message with it is a duplicate."""
    reply_to: str | None = None
    method: str
    version: str
    args: msgspec.Raw
    request_id: str | None = None
    source: str = ""
    """The service that speaks."""
    deadline: datetime | None = None
    """When the caller stops waiting, by the caller's clock."""
    remaining_s: float | None = None
    """How long it was to that deadline when this was sent: what a host with another clock can use."""


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of `kilonova.model.errors`: its stable code and its facts; `message` for those who lack the code."""

    code: str
    facts: dict[str, Any]
    message: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one call."""

    envelope: str = "1.0"
    msg_id: str
    source: str = ""
    result: msgspec.Raw = NULL
    error: WireError | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint says of itself when asked for its version."""

    topic: str
    host: str
    version: str
    methods: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_message_decoder = msgspec.json.Decoder(Message)
_reply_decoder = msgspec.json.Decoder(Reply)


@lru_cache(maxsize=1024)
def _decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def pack(value: Any) -> msgspec.Raw:
    """`value` as JSON to be put into a message or a reply.

    Raises:
        TypeError: it holds something that JSON cannot carry.
    """
    return NULL if value is None else msgspec.Raw(_encoder.encode(value))


def unpack(raw: msgspec.Raw, kind: Any = None) -> Any:
    """The value in `raw`, as `kind` (any type that msgspec knows), or as plain JSON values without one.

    Raises:
        UNREADABLE: it is not a `kind`.
    """
    return msgspec.json.decode(raw) if kind is None else _decoder_of(kind).decode(raw)


def encode(envelope: Message | Reply, limit: int) -> bytes:
    """The bytes that travel.

    Raises:
        MessageTooLarge: they are more than `limit`.
    """
    body = _encoder.encode(envelope)
    if len(body) > limit:
        raise MessageTooLarge(size=len(body), limit=limit)
    return body


def decode_message(body: bytes) -> Message:
    """Raises `UNREADABLE` where `body` is no message."""
    return _message_decoder.decode(body)


def decode_reply(body: bytes) -> Reply:
    """Raises `UNREADABLE` where `body` is no reply."""
    return _reply_decoder.decode(body)


def wire_error(error: BaseException) -> WireError:
    """`error` in the form that travels. What is not a `CloudError` becomes a `RemoteFault`."""
    if isinstance(error, CloudError):
        # A fact or a sentence that JSON cannot carry must not cost the caller the answer.
        with contextlib.suppress(TypeError, ValueError):
            facts = msgspec.json.decode(_encoder.encode(error.facts()))
            return WireError(code=error.code, facts=facts, message=str(error))
    fault = RemoteFault(type=type(error).__name__, detail=_words(error))
    return WireError(code=fault.code, facts=fault.facts(), message=fault.message)


def _words(error: BaseException) -> str:
    try:
        return str(error).encode(errors="replace").decode()  # half a surrogate pair cannot travel
    except Exception as failure:
        return f"without words ({type(failure).__name__})"


def raised_error(wire: WireError) -> CloudError:
    """The error to raise here for one that was raised there; a `RemoteFault` if its type is not known here."""
    try:
        error = from_wire(wire.code, wire.facts)
    except TypeError:  # the other side's version of this error lacks a fact that ours needs
        return RemoteFault(type=wire.code, detail=wire.message)
    if isinstance(error, RemoteFault) and wire.code != RemoteFault.code and wire.message:
        return RemoteFault(type=wire.code, detail=wire.message)
    return error
