"""Who has which role where: given, checked, taken away and listed, of users and groups, on every sort of place."""

from typing import Any

import pytest
from identity_rig import World, message

NOBODY = "f" * 32
PLACES = ("project", "domain", "system")


async def _paths(world: World, place: str, actor: str) -> tuple[str, str]:
    """Paths of the roles of a new actor on a place; and the actor's id."""
    actor_id = await (world.user("ann") if actor == "user" else world.make("group", "crew"))
    there = {"project": f"/projects/{await world.make('project', 'green')}", "domain": "/domains/default"}
    return f"{there.get(place, '/system')}/{actor}s/{actor_id}/roles", actor_id


def _short(found: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """``(user or group, its name, role, place, its name)`` of each."""
    short = set()
    for one in found:
        actor = "user" if "user" in one else "group"
        [place] = one["scope"]
        where = "all" if place == "system" else one["scope"][place]["name"]
        short.add((actor, one[actor]["name"], one["role"]["name"], place, where))
    return short


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("actor", ["user", "group"])
async def test_given_checked_listed_and_taken_away(world: World, place: str, actor: str) -> None:
    path, _ = await _paths(world, place, actor)
    member = await world.role("member")
    assert await world.ask("GET", path) == []
    assert (await world.call("HEAD", f"{path}/{member}")).status_code == 404
    for _ in range(2):
        assert (await world.call("PUT", f"{path}/{member}")).status_code == 204
    assert (await world.call("HEAD", f"{path}/{member}")).status_code == 204
    assert [role["name"] for role in await world.ask("GET", path)] == ["member"], "not what it implies"
    assert (await world.call("HEAD", f"{path}/{await world.role('reader')}")).status_code == 404
    assert (await world.call("DELETE", f"{path}/{member}")).status_code == 204
    assert (await world.call("DELETE", f"{path}/{member}")).status_code == 404
    assert await world.ask("GET", path) == []


@pytest.mark.parametrize("actor", ["user", "group"])
async def test_nothing_is_given_to_or_on_what_is_not_there(world: World, actor: str) -> None:
    path, actor_id = await _paths(world, "project", actor)
    member = await world.role("member")
    for wrong in (
        f"{path}/{NOBODY}", f"/projects/{NOBODY}/{actor}s/{actor_id}/roles/{member}",
        f"/projects/{actor_id}/{actor}s/{actor_id}/roles/{member}",
        f"/domains/{NOBODY}/{actor}s/{actor_id}/roles/{member}", f"/system/{actor}s/{NOBODY}/roles/{member}",
    ):  # fmt: skip
        for method in ("PUT", "HEAD", "DELETE"):
            assert (await world.call(method, wrong)).status_code == 404, (method, wrong)
    assert (await world.call("GET", f"/projects/{NOBODY}/{actor}s/{actor_id}/roles")).status_code == 404


async def test_a_user_is_no_group_and_a_group_no_user(world: World) -> None:
    ann, crew = await world.user("ann"), await world.make("group", "crew")
    member = await world.role("member")
    assert (await world.call("PUT", f"/system/groups/{ann}/roles/{member}")).status_code == 404
    assert (await world.call("PUT", f"/system/users/{crew}/roles/{member}")).status_code == 404


@pytest.fixture
async def many(world: World) -> dict[str, str]:
    """ann is member of red; crew (ann, bob) are member of red, reader of the domain and of the system."""
    ids = {"ann": await world.user("ann"), "bob": await world.user("bob")}
    ids |= {"red": await world.make("project", "red"), "crew": await world.make("group", "crew")}
    for name in ("ann", "bob"):
        await world.ask("PUT", f"/groups/{ids['crew']}/users/{ids[name]}")
    await world.grant("member", f"projects/{ids['red']}", f"users/{ids['ann']}")
    await world.grant("member", f"projects/{ids['red']}", f"groups/{ids['crew']}")
    await world.grant("reader", "domains/default", f"groups/{ids['crew']}")
    await world.grant("reader", "system", f"groups/{ids['crew']}")
    return ids


async def _list(world: World, query: str) -> set[tuple[str, ...]]:
    return _short(await world.ask("GET", f"/role_assignments?include_names&{query}"))


async def test_as_they_were_given(world: World, many: dict[str, str]) -> None:
    crew = {
        ("group", "crew", "member", "project", "red"),
        ("group", "crew", "reader", "domain", "Default"),
        ("group", "crew", "reader", "system", "all"),
    }
    ann = ("user", "ann", "member", "project", "red")
    found = await _list(world, "")
    assert {ann, *crew} == {one for one in found if one[1] != "admin"}
    assert ("user", "admin", "admin", "system", "all") in found
    assert await _list(world, f"user.id={many['ann']}") == {ann}
    assert await _list(world, f"group.id={many['crew']}") == crew
    assert await _list(world, f"scope.project.id={many['red']}") == {ann, ("group", "crew", "member", "project", "red")}
    assert ("group", "crew", "reader", "domain", "Default") in await _list(world, "scope.domain.id=default")
    assert await _list(world, f"role.id={await world.role('reader')}&scope.system=all") == {
        ("group", "crew", "reader", "system", "all")
    }
    assert await _list(world, f"user.id={NOBODY}") == set()


async def test_as_they_count_in_the_end(world: World, many: dict[str, str]) -> None:
    for name in ("ann", "bob"):
        assert await _list(world, f"effective&user.id={many[name]}") == {
            ("user", name, "member", "project", "red"),
            ("user", name, "reader", "project", "red"),
            ("user", name, "reader", "domain", "Default"),
            ("user", name, "reader", "system", "all"),
        }
    red = await _list(world, f"effective=true&scope.project.id={many['red']}&role.id={await world.role('reader')}")
    assert red == {("user", name, "reader", "project", "red") for name in ("ann", "bob")}
    system = await _list(world, "effective=1&scope.system=all")
    names = {"admin", "manager", "member", "reader"}
    assert {one[2] for one in system if one[1] == "admin"} == names


async def test_effective_ones_say_through_which_group(world: World, many: dict[str, str]) -> None:
    query = f"/role_assignments?effective&scope.project.id={many['red']}&role.id={await world.role('member')}"
    links = {one["user"]["id"]: one["links"] for one in await world.ask("GET", query)}
    assert "membership" not in links[many["ann"]], "her own comes first"
    assert links[many["bob"]]["membership"].endswith(f"/groups/{many['crew']}/users/{many['bob']}")
    assert f"/groups/{many['crew']}/roles/" in links[many["bob"]]["assignment"]


@pytest.mark.parametrize("value", ["", "=True", "=1", "=true"])
async def test_a_flag_is_true_when_it_is_there(world: World, many: dict[str, str], value: str) -> None:
    found = await world.ask("GET", f"/role_assignments?effective{value}")
    assert not [one for one in found if "group" in one]


@pytest.mark.parametrize("value", ["=False", "=0", "=false"])
async def test_and_false_when_it_says_so(world: World, many: dict[str, str], value: str) -> None:
    found = await world.ask("GET", f"/role_assignments?effective{value}")
    assert [one for one in found if "group" in one]


async def test_names_only_if_one_asks_for_them(world: World, many: dict[str, str]) -> None:
    for one in await world.ask("GET", "/role_assignments"):
        assert set(one["role"]) == {"id"}
    [one] = await world.ask("GET", f"/role_assignments?include_names=True&user.id={many['ann']}")
    assert one["user"] == {"id": many["ann"], "name": "ann", "domain": {"id": "default", "name": "Default"}}
    assert one["scope"]["project"]["domain"] == {"id": "default", "name": "Default"}


async def test_none_goes_on_to_what_is_inside(world: World, many: dict[str, str]) -> None:
    assert await world.ask("GET", "/role_assignments?scope.OS-INHERIT:inherited_to=projects") == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (f"effective&group.id={NOBODY}", "group.id"),
        (f"user.id={NOBODY}&group.id={NOBODY}", "group.id"),
        (f"scope.project.id={NOBODY}&scope.domain.id=default", "scope"),
        ("scope.domain.id=default&scope.system=all", "scope"),
    ],
)
async def test_what_excludes_each_other_is_refused(world: World, query: str, named: str) -> None:
    answer = await world.call("GET", f"/role_assignments?{query}")
    assert answer.status_code == 400
    assert named in message(answer)


@pytest.mark.parametrize("kind", ["user", "group", "project", "role"])
async def test_what_is_deleted_takes_its_assignments_along(world: World, many: dict[str, str], kind: str) -> None:
    ids = {"user": many["ann"], "group": many["crew"], "project": many["red"], "role": await world.role("member")}
    await world.ask("DELETE", f"/{kind}s/{ids[kind]}")
    found = [one for one in await world.ask("GET", "/role_assignments") if ids[kind] in str(one)]
    assert found == []
    left = {one for one in await _list(world, "") if one[1] != "admin"}
    assert len(left) == {"user": 3, "group": 1, "project": 2, "role": 2}[kind]


async def test_where_one_can_log_in_to(world: World, many: dict[str, str]) -> None:
    bob = await world.login("bob", "pw", "red")
    for path in ("/auth/projects", f"/users/{many['bob']}/projects"):
        assert [row["name"] for row in await world.ask("GET", path, token=bob)] == ["red"]
    assert [row["name"] for row in await world.ask("GET", "/auth/domains", token=bob)] == ["Default"]
    assert await world.ask("GET", "/auth/system", token=bob) == [{"all": True}]
    await world.ask("PATCH", f"/projects/{many['red']}", {"project": {"enabled": False}})
    unscoped = await world.login("bob", "pw")
    assert await world.ask("GET", "/auth/projects", token=unscoped) == []


async def test_roles_that_imply_others(world: World) -> None:
    found = {
        one["prior_role"]["name"]: {role["name"] for role in one["implies"]}
        for one in await world.ask("GET", "/role_inferences")
    }
    assert found["admin"] == {"manager", "member", "reader"}
    assert found["member"] == {"reader"}
