"""Groups: what a group may do, each of its members may, from the moment of joining to that of leaving."""

from typing import Any

import pytest
from identity_rig import World, message

NOBODY = "f" * 32


@pytest.fixture
async def crew(world: World) -> str:
    """Id of a group."""
    return await world.make("group", "crew", description="who repair")


async def _bob(world: World) -> str:
    [row] = await world.ask("GET", "/users?name=bob")
    return str(row["id"])


async def test_made_shown_changed_and_deleted(world: World, crew: str) -> None:
    shown = await world.ask("GET", f"/groups/{crew}")
    assert {name: shown[name] for name in ("id", "name", "domain_id", "description")} == {
        "id": crew, "name": "crew", "domain_id": "default", "description": "who repair",
    }  # fmt: skip
    assert shown["links"]["self"].endswith(f"/identity/v3/groups/{crew}")
    changed = await world.ask("PATCH", f"/groups/{crew}", {"group": {"name": "team", "description": None}})
    assert (changed["name"], changed["description"]) == ("team", "")
    assert (await world.call("DELETE", f"/groups/{crew}")).status_code == 204
    assert (await world.call("GET", f"/groups/{crew}")).status_code == 404
    assert await world.ask("GET", "/groups") == []


async def test_a_name_is_taken_once_in_a_domain(world: World, crew: str) -> None:
    again = await world.call("POST", "/groups", {"group": {"name": "crew"}})
    assert again.status_code == 409
    assert "crew" in message(again)
    acme = await world.make("domain", "acme")
    other = await world.make("group", "crew", domain_id=acme)
    assert [row["id"] for row in await world.ask("GET", f"/groups?domain_id={acme}")] == [other]
    assert {row["id"] for row in await world.ask("GET", "/groups?name=crew")} == {crew, other}
    await world.make("group", "team")
    assert (await world.call("PATCH", f"/groups/{crew}", {"group": {"name": "team"}})).status_code == 409


async def test_members_come_and_go(world: World, crew: str, blue: str) -> None:
    bob = await _bob(world)
    path = f"/groups/{crew}/users/{bob}"
    assert (await world.call("HEAD", path)).status_code == 404
    for _ in range(2):
        assert (await world.call("PUT", path)).status_code == 204
    assert (await world.call("HEAD", path)).status_code == 204
    assert [row["name"] for row in await world.ask("GET", f"/groups/{crew}/users")] == ["bob"]
    assert [row["name"] for row in await world.ask("GET", f"/users/{bob}/groups")] == ["crew"]
    assert await world.ask("GET", f"/groups/{crew}/users?name=eve") == []
    assert "password_hash" not in (await world.ask("GET", f"/groups/{crew}/users"))[0]
    assert (await world.call("DELETE", path)).status_code == 204
    assert (await world.call("DELETE", path)).status_code == 404
    assert await world.ask("GET", f"/users/{bob}/groups") == []


async def test_what_is_not_there_is_not_found(world: World, crew: str, blue: str) -> None:
    bob = await _bob(world)
    for method, path in (
        ("PUT", f"/groups/{crew}/users/{NOBODY}"), ("PUT", f"/groups/{NOBODY}/users/{bob}"),
        ("HEAD", f"/groups/{NOBODY}/users/{bob}"), ("DELETE", f"/groups/{NOBODY}/users/{bob}"),
        ("GET", f"/groups/{NOBODY}/users"), ("GET", f"/users/{NOBODY}/groups"), ("GET", f"/groups/{NOBODY}"),
        ("PATCH", f"/groups/{NOBODY}"), ("DELETE", f"/groups/{NOBODY}"),
    ):  # fmt: skip
        body = {"group": {"name": "x"}} if method == "PATCH" else None
        assert (await world.call(method, path, body)).status_code == 404, (method, path)


@pytest.mark.parametrize("place", ["project", "domain", "system"])
async def test_a_members_roles_are_the_groups(world: World, crew: str, place: str) -> None:
    ann = await world.user("ann")
    project = await world.make("project", "green")
    path = {"project": f"projects/{project}", "domain": "domains/default", "system": "system"}[place]
    scope: dict[str, Any] = {
        "project": {"project": {"id": project}}, "domain": {"domain": {"id": "default"}},
        "system": {"system": {"all": True}},
    }[place]  # fmt: skip
    await world.grant("member", path, f"groups/{crew}")
    assert (await world.try_login("ann", "pw", scope=scope)).status_code == 401
    await world.ask("PUT", f"/groups/{crew}/users/{ann}")
    answer = await world.try_login("ann", "pw", scope=scope)
    assert {role["name"] for role in answer.json()["token"]["roles"]} == {"member", "reader"}


@pytest.mark.parametrize("how", ["left", "group deleted", "role taken away", "role deleted"])
async def test_what_comes_through_a_group_ends_everywhere_at_once(world: World, crew: str, how: str) -> None:
    ann, project = await world.user("ann"), await world.make("project", "green")
    await world.grant("member", f"projects/{project}", f"groups/{crew}")
    await world.ask("PUT", f"/groups/{crew}/users/{ann}")
    token = await world.login("ann", "pw", "green")
    assert [await world.use(token, on=n) for n in range(2)] == [200] * 2
    if how == "left":
        await world.ask("DELETE", f"/groups/{crew}/users/{ann}")
    elif how == "group deleted":
        await world.ask("DELETE", f"/groups/{crew}")
    elif how == "role taken away":
        await world.ungrant("member", f"projects/{project}", f"groups/{crew}")
    else:
        await world.ask("DELETE", f"/roles/{await world.role('member')}")
    assert [await world.use(token, on=n) for n in range(3)] == [401] * 3
    assert await world.ask("GET", "/role_assignments?effective&user.id=" + ann) == []


async def test_own_roles_and_groups_roles_add_up(world: World, crew: str, blue: str) -> None:
    bob = await _bob(world)
    await world.grant("service", f"projects/{blue}", f"groups/{crew}")
    await world.ask("PUT", f"/groups/{crew}/users/{bob}")
    answer = await world.try_login("bob", "pw", "blue")
    assert {role["name"] for role in answer.json()["token"]["roles"]} == {"member", "reader", "service"}


async def test_a_deleted_user_leaves_the_group_and_one_of_the_same_name_does_not_join(world: World, crew: str) -> None:
    ann = await world.user("ann")
    await world.ask("PUT", f"/groups/{crew}/users/{ann}")
    await world.ask("DELETE", f"/users/{ann}")
    assert await world.ask("GET", f"/groups/{crew}/users") == []
    again = await world.user("ann")
    assert await world.ask("GET", f"/users/{again}/groups") == []


async def test_a_domain_with_a_group_stays(world: World) -> None:
    acme = await world.make("domain", "acme")
    group = await world.make("group", "g", domain_id=acme)
    await world.ask("PATCH", f"/domains/{acme}", {"domain": {"enabled": False}})
    assert (await world.call("DELETE", f"/domains/{acme}")).status_code == 403
    await world.ask("DELETE", f"/groups/{group}")
    assert (await world.call("DELETE", f"/domains/{acme}")).status_code == 204


async def test_members_know_their_groups_and_nobody_elses(world: World, crew: str, blue: str) -> None:
    bob = await _bob(world)
    eve = await world.user("eve", "member", blue)
    await world.ask("PUT", f"/groups/{crew}/users/{bob}")
    token = await world.login("bob", "pw", "blue")
    assert [row["id"] for row in await world.ask("GET", f"/users/{bob}/groups", token=token)] == [crew]
    assert (await world.call("HEAD", f"/groups/{crew}/users/{bob}", token=token)).status_code == 204
    for method, path in (
        ("GET", f"/users/{eve}/groups"), ("HEAD", f"/groups/{crew}/users/{eve}"), ("GET", f"/groups/{crew}/users"),
        ("PUT", f"/groups/{crew}/users/{bob}"), ("DELETE", f"/groups/{crew}/users/{bob}"), ("GET", "/groups"),
        ("GET", f"/groups/{crew}"), ("DELETE", f"/groups/{crew}"),
    ):  # fmt: skip
        assert (await world.call(method, path, token=token)).status_code == 403, (method, path)
