"""New things of a collection: one or many, all checked before the first is made, one answer kept."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from http_sample import People
from msgspec import UNSET, Struct, UnsetType

from kilonova.api.http.microversions import UNVERSIONED
from kilonova.api.http.request import Request
from kilonova.api.network.collection import create
from kilonova.model.context import Once, RequestContext
from kilonova.model.errors import BadRequest, QuotaExceeded


class Body(Struct):
    thing: str | UnsetType = UNSET
    things: list[str] | UnsetType = UNSET


class Shop:
    """Makes things in upper case; as the use cases do, it gives each to what keeps the request's answer."""

    def __init__(self, *, room: int = 10) -> None:
        self.made: list[str] = []
        self.kept: list[Any] = []
        self._room = room
        self.once = Once(key="k", fingerprint="f", secret=b"s")
        ctx = RequestContext(request_id="req-1", once=self.once)
        self.req = Request(ctx, UNVERSIONED, "POST", "/things", "/x", "http://c:1", {}, [], People(), 201)

    def order(self, name: str) -> Callable[[], Awaitable[str]]:
        if not name.isalpha():
            raise BadRequest(f"{name} is no name.")

        async def make() -> str:
            if len(self.made) == self._room:
                raise QuotaExceeded(resource="thing", limit=self._room, used=self._room, asked=1)
            self.made.append(name.upper())
            assert self.once.render is not None
            self.kept.append(self.once.render(self.made[-1]))
            return self.made[-1]

        return make

    async def ask(self, body: Body) -> Any:
        return (await create(self.req, "thing", body, self.order, lambda made: {"name": made})).body


async def test_one_is_answered_as_one_and_many_as_many() -> None:
    assert await Shop().ask(Body(thing="a")) == {"thing": {"name": "A"}}
    assert await Shop().ask(Body(things=["a"])) == {"things": [{"name": "A"}]}
    assert await Shop().ask(Body(things=["a", "b"])) == {"things": [{"name": "A"}, {"name": "B"}]}


@pytest.mark.parametrize("body", [Body(), Body(thing="a", things=["b"])])
async def test_a_body_asks_for_one_or_for_many(body: Body) -> None:
    shop = Shop()
    with pytest.raises(BadRequest, match="either 'thing' or 'things'"):
        await shop.ask(body)
    assert shop.made == []


async def test_nothing_is_made_if_the_last_one_makes_no_sense() -> None:
    shop = Shop()
    with pytest.raises(BadRequest, match="2 is no name"):
        await shop.ask(Body(things=["a", "b", "2"]))
    assert shop.made == []


async def test_the_answer_is_kept_with_the_last_one_made_and_is_the_answer() -> None:
    shop = Shop()
    answered = await shop.ask(Body(things=["a", "b", "c"]))
    assert shop.kept[:2] == [None, None]
    assert shop.kept[2] == (201, [{}, answered])


async def test_what_could_not_be_finished_has_no_answer() -> None:
    shop = Shop(room=1)
    with pytest.raises(QuotaExceeded):
        await shop.ask(Body(things=["a", "b"]))
    assert shop.kept == [None]
