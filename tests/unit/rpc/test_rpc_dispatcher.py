"""From a message to a typed call."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, ClassVar, Protocol

import msgspec
import pytest

from kilonova.model.errors import BadArguments, UnknownMethod, UnsupportedVersion
from kilonova.rpc.dispatcher import Dispatcher, methods_of
from kilonova.rpc.envelope import Message, Offer, pack


class Box(msgspec.Struct, frozen=True, kw_only=True):
    version: str = "1.0"
    size: Annotated[int, msgspec.Meta(ge=1)]


class BaseAPI(Protocol):
    async def ping(self) -> str: ...


class StoreAPI(BaseAPI, Protocol):
    """Hints are strings in this module, as in any with postponed annotations."""

    topic: ClassVar[str] = "store"

    async def put(
        self,
        box: Box,
        rows: list[Box],
        *,
        at: uuid.UUID,
        tags: list[str] = [],  # noqa: B006
        note: str | None = None,
    ) -> Any: ...

    def plain(self) -> None: ...

    async def _hidden(self) -> None: ...


class Store:
    async def ping(self) -> str:
        return "pong"

    async def put(
        self,
        box: Box,
        rows: list[Box],
        *,
        at: uuid.UUID,
        tags: list[str] = [],  # noqa: B006
        note: str | None = None,
    ) -> Any:
        tags.append("seen")
        return box, rows, at, tags, note

    def plain(self) -> None:
        raise AssertionError("not callable from afar")

    async def _hidden(self) -> None:
        raise AssertionError("not callable from afar")

    async def extra(self) -> None:
        raise AssertionError("not declared")


AT = "6f1d8f1e-4b3c-4a8e-9d55-0f1d2c3b4a5f"


def a_dispatcher() -> Dispatcher:
    return Dispatcher(StoreAPI, Store(), topic="store", host="h", version="1.4")


async def dispatch(method: str, version: str = "1.0", **args: Any) -> Any:
    return await a_dispatcher().dispatch(Message(msg_id="m", method=method, version=version, args=pack(args)))


def test_methods_are_the_protocols_public_async_ones() -> None:
    assert methods_of(StoreAPI) == ("ping", "put")


async def test_arguments_arrive_in_the_types_of_the_hints() -> None:
    box, rows, at, tags, note = await dispatch("put", box={"size": 2}, rows=[{"size": 3}], at=AT, note="n")
    assert (box, rows, at, tags, note) == (Box(size=2), [Box(size=3)], uuid.UUID(AT), ["seen"], "n")


async def test_each_call_has_its_own_default() -> None:
    dispatcher = a_dispatcher()
    message = Message(msg_id="m", method="put", version="1.0", args=pack({"box": Box(size=1), "rows": [], "at": AT}))
    for _ in range(2):
        *_, tags, note = await dispatcher.dispatch(message)
        assert (tags, note) == (["seen"], None)


async def test_inherited_method_is_offered() -> None:
    assert await dispatch("ping") == "pong"


@pytest.mark.parametrize("method", ["plain", "_hidden", "extra", "__init__", "topic", ""])
async def test_what_the_protocol_does_not_declare_cannot_be_called(method: str) -> None:
    with pytest.raises(UnknownMethod):
        await dispatch(method)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"box": {"size": 0}, "rows": [], "at": AT}, "box"),
        ({"box": {"size": 1}, "rows": [{"size": "1"}], "at": AT}, "rows"),
        ({"box": {"size": 1}, "rows": [], "at": "here"}, "at"),
        ({"box": {"size": 1}, "rows": []}, "at"),
        ({"box": {"size": 1}, "rows": [], "at": AT, "lid": True}, "lid"),
    ],
)
async def test_bad_argument_is_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(BadArguments) as caught:
        await dispatch("put", **args)
    assert named in caught.value.message


async def test_arguments_that_are_no_object_are_refused() -> None:
    for raw in (b"[1]", b"null", b"3", b'"x"'):
        with pytest.raises(BadArguments):
            await a_dispatcher().dispatch(Message(msg_id="m", method="ping", version="1.0", args=msgspec.Raw(raw)))


@pytest.mark.parametrize("version", ["1.5", "1.10", "2.0", "0.9", "", "1", "1.x", "-1.0"])
async def test_version_out_of_reach_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedVersion):
        await dispatch("ping", version=version)


@pytest.mark.parametrize("version", ["1.0", "1.4"])
async def test_version_within_reach_is_taken(version: str) -> None:
    assert await dispatch("ping", version=version) == "pong"


async def test_version_can_be_asked_in_any_version() -> None:
    offer = await dispatch("rpc.version", version="99.0")
    assert offer == Offer(topic="store", host="h", version="1.4", methods=("ping", "put"))


def test_endpoint_that_forgot_a_method_is_refused_at_the_start() -> None:
    class Half:
        async def ping(self) -> str:
            return "pong"

    with pytest.raises(TypeError, match=r"Half does not implement StoreAPI\.put"):
        Dispatcher(StoreAPI, Half(), topic="store", host="h", version="1.0")


def test_endpoint_that_inherits_the_empty_method_is_refused_at_the_start() -> None:
    class Heir(StoreAPI):
        async def ping(self) -> str:
            return "pong"

    heir = Heir()  # type: ignore[abstract]
    with pytest.raises(TypeError, match=r"Heir does not implement StoreAPI\.put"):
        Dispatcher(StoreAPI, heir, topic="store", host="h", version="1.0")


def test_protocol_whose_arguments_have_no_names_is_refused_at_the_start() -> None:
    class LooseAPI(Protocol):
        async def anything(self, *args: int) -> None: ...

    class Loose:
        async def anything(self, *args: int) -> None: ...

    with pytest.raises(TypeError, match="needs a name"):
        Dispatcher(LooseAPI, Loose(), topic="t", host="h", version="1.0")


def test_own_version_must_be_one() -> None:
    with pytest.raises(ValueError, match="not a version"):
        Dispatcher(StoreAPI, Store(), topic="store", host="h", version="one")
