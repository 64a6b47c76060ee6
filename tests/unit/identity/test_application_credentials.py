"""Application credentials: a program acts as a user, with no more than it was given."""

from typing import Any

import httpx
import pytest
from identity_rig import World, message

PATH = "/users/{}/application_credentials"


class Bob:
    """A member of the project ``blue``, and what he makes."""

    def __init__(self, world: World, user_id: str, token: str) -> None:
        self.world = world
        self.id = user_id
        self.token = token
        self.path = PATH.format(user_id)

    async def try_make(self, name: str = "ci", *, token: str | None = None, **more: Any) -> httpx.Response:
        body = {"application_credential": {"name": name, **more}}
        return await self.world.call("POST", self.path, body, token=token or self.token)

    async def make(self, name: str = "ci", **more: Any) -> dict[str, Any]:
        answer = await self.try_make(name, **more)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()["application_credential"]
        return made

    async def try_login(self, made: dict[str, Any], **more: Any) -> httpx.Response:
        proof = {"id": made["id"], "secret": made["secret"]}
        return await self.world.auth({"methods": ["application_credential"], "application_credential": proof}, **more)

    async def login(self, made: dict[str, Any]) -> str:
        return self.world.token_of(await self.try_login(made))


@pytest.fixture
async def bob(world: World, blue: str) -> Bob:
    [row] = await world.ask("GET", "/users?name=bob")
    return Bob(world, row["id"], await world.login("bob", "pw", "blue"))


async def test_the_secret_is_shown_once(bob: Bob) -> None:
    made = await bob.make(description="for the pipeline")
    assert len(made["secret"]) >= 43
    shown = await bob.world.ask("GET", f"{bob.path}/{made['id']}", token=bob.token)
    [listed] = await bob.world.ask("GET", bob.path, token=bob.token)
    assert shown == listed
    assert not {"secret", "secret_hash"} & shown.keys()
    assert shown["description"] == "for the pipeline"
    assert {role["name"] for role in shown["roles"]} == {"member", "reader"}
    assert shown["unrestricted"] is False


async def test_its_token_is_on_its_project_with_its_roles(bob: Bob, blue: str) -> None:
    made = await bob.make(roles=[{"name": "reader"}])
    answer = await bob.try_login(made)
    view = answer.json()["token"]
    assert view["project"]["id"] == blue
    assert [role["name"] for role in view["roles"]] == ["reader"]
    assert view["methods"] == ["application_credential"]
    assert view["application_credential"] == {"id": made["id"], "name": "ci", "restricted": True}


async def test_by_name_and_user(bob: Bob) -> None:
    made = await bob.make(secret="my own")
    for user in ({"id": bob.id}, {"name": "bob", "domain": {"id": "default"}}):
        proof = {"name": "ci", "user": user, "secret": "my own"}
        answer = await bob.world.auth({"methods": ["application_credential"], "application_credential": proof})
        assert answer.status_code == 201
    assert made["secret"] == "my own"


async def test_roles_by_id(bob: Bob) -> None:
    made = await bob.make(roles=[{"id": await bob.world.role("reader")}])
    assert [role["name"] for role in made["roles"]] == ["reader"]


@pytest.mark.parametrize("role", [{"name": "admin"}, {"name": "manager"}, {"name": "none"}, {"id": "f" * 32}])
async def test_no_role_that_its_maker_has_not(bob: Bob, role: dict[str, str]) -> None:
    answer = await bob.try_make(roles=[{"name": "reader"}, role])
    assert answer.status_code == 400
    assert "roles" in message(answer)


async def test_no_role_that_its_maker_has_no_more(bob: Bob, blue: str) -> None:
    made = await bob.make()
    token = await bob.login(made)
    await bob.world.ungrant("member", f"projects/{blue}", f"users/{bob.id}")
    assert await bob.world.use(token, on=1) == 401
    assert (await bob.try_login(made)).status_code == 401
    await bob.world.grant("reader", f"projects/{blue}", f"users/{bob.id}")
    view = (await bob.try_login(made)).json()["token"]
    assert [role["name"] for role in view["roles"]] == ["reader"]


async def test_a_role_that_its_maker_gets_later_is_not_its(bob: Bob, blue: str) -> None:
    made = await bob.make()
    await bob.world.grant("admin", f"projects/{blue}", f"users/{bob.id}")
    token = await bob.login(made)
    assert (await bob.world.call("GET", "/users", token=token)).status_code == 403


@pytest.mark.parametrize("secret", ["", "wrong"])
async def test_with_a_wrong_secret_nobody_logs_in(bob: Bob, secret: str) -> None:
    made = await bob.make()
    assert (await bob.try_login({**made, "secret": secret})).status_code == 401


async def test_it_ends_and_its_tokens_with_it(bob: Bob) -> None:
    ends = bob.world.clock.now().timestamp() + 600
    stamp = bob.world.clock.now().fromtimestamp(ends).astimezone().isoformat()
    made = await bob.make(expires_at=stamp)
    token = await bob.login(made)
    bob.world.clock.move(599)
    assert await bob.world.use(token) == 200
    bob.world.clock.move(1)
    assert await bob.world.use(token) == 401
    assert await bob.world.use(token, on=1) == 401
    assert (await bob.try_login(made)).status_code == 401


async def test_the_end_has_a_zone(bob: Bob) -> None:
    made = await bob.make(expires_at="2030-01-01T12:00:00+02:00")
    assert made["expires_at"] == "2030-01-01T10:00:00.000000Z"
    assert (await bob.make("b", expires_at="2030-01-01T12:00:00"))["expires_at"] == "2030-01-01T12:00:00.000000Z"


@pytest.mark.parametrize(
    "text", ["soon", "", "2001-01-01T00:00:00", "2030-13-01T00:00:00", "0001-01-01T00:00:00+14:00", "9" * 60]
)
async def test_an_end_that_is_none_is_refused_by_name(bob: Bob, text: str) -> None:
    answer = await bob.try_make(expires_at=text)
    assert answer.status_code == 400
    assert "expires_at" in message(answer)


async def test_deleted_its_tokens_are_good_no_more_but_others_are(bob: Bob) -> None:
    made, other = await bob.make(), await bob.make("other")
    token, second = await bob.login(made), await bob.login(other)
    assert [await bob.world.use(t, on=1) for t in (token, second, bob.token)] == [200] * 3
    assert (await bob.world.call("DELETE", f"{bob.path}/{made['id']}", token=bob.token)).status_code == 204
    assert [await bob.world.use(t, on=1) for t in (token, second, bob.token)] == [401, 200, 200]
    assert (await bob.try_login(made)).status_code == 401
    assert (await bob.world.call("DELETE", f"{bob.path}/{made['id']}", token=bob.token)).status_code == 404


@pytest.mark.parametrize("gone", ["user", "project"])
async def test_it_goes_with_its_user_and_with_its_project(bob: Bob, blue: str, gone: str) -> None:
    made = await bob.make()
    await bob.world.ask("DELETE", f"/users/{bob.id}" if gone == "user" else f"/projects/{blue}")
    assert (await bob.try_login(made)).status_code == 401
    assert await bob.world.ask("GET", bob.path) == []


async def test_a_restricted_one_makes_and_removes_none(bob: Bob) -> None:
    made = await bob.make()
    token = await bob.login(made)
    assert (await bob.try_make("more", token=token)).status_code == 403
    assert (await bob.world.call("DELETE", f"{bob.path}/{made['id']}", token=token)).status_code == 403
    assert (await bob.world.call("GET", bob.path, token=token)).status_code == 200


async def test_an_unrestricted_one_does_but_gives_no_more_than_it_has(bob: Bob) -> None:
    made = await bob.make(unrestricted=True, roles=[{"name": "reader"}])
    token = await bob.login(made)
    assert (await bob.try_make("more", token=token, roles=[{"name": "member"}])).status_code == 400
    more = (await bob.try_make("more", token=token)).json()["application_credential"]
    assert [role["name"] for role in more["roles"]] == ["reader"]
    assert (await bob.world.call("DELETE", f"{bob.path}/{more['id']}", token=token)).status_code == 204


async def test_its_token_is_exchanged_for_no_other(bob: Bob) -> None:
    token = await bob.login(await bob.make(roles=[{"name": "reader"}]))
    for scope in (None, {"project": {"name": "blue", "domain": {"id": "default"}}}):
        assert (await bob.world.exchange(token, scope)).status_code == 403


async def test_names_are_a_users_own(bob: Bob, blue: str) -> None:
    await bob.make()
    again = await bob.try_make()
    assert again.status_code == 409
    assert "ci" in message(again)
    await bob.world.user("eve", "member", blue)
    [row] = await bob.world.ask("GET", "/users?name=eve")
    eve = Bob(bob.world, row["id"], await bob.world.login("eve", "pw", "blue"))
    await eve.make()
    assert [row["name"] for row in await bob.world.ask("GET", f"{bob.path}?name=ci", token=bob.token)] == ["ci"]
    assert await bob.world.ask("GET", f"{bob.path}?name=none", token=bob.token) == []


async def test_others_see_and_touch_none(bob: Bob, blue: str) -> None:
    made = await bob.make()
    await bob.world.user("eve", "member", blue)
    eve = await bob.world.login("eve", "pw", "blue")
    for method, path in (("GET", ""), ("GET", f"/{made['id']}"), ("DELETE", f"/{made['id']}")):
        assert (await bob.world.call(method, bob.path + path, token=eve)).status_code == 403
    assert (await bob.try_make("x", token=eve)).status_code == 403
    assert (await bob.try_make("x", token=bob.world.admin)).status_code == 403, "nor does an administrator make one"
    [row] = await bob.world.ask("GET", "/users?name=eve")
    elsewhere = f"{PATH.format(row['id'])}/{made['id']}"
    for method in ("GET", "DELETE"):
        assert (await bob.world.call(method, elsewhere, token=eve)).status_code == 404


async def test_one_needs_a_project(bob: Bob) -> None:
    unscoped = await bob.world.login("bob", "pw", scope="unscoped")
    answer = await bob.try_make(token=unscoped)
    assert answer.status_code == 400
    assert "project" in message(answer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", 5), ("name", "x" * 256), ("secret", ""), ("secret", "x" * 256), ("roles", "admin"),
        ("roles", [{}]), ("roles", [{"name": "reader"}] * 65), ("roles", [5]), ("unrestricted", "yes"),
        ("description", 5), ("expires_at", 5), ("id", "mine"), ("user_id", "f" * 32), ("project_id", "f" * 32),
        ("access_rules", [{"path": "/"}]), ("secret_hash", "x"),
    ],
)  # fmt: skip
async def test_bad_bodies_are_refused_by_the_fields_name(bob: Bob, field: str, value: Any) -> None:
    answer = await bob.try_make(**{"name": "ci", field: value})
    assert answer.status_code == 400
    assert field in message(answer)
    assert await bob.world.ask("GET", bob.path, token=bob.token) == []
