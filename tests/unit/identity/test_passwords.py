"""How passwords are kept."""

import argon2
import pytest
from identity_rig import CHEAP, World, message

from kilonova.identity.passwords import MAX_LENGTH, Passwords, Proof
from kilonova.model.errors import BadRequest, Unauthorized
from kilonova.store.queries import identity as rows


async def _hash(world: World, name: str) -> str:
    [row] = await world.store.read(rows.find, "user", name=name)
    return str(row["password_hash"])


async def test_they_are_hashed_with_argon2id_of_todays_strength(world: World) -> None:
    passwords = Passwords(world.store, world.clock, failures_per_minute=0)
    kept = await passwords.hash("secret")
    found = argon2.extract_parameters(kept)
    assert found.type is argon2.Type.ID
    # The least that OWASP's cheat sheet asks for: 19 MiB, two passes, one lane.
    assert found.memory_cost >= 19456
    assert found.time_cost >= 2
    assert found.salt_len >= 16
    assert found.hash_len >= 32


async def test_the_same_password_is_never_hashed_alike(world: World) -> None:
    passwords = world.process().passwords
    assert await passwords.hash("secret") != await passwords.hash("secret")


@pytest.mark.parametrize("password", ["p", " lead and trail ", "пароль 🚀", "%s'\"\\", "x" * MAX_LENGTH])
async def test_what_is_set_can_be_used(world: World, password: str) -> None:
    user_id = await world.make("user", "ann", password=password)
    await world.login("ann", password)
    assert (await world.try_login("ann", password + "x")).status_code in (400, 401)
    assert (await world.try_login("ann", password[:-1])).status_code == 401
    shown = await world.ask("GET", f"/users/{user_id}")
    assert not [name for name in shown if "password" in name and name != "password_expires_at"]
    assert password not in str(shown) or password in ("p",)


@pytest.mark.parametrize("body", [{"password": ""}, {"password": "x" * (MAX_LENGTH + 1)}, {"password": 5}])
async def test_what_cannot_be_one_is_refused_by_name(world: World, body: dict[str, object]) -> None:
    answer = await world.call("POST", "/users", {"user": {"name": "ann", **body}})
    assert answer.status_code == 400
    assert "password" in message(answer)


async def test_too_long_is_refused_before_it_is_hashed(world: World) -> None:
    with pytest.raises(BadRequest):
        await world.process().passwords.hash("x" * (MAX_LENGTH + 1))
    answer = await world.try_login("admin", "x" * (MAX_LENGTH + 1))
    assert answer.status_code == 400
    assert "password" in message(answer)


async def test_one_hashed_otherwise_is_hashed_anew_when_it_is_used(world: World) -> None:
    user_id = await world.user("ann")
    old = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    await world.store.run(rows.update, "user", user_id, {"password_hash": old.hash("pw")})
    before = await _hash(world, "ann")
    assert (await world.try_login("ann", "wrong")).status_code == 401
    assert await _hash(world, "ann") == before
    token = await world.login("ann", "pw")
    after = await _hash(world, "ann")
    assert after != before
    assert not CHEAP.check_needs_rehash(after)
    await world.login("ann", "pw")
    assert await _hash(world, "ann") == after, "once is enough"
    assert await world.use(token) == 200, "it is the same password: no token ends"


async def test_a_better_hash_does_not_undo_a_change(world: World) -> None:
    user_id = await world.user("ann")
    before = await _hash(world, "ann")
    await world.ask("PATCH", f"/users/{user_id}", {"user": {"password": "new"}})
    await world.store.run(rows.keep_better_hash, user_id, before, "a hash of the old one")
    await world.login("ann", "new")


@pytest.mark.parametrize("kept", ["", "plain", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$broken"])
async def test_a_hash_that_is_none_lets_nobody_in(world: World, kept: str) -> None:
    user_id = await world.user("ann")
    await world.store.run(rows.update, "user", user_id, {"password_hash": kept})
    for secret in ("pw", kept, "nobody"):
        with pytest.raises(Unauthorized):
            await world.process().passwords.check(Proof("ann", "here", secret), kept)


async def test_a_user_changes_their_own(world: World) -> None:
    project = await world.make("project", "p")
    user_id = await world.user("ann", "reader", project)
    token = await world.login("ann", "pw", "p")
    world.clock.move(1)
    body = {"user": {"original_password": "pw", "password": "new"}}
    assert (await world.call("POST", f"/users/{user_id}/password", body, token=token)).status_code == 204
    assert await world.use(token) == 401
    assert (await world.try_login("ann", "pw")).status_code == 401
    await world.login("ann", "new", "p")


async def test_but_nobody_elses(world: World) -> None:
    project = await world.make("project", "p")
    ann = await world.user("ann")
    await world.user("eve", "member", project)
    eve = await world.login("eve", "pw", "p")
    body = {"user": {"original_password": "pw", "password": "new"}}
    assert (await world.call("POST", f"/users/{ann}/password", body, token=eve)).status_code == 403
    await world.login("ann", "pw")


async def test_null_takes_it_away(world: World) -> None:
    user_id = await world.user("ann")
    token = await world.login("ann", "pw")
    world.clock.move(1)
    await world.ask("PATCH", f"/users/{user_id}", {"user": {"password": None}})
    assert (await world.try_login("ann", "pw")).status_code == 401
    assert await world.use(token) == 401


async def test_no_log_line_and_no_answer_has_a_secret(world: World, log_lines: list[dict[str, object]]) -> None:
    project = await world.make("project", "p")
    user_id = await world.make("user", "ann", password="Hunter2!Hunter2")
    await world.grant("member", f"projects/{project}", f"users/{user_id}")
    answers = [await world.try_login("ann", "Hunter2!Hunter2", "p"), await world.try_login("ann", "Wrong4Wrong4")]
    token = world.token_of(answers[0])
    body = {"application_credential": {"name": "ci", "secret": "Sesame5Sesame5"}}
    made = await world.ask("POST", f"/users/{user_id}/application_credentials", body, token=token)
    proof = {"id": made["id"], "secret": "Sesame6Sesame6"}
    answers.append(await world.auth({"methods": ["application_credential"], "application_credential": proof}))
    answers.append(await world.call("GET", f"/users/{user_id}/application_credentials", token=token))
    answers.append(await world.call("GET", "/users"))
    said = str(log_lines) + "".join(answer.text for answer in answers)
    for secret in ("Hunter2", "Wrong4", "Sesame", token, await _hash(world, "ann"), "argon2"):
        assert secret not in said
    assert [line for line in log_lines if line["event"] == "login failed"]


async def test_a_long_name_does_not_fill_the_log(world: World, log_lines: list[dict[str, object]]) -> None:
    await world.try_login("x" * 255, "wrong")
    [line] = [line for line in log_lines if line["event"] == "login failed"]
    assert len(str(line["user"])) <= 80
