"""Guessing passwords: the limit holds for all API processes together, and says nothing of who exists."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from identity_rig import LIMIT, World, message

from kilonova.identity.passwords import MAX_WAITING, Proof
from kilonova.identity.service import IdentityOptions
from kilonova.model.errors import TooManyRequests
from kilonova.store.queries import failed_logins
from kilonova.store.tables.identity import failed_logins as table
from kilonova.store.transactions import Tx

pytestmark = pytest.mark.usefixtures("blue")


def _rows(tx: Tx) -> list[tuple[str, int]]:
    return [(row.key, row[1]) for row in tx.execute(sa.select(table.c.key, table.c.count))]


async def _fail(world: World, times: int, user: str = "bob", **more: Any) -> list[int]:
    return [(await world.try_login(user, "wrong", **more)).status_code for _ in range(times)]


async def test_so_many_in_a_minute_and_then_not_even_the_right_one(world: World) -> None:
    assert await _fail(world, LIMIT + 2) == [401] * LIMIT + [429] * 2
    refused = await world.try_login("bob", "pw")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    world.clock.move(int(refused.headers["Retry-After"]))
    await world.login("bob", "pw", "blue")


async def test_other_processes_count_along(world: World) -> None:
    found = [(await world.try_login("bob", "wrong", on=n % 3)).status_code for n in range(LIMIT + 1)]
    assert found == [401] * LIMIT + [429]
    assert [(await world.try_login("bob", "pw", on=n)).status_code for n in range(4)] == [429] * 4


async def test_many_at_the_same_moment_in_several_processes_are_no_way_around(world: World) -> None:
    answers = await asyncio.gather(*(world.try_login("bob", "wrong", on=n % 3) for n in range(6 * LIMIT)))
    found = Counter(answer.status_code for answer in answers)
    assert found == {401: LIMIT, 429: 5 * LIMIT}


async def test_a_right_one_among_too_many_wrong_ones_is_not_told_from_them(world: World) -> None:
    def fill(tx: Tx, key: str) -> None:
        for _ in range(LIMIT):
            failed_logins.add(tx, key, limit=LIMIT, now=world.clock.now())

    passwords = world.process().passwords
    verify = passwords._verify

    def slow(hashed: str | None, secret: str) -> bool:
        world.store.run_now(fill, key)  # while it is looked at, others fail
        return verify(hashed, secret)

    key = Proof("bob in default", "198.51.100.7", "pw").key
    passwords._verify = slow  # type: ignore[method-assign]
    assert (await world.try_login("bob", "pw", "blue")).status_code == 429


async def test_a_good_login_forgets_the_failures_before(world: World) -> None:
    await _fail(world, LIMIT - 1)
    await world.login("bob", "pw")
    assert await world.store.read(_rows) == []
    assert await _fail(world, LIMIT) == [401] * LIMIT


async def test_a_good_login_writes_nothing(world: World) -> None:
    before = world.store.transactions
    await world.login("bob", "pw")
    assert world.store.transactions == before


async def test_other_users_and_other_addresses_go_on(world: World) -> None:
    await _fail(world, LIMIT + 1)
    await world.login("bob", "pw", source="203.0.113.9")
    await world.login("admin", world.admin_password)


@pytest.mark.parametrize("who", ["bob", "nobody", "bob@Nowhere"])
async def test_who_is_not_there_is_answered_alike(world: World, who: str) -> None:
    answers = [await world.try_login(who, "wrong") for _ in range(LIMIT + 1)]
    assert [answer.status_code for answer in answers] == [401] * LIMIT + [429]
    assert len({message(answer) for answer in answers[:LIMIT]}) == 1
    assert message(answers[0]).startswith("The request you have made requires authentication.")
    assert who.partition("@")[0] not in answers[0].text + answers[-1].text


@pytest.mark.parametrize("who", ["bob", "nobody"])
async def test_another_way_to_name_the_same_user_is_no_new_chance(world: World, who: str) -> None:
    ways: list[dict[str, Any]] = [{"id": "default"}, {"name": "Default"}, {}]
    found = []
    for n in range(LIMIT + 1):
        user = {"name": who, "password": "wrong", "domain": ways[n % 3]}
        if n % 3 == 2:
            del user["domain"]
        found.append((await world.auth({"methods": ["password"], "password": {"user": user}})).status_code)
    assert found == [401] * LIMIT + [429]


async def test_by_id_counts_as_by_name(world: World) -> None:
    [bob] = await world.ask("GET", "/users?name=bob")
    await _fail(world, LIMIT)
    proof = {"methods": ["password"], "password": {"user": {"id": bob["id"], "password": "pw"}}}
    assert (await world.auth(proof)).status_code == 429


@pytest.mark.parametrize("state", ["there", "not there", "disabled", "without a password"])
async def test_the_same_work_is_done_whoever_it_is(world: World, state: str) -> None:
    [bob] = await world.ask("GET", "/users?name=bob")
    if state == "disabled":
        await world.ask("PATCH", f"/users/{bob['id']}", {"user": {"enabled": False}})
    if state == "without a password":
        await world.ask("PATCH", f"/users/{bob['id']}", {"user": {"password": None}})
    hasher = world.process().hasher
    before = hasher.verified
    assert (await world.try_login("nobody" if state == "not there" else "bob", "wrong")).status_code == 401
    assert hasher.verified == before + 1


async def test_nobodys_password_logs_nobody_in(world: World) -> None:
    await world.make("user", "silent")
    for who in ("silent", "nobody"):
        assert (await world.try_login(who, "nobody")).status_code == 401


async def test_what_is_refused_costs_no_hash(world: World) -> None:
    await _fail(world, LIMIT)
    before = world.process().hasher.verified
    assert await _fail(world, 3) == [429] * 3
    assert world.process().hasher.verified == before


async def test_secrets_of_application_credentials_are_guessed_as_seldom(world: World, blue: str) -> None:
    bob = await world.login("bob", "pw", "blue")
    [row] = await world.ask("GET", "/users?name=bob")
    made = await world.ask(
        "POST", f"/users/{row['id']}/application_credentials", {"application_credential": {"name": "ci"}}, token=bob
    )

    async def guess(secret: str, **credential: Any) -> httpx.Response:
        return await world.auth(
            {"methods": ["application_credential"], "application_credential": {"secret": secret, **credential}}
        )

    for credential in ({"id": made["id"]}, {"id": "f" * 32}, {"name": "ci", "user": {"id": row["id"]}}):
        found = [(await guess("wrong", **credential)).status_code for _ in range(LIMIT + 1)]
        assert found == [401] * LIMIT + [429]
    assert (await guess(made["secret"], id=made["id"])).status_code == 429


async def test_wrong_old_passwords_count(world: World) -> None:
    [row] = await world.ask("GET", "/users?name=bob")
    bob = await world.login("bob", "pw", "blue")
    body = {"user": {"original_password": "wrong", "password": "new"}}
    found = [
        (await world.call("POST", f"/users/{row['id']}/password", body, token=bob)).status_code
        for _ in range(LIMIT + 1)
    ]
    assert found == [401] * LIMIT + [429]


async def test_old_rows_go_and_names_are_not_kept(world: World) -> None:
    for n in range(20):
        await world.try_login(f"hunter{n}", "wrong")
    rows = await world.store.read(_rows)
    assert len(rows) == 20
    assert all(len(key) == 64 and "hunter" not in key for key, _ in rows)
    world.clock.move(61)
    await world.try_login("bob", "wrong")
    assert len(await world.store.read(_rows)) == 1


async def test_a_clock_that_is_set_back_locks_nobody_out(world: World) -> None:
    await _fail(world, LIMIT)
    world.clock.move(-7200)
    await world.login("bob", "pw")
    assert await _fail(world, 1) == [401]


async def test_no_limit_where_none_is_wanted(world: World) -> None:
    free = World(world.store, world.clock, IdentityOptions(failed_logins_per_minute=0), world.key)
    assert await _fail(free, 3 * LIMIT) == [401] * 3 * LIMIT
    assert await world.store.read(_rows) == []


async def test_logins_do_not_queue_without_end(world: World) -> None:
    passwords = world.process().passwords
    passwords._waiting = MAX_WAITING
    answer = await world.try_login("bob", "pw")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "2"
    passwords._waiting = 0
    await world.login("bob", "pw")
    assert passwords._waiting == 0


async def test_the_wait_is_what_is_left_of_the_minute(world: World) -> None:
    now = world.clock.now()

    def fill(tx: Tx) -> None:
        for _ in range(LIMIT):
            failed_logins.add(tx, "k", limit=LIMIT, now=now)

    await world.store.run(fill)
    for later, wait in ((0, 60), (30.5, 30), (59.9, 1)):
        with pytest.raises(TooManyRequests) as refused:
            await world.store.read(failed_logins.check, "k", limit=LIMIT, now=now + timedelta(seconds=later))
        assert abs(refused.value.retry_after_s - wait) <= 1
    assert not await world.store.read(failed_logins.check, "k", limit=LIMIT, now=now + timedelta(seconds=60))


async def test_what_is_full_is_not_cleared_by_one_that_was_right(world: World) -> None:
    now = world.clock.now()

    def fill(tx: Tx, times: int) -> None:
        for _ in range(times):
            failed_logins.add(tx, "k", limit=LIMIT, now=now)

    await world.store.run(fill, LIMIT)
    with pytest.raises(TooManyRequests):
        await world.store.run(failed_logins.clear, "k", limit=LIMIT, now=now)
    assert await world.store.read(_rows) == [("k", LIMIT)]
    await world.store.run(failed_logins.clear, "k", limit=LIMIT + 1, now=now)
    assert await world.store.read(_rows) == []


async def test_who_is_not_there_is_counted_apart_from_others_who_are_not(world: World) -> None:
    for who in ("a@Nowhere", "b@Nowhere", "a@Elsewhere", "a", "b"):
        assert await _fail(world, LIMIT + 1, who) == [401] * LIMIT + [429], who
