"""Tokens: made, shown, checked, exchanged, revoked; and at once in every process no more when something changes."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from identity_rig import World, message
from tests.support.stores import on_sqlite

from kilonova.identity.service import IdentityOptions, TokenBody
from kilonova.store.queries import identity as rows
from kilonova.store.tables.identity import users
from kilonova.store.transactions import update_rows

pytestmark = pytest.mark.usefixtures("blue")

LIFE = IdentityOptions.token_life_s


async def _check(world: World, subject: str, token: str | None = None) -> httpx.Response:
    return await world.call("GET", "/auth/tokens", token=token or subject, headers={"X-Subject-Token": subject})


async def _shown(world: World, subject: str) -> dict[str, Any]:
    answer = await _check(world, subject)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()["token"]
    return shown


async def _bob(world: World) -> str:
    [row] = await world.ask("GET", "/users?name=bob")
    return str(row["id"])


# ---- what they are --------------------------------------------------------------------------------------------------


async def test_a_project_token_shows_who_where_and_with_which_roles(world: World, blue: str) -> None:
    shown = await _shown(world, await world.login("bob", "pw", "blue"))
    assert shown["user"]["name"] == "bob"
    assert shown["user"]["domain"] == {"id": "default", "name": "Default"}
    assert shown["project"] == {"id": blue, "name": "blue", "domain": {"id": "default", "name": "Default"}}
    assert {role["name"] for role in shown["roles"]} == {"member", "reader"}
    assert shown["methods"] == ["password"]
    assert {entry["type"] for entry in shown["catalog"]} >= {"identity", "compute", "image", "network"}
    assert not {"domain", "system"} & shown.keys()


async def test_a_domain_token_and_a_system_token(world: World) -> None:
    domain = await _shown(world, await world.login("admin", world.admin_password, scope={"domain": {"id": "default"}}))
    assert domain["domain"] == {"id": "default", "name": "Default"}
    assert not {"project", "system"} & domain.keys()
    system = await _shown(world, await world.login("admin", world.admin_password, scope={"system": {"all": True}}))
    assert system["system"] == {"all": True}
    assert not {"project", "domain"} & system.keys()


async def test_an_unscoped_token_has_no_roles_and_no_catalogue(world: World) -> None:
    shown = await _shown(world, await world.login("bob", "pw"))
    assert not {"project", "domain", "system", "roles", "catalog"} & shown.keys()


async def test_the_default_project_is_taken_unless_it_is_said_not_to_be(world: World, blue: str) -> None:
    bob = await _bob(world)
    await world.ask("PATCH", f"/users/{bob}", {"user": {"default_project_id": blue}})
    assert (await _shown(world, await world.login("bob", "pw")))["project"]["id"] == blue
    assert "project" not in await _shown(world, await world.login("bob", "pw", scope="unscoped"))
    await world.ungrant("member", f"projects/{blue}", f"users/{bob}")
    assert "project" not in await _shown(world, await world.login("bob", "pw"))


async def test_without_the_catalogue_if_one_says_so(world: World) -> None:
    proof = {"methods": ["password"], "password": {"user": {"name": "bob", "password": "pw"}}}
    body = {"auth": {"identity": proof, "scope": {"project": {"name": "blue", "domain": {"id": "default"}}}}}
    answer = await world.call("POST", "/auth/tokens?nocatalog", body)
    assert "catalog" not in answer.json()["token"]


@pytest.mark.parametrize(
    "scope",
    [
        {"project": {"name": "admin", "domain": {"id": "default"}}},
        {"project": {"id": "f" * 32}},
        {"project": {"name": "blue", "domain": {"name": "Nowhere"}}},
        {"domain": {"id": "default"}},
        {"system": {"all": True}},
    ],
)
async def test_no_token_for_where_one_has_no_role(world: World, scope: dict[str, Any]) -> None:
    refused = await world.try_login("bob", "pw", scope=scope)
    assert refused.status_code == 401
    wrong = await world.try_login("bob", "wrong", scope=scope)
    assert message(refused) == message(wrong), "nothing is told of what is there"


async def test_two_logins_are_two_tokens(world: World) -> None:
    assert await world.login("bob", "pw") != await world.login("bob", "pw")


# ---- what is none ---------------------------------------------------------------------------------------------------


async def test_it_ends(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    world.clock.move(LIFE - 1)
    assert await world.use(token) == 200
    assert await world.use(token, on=1) == 200
    world.clock.move(1)
    assert await world.use(token) == 401
    assert await world.use(token, on=2) == 401


async def test_altered_in_any_part_it_is_none(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for place in (0, 3, 8, 12, 24, 30, len(raw) // 2, len(raw) - 33, len(raw) - 1):
        forged = bytearray(raw)
        forged[place] ^= 1
        assert await world.use(base64.urlsafe_b64encode(bytes(forged)).decode()) == 401, place
    for cut in (token[:-8], token[8:], token + "AAAA", token.swapcase()):
        assert await world.use(cut) == 401


@pytest.mark.parametrize("token", ["", "x", "gAAAAA", "A" * 6000, "%00", "a.b.c", "'; --"])
async def test_what_was_never_one(world: World, token: str) -> None:
    answer = await world.call("GET", "/auth/catalog", token=token)
    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers


async def test_made_with_anothers_key_it_is_none(world: World) -> None:
    other = World(world.store, world.clock)
    token = await other.login("bob", "pw", "blue")
    assert await other.use(token) == 200
    assert await world.use(token) == 401


@pytest.mark.parametrize("inside", [b"", b"\x00", b"not msgpack", b"\x97" + b"\xa1x" * 3])
async def test_well_signed_nonsense_is_none(world: World, inside: bytes) -> None:
    assert await world.use(Fernet(world.key).encrypt(inside).decode()) == 401


async def test_a_body_that_names_who_is_not_there_is_none(world: World) -> None:
    import msgspec

    now = world.clock.seconds
    body = TokenBody("f" * 32, "", "", ("password",), "audit", now, now + 60)
    assert await world.use(Fernet(world.key).encrypt(msgspec.msgpack.encode(body)).decode()) == 401


# ---- who may see and end them ---------------------------------------------------------------------------------------


async def test_everybody_sees_their_own_and_nobody_elses(world: World, blue: str) -> None:
    await world.user("eve", "member", blue)
    bob, eve = await world.login("bob", "pw", "blue"), await world.login("eve", "pw", "blue")
    assert (await _check(world, bob)).status_code == 200
    assert (await _check(world, bob, token=eve)).status_code == 403
    assert (await _check(world, bob, token=world.admin)).status_code == 200


async def test_a_service_may_see_them_but_not_end_them(world: World) -> None:
    project = await world.make("project", "services")
    await world.user("nova", "service", project)
    nova, bob = await world.login("nova", "pw", "services"), await world.login("bob", "pw", "blue")
    assert (await _check(world, bob, token=nova)).status_code == 200
    ended = await world.call("DELETE", "/auth/tokens", token=nova, headers={"X-Subject-Token": bob})
    assert ended.status_code == 403
    assert await world.use(bob) == 200


async def test_what_is_no_token_is_not_found(world: World) -> None:
    for method in ("GET", "DELETE"):
        answer = await world.call(method, "/auth/tokens", headers={"X-Subject-Token": "nonsense"})
        assert answer.status_code == 404
        assert (await world.call(method, "/auth/tokens")).status_code == 404


async def test_revoked_it_is_good_nowhere_at_once(world: World, blue: str) -> None:
    await world.user("eve", "member", blue)
    bob, other, eve = [await world.login(*who) for who in (("bob", "pw", "blue"), ("bob", "pw"), ("eve", "pw", "blue"))]
    assert [await world.use(bob, on=n) for n in range(3)] == [200] * 3
    refused = await world.call("DELETE", "/auth/tokens", token=eve, headers={"X-Subject-Token": bob})
    assert refused.status_code == 403
    ended = await world.call("DELETE", "/auth/tokens", token=bob, headers={"X-Subject-Token": bob})
    assert ended.status_code == 204
    assert [await world.use(bob, on=n) for n in range(4)] == [401] * 4
    assert await world.use(other, on=1) == 200, "one token, not the user"
    assert await world.use(eve, on=1) == 200


async def test_revocations_of_tokens_that_are_over_are_forgotten(world: World) -> None:
    for _ in range(3):
        token = await world.login("bob", "pw")
        await world.call("DELETE", "/auth/tokens", token=token, headers={"X-Subject-Token": token})
        world.clock.move(LIFE + 1)
    from kilonova.store.tables.identity import revocations
    from kilonova.store.transactions import select_rows

    assert len(await world.store.read(lambda tx: select_rows(tx, revocations, {}).all())) == 1


# ---- changes count at once in every process -------------------------------------------------------------------------


async def _change(world: World, what: str, blue: str) -> None:
    bob = await _bob(world)
    if what == "user disabled":
        await world.ask("PATCH", f"/users/{bob}", {"user": {"enabled": False}})
    elif what == "user deleted":
        await world.ask("DELETE", f"/users/{bob}")
    elif what == "password changed by the user":
        own = await world.login("bob", "pw")
        world.clock.move(1)
        body = {"user": {"original_password": "pw", "password": "new"}}
        await world.ask("POST", f"/users/{bob}/password", body, token=own)
    elif what == "password set by the administrator":
        world.clock.move(1)
        await world.ask("PATCH", f"/users/{bob}", {"user": {"password": "new"}})
    elif what == "project disabled":
        await world.ask("PATCH", f"/projects/{blue}", {"project": {"enabled": False}})
    elif what == "project deleted":
        await world.ask("DELETE", f"/projects/{blue}")
    elif what == "role taken away":
        await world.ungrant("member", f"projects/{blue}", f"users/{bob}")
    elif what == "role deleted":
        await world.ask("DELETE", f"/roles/{await world.role('member')}")


@pytest.mark.parametrize(
    "what",
    [
        "user disabled", "user deleted", "password changed by the user", "password set by the administrator",
        "project disabled", "project deleted", "role taken away", "role deleted",
    ],
)  # fmt: skip
async def test_what_is_changed_counts_in_every_process_at_once(world: World, blue: str, what: str) -> None:
    token = await world.login("bob", "pw", "blue")
    assert [await world.use(token, on=n) for n in range(3)] == [200] * 3
    await _change(world, what, blue)
    assert [await world.use(token, on=n) for n in range(4)] == [401] * 4


async def test_a_domain_that_is_disabled_takes_its_users_along(world: World) -> None:
    acme = await world.make("domain", "acme")
    project = await world.make("project", "p", domain_id=acme)
    await world.user("ann", "member", project, domain_id=acme)
    token = await world.login("ann@acme", "pw", "p@acme")
    assert await world.use(token, on=1) == 200
    await world.ask("PATCH", f"/domains/{acme}", {"domain": {"enabled": False}})
    assert await world.use(token, on=1) == 401
    assert (await world.try_login("ann@acme", "pw")).status_code == 401
    assert (await world.try_login("ann@acme", "pw", "p@acme")).status_code == 401


async def test_a_new_role_counts_at_once_too(world: World, blue: str) -> None:
    token = await world.login("bob", "pw", "blue")
    assert (await world.call("GET", "/users", token=token, on=1)).status_code == 403
    await world.grant("admin", f"projects/{blue}", f"users/{await _bob(world)}")
    assert (await world.call("GET", "/users", token=token, on=1)).status_code == 200


@pytest.mark.parametrize("kind", ["user", "project", "domain"])
async def test_what_was_disabled_and_is_enabled_again_wants_new_tokens(world: World, kind: str) -> None:
    ids = {"domain": await world.make("domain", "acme")}
    ids["project"] = await world.make("project", "p", domain_id=ids["domain"])
    await world.user("ann", "member", ids["project"], domain_id=ids["domain"])
    [ann] = await world.ask("GET", "/users?name=ann")
    ids["user"] = ann["id"]
    token = await world.login("ann@acme", "pw", "p@acme")
    world.clock.move(1)
    for enabled in (False, True):
        assert await world.use(token) == (401 if enabled else 200)
        await world.ask("PATCH", f"/{kind}s/{ids[kind]}", {kind: {"enabled": enabled}})
    assert await world.use(token) == 401
    assert await world.use(await world.login("ann@acme", "pw", "p@acme")) == 200


async def test_a_password_changed_while_one_logs_in_with_the_old_one(world: World) -> None:
    """The hash was read before the change; the token is made after it."""
    passwords = world.process().passwords
    check = passwords.check_user

    async def slow(proof: Any, user: Any) -> Any:
        found = await check(proof, user)
        world.clock.move(1)
        await world.ask("PATCH", f"/users/{found['id']}", {"user": {"password": "new"}}, on=1)
        world.clock.move(1)
        return found

    passwords.check_user = slow  # type: ignore[method-assign]
    assert (await world.try_login("bob", "pw", "blue")).status_code == 401


async def test_a_name_is_what_it_is_now(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    assert (await _shown(world, token))["user"]["name"] == "bob"
    await world.ask("PATCH", f"/users/{await _bob(world)}", {"user": {"name": "robert"}}, on=1)
    assert (await _shown(world, token))["user"]["name"] == "robert"


async def test_what_is_changed_by_hand_counts_after_the_time_that_is_said(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    assert await world.use(token) == 200
    await world.store.run(update_rows, users, {"id": await _bob(world)}, {"enabled": False})
    assert await world.use(token) == 200
    world.clock.move(IdentityOptions.cache_s + 1)
    assert await world.use(token) == 401


# ---- at what price --------------------------------------------------------------------------------------------------


async def test_a_known_token_costs_one_look_at_the_epoch_and_nothing_else(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    await world.use(token)
    identity, reads = world.process().identity, 0
    read = world.store.read

    async def counted(fn: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(fn, *args, **kwargs)

    world.store.read = counted  # type: ignore[method-assign]
    before = identity._epoch.reads
    for _ in range(10):
        assert await world.use(token) == 200
    # On a server that look is a read like others.
    assert (identity._epoch.reads - before, reads) == (10, 0 if on_sqlite() else 10)


async def test_requests_at_the_same_moment_share_a_look_but_none_that_began_before(world: World) -> None:
    epoch = world.process().identity._epoch
    asked: list[asyncio.Future[None]] = []

    async def slow(fn: Any) -> int:
        value: int = await world.store.read(fn)  # what a server has read already, and is on its way
        asked.append(asyncio.get_running_loop().create_future())
        await asked[-1]
        return value

    epoch._store = type("Slow", (), {"glance": staticmethod(slow)})()  # type: ignore[assignment]
    first = asyncio.create_task(epoch.current())
    while not asked:
        await asyncio.sleep(0.001)
    await world.store.run(rows.changed)
    later = [asyncio.create_task(epoch.current()) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert len(asked) == 1, "one at a time"
    asked[0].set_result(None)
    while len(asked) < 2:
        await asyncio.sleep(0.001)
    later[0].cancel()  # who gives up takes nothing from the others
    asked[1].set_result(None)
    new = await asyncio.gather(*later[1:])
    assert set(new) == {await first + 1}, "who asked after the change sees it"
    assert len(asked) == 2


async def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilonova.identity.service.MAX_REMEMBERED", 3)
    tokens = [await world.login("bob", "pw", "blue") for _ in range(5)]
    for token in tokens * 2:
        assert await world.use(token) == 200
    assert len(world.process().identity._known) == 3


# ---- exchanged for others -------------------------------------------------------------------------------------------


async def test_a_token_for_a_token(world: World) -> None:
    unscoped = await world.login("bob", "pw")
    scoped = world.token_of(await world.exchange(unscoped, {"project": {"name": "blue", "domain": {"id": "default"}}}))
    shown, first = await _shown(world, scoped), await _shown(world, unscoped)
    assert shown["project"]["name"] == "blue"
    assert shown["methods"] == ["password", "token"]
    assert shown["audit_ids"][1] == first["audit_ids"][0]
    assert shown["audit_ids"][0] != first["audit_ids"][0]


async def test_exchanged_it_lives_no_longer(world: World) -> None:
    token = await world.login("bob", "pw")
    ends = (await _shown(world, token))["expires_at"]
    for _ in range(3):
        world.clock.move(LIFE / 4)
        token = world.token_of(await world.exchange(token))
        assert (await _shown(world, token))["expires_at"] == ends
    world.clock.move(LIFE / 4)
    assert await world.use(token) == 401


async def test_exchanged_it_has_no_more_roles(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    assert (await world.exchange(token, {"project": {"name": "admin", "domain": {"id": "default"}}})).status_code == 401
    assert (await world.exchange(token, {"system": {"all": True}})).status_code == 401


async def test_a_revoked_one_is_exchanged_for_nothing(world: World) -> None:
    token = await world.login("bob", "pw")
    await world.call("DELETE", "/auth/tokens", token=token, headers={"X-Subject-Token": token})
    assert (await world.exchange(token)).status_code == 401


async def test_head_checks_a_token_too(world: World) -> None:
    token = await world.login("bob", "pw", "blue")
    for subject, status in ((token, 200), ("nonsense", 404)):
        answer = await world.call("HEAD", "/auth/tokens", token=token, headers={"X-Subject-Token": subject})
        assert (answer.status_code, answer.content) == (status, b"")


async def test_who_wants_to_look_seldom_notices_a_little_later(world: World) -> None:
    options = IdentityOptions(recheck_s=0.02)
    other = World(world.store, world.clock, options, world.key)
    token = await world.login("bob", "pw", "blue")
    assert await other.use(token) == 200
    world.clock.move(1)
    assert await other.use(token) == 200
    reads = other.process().identity._epoch.reads
    await world.ask("PATCH", f"/users/{await _bob(world)}", {"user": {"enabled": False}})
    world.clock.move(0.019)
    assert await other.use(token) == 200
    assert other.process().identity._epoch.reads == reads
    world.clock.move(0.002)
    assert await other.use(token) == 401
