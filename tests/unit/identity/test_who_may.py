"""Who may do what: administrators, readers of the system, members, readers, users of nothing, and nobody."""

import pytest
from identity_rig import World, message

BODY = {
    "domain": {"domain": {"name": "x"}}, "project": {"project": {"name": "x"}}, "user": {"user": {"name": "x"}},
    "group": {"group": {"name": "x"}}, "role": {"role": {"name": "x"}},
}  # fmt: skip
KINDS = tuple(BODY)
WHO = ("admin", "system reader", "member", "reader", "domain member", "unscoped", "nobody")


async def _token(world: World, who: str, blue: str) -> str:
    if who == "admin":
        return world.admin
    if who == "nobody":
        return "nothing"
    user_id = await world.user("someone")
    if who == "system reader":
        await world.grant("reader", "system", f"users/{user_id}")
        return await world.login("someone", "pw", scope={"system": {"all": True}})
    if who == "domain member":
        await world.grant("member", "domains/default", f"users/{user_id}")
        return await world.login("someone", "pw", scope={"domain": {"id": "default"}})
    if who != "unscoped":
        await world.grant(who, f"projects/{blue}", f"users/{user_id}")
        return await world.login("someone", "pw", "blue")
    return await world.login("someone", "pw")


@pytest.mark.parametrize("who", WHO)
async def test_things(world: World, blue: str, who: str) -> None:
    things = {kind: await world.make(kind, f"a-{kind}") for kind in KINDS}
    token = await _token(world, who, blue)
    sees = {"admin", "system reader"}
    for kind, thing_id in things.items():
        knows = sees | (set(WHO) - {"nobody"} if kind == "role" else set())
        for method, path, body, allowed in (
            ("GET", f"/{kind}s", None, knows),
            ("GET", f"/{kind}s/{thing_id}", None, knows),
            ("POST", f"/{kind}s", BODY[kind], {"admin"}),
            ("PATCH", f"/{kind}s/{thing_id}", BODY[kind], {"admin"}),
            ("DELETE", f"/{kind}s/{thing_id}", None, {"admin"}),
        ):
            answer = await world.call(method, path, body, token=token)
            if who == "nobody":
                assert answer.status_code == 401, (method, path)
            elif who in allowed:
                expected = (409, 403) if (method, kind) in (("PATCH", kind), ("DELETE", "domain")) else ()
                assert answer.status_code < 300 or answer.status_code in expected, (method, path, answer.text)
                assert answer.status_code != 403 or "Policy" not in message(answer)
            else:
                assert answer.status_code == 403, (method, path)
                assert "Policy" in message(answer)


@pytest.mark.parametrize("who", WHO)
async def test_assignments(world: World, blue: str, who: str) -> None:
    ann, crew, member = await world.user("ann"), await world.make("group", "crew"), await world.role("member")
    token = await _token(world, who, blue)
    for actor in (f"users/{ann}", f"groups/{crew}"):
        for place in (f"/projects/{blue}", "/domains/default", "/system"):
            roles = f"{place}/{actor}/roles"
            for method, path in (("PUT", f"{roles}/{member}"), ("GET", roles), ("DELETE", f"{roles}/{member}")):
                status = (await world.call(method, path, token=token)).status_code
                if who == "nobody":
                    assert status == 401
                elif who == "admin" or (who == "system reader" and method == "GET"):
                    assert status in (200, 204), (method, path)
                else:
                    assert status == 403, (method, path)
    status = (await world.call("GET", "/role_assignments", token=token)).status_code
    assert status == {"admin": 200, "system reader": 200, "nobody": 401}.get(who, 403)


async def test_a_member_does_not_make_an_administrator_of_itself(world: World, blue: str) -> None:
    [bob] = await world.ask("GET", "/users?name=bob")
    token = await world.login("bob", "pw", "blue")
    admin = await world.role("admin")
    for place in (f"/projects/{blue}", "/domains/default", "/system"):
        assert (await world.call("PUT", f"{place}/users/{bob['id']}/roles/{admin}", token=token)).status_code == 403
    for change in ({"enabled": True}, {"default_project_id": blue}, {"name": "admin"}, {"password": "x"}):
        assert (await world.call("PATCH", f"/users/{bob['id']}", {"user": change}, token=token)).status_code == 403
    assert (await world.call("PATCH", f"/projects/{blue}", {"project": {"name": "y"}}, token=token)).status_code == 403


async def test_users_see_themselves_and_their_project(world: World, blue: str) -> None:
    [bob], other = await world.ask("GET", "/users?name=bob"), await world.make("project", "other")
    token = await world.login("bob", "pw", "blue")
    assert (await world.ask("GET", f"/users/{bob['id']}", token=token))["name"] == "bob"
    assert (await world.ask("GET", f"/projects/{blue}", token=token))["name"] == "blue"
    assert (await world.call("GET", f"/projects/{other}", token=token)).status_code == 403
    assert (await world.call("GET", "/projects/" + "f" * 32, token=token)).status_code == 403, "there or not"


async def test_a_role_on_one_project_is_none_on_another(world: World, blue: str) -> None:
    [bob] = await world.ask("GET", "/users?name=bob")
    red = await world.make("project", "red")
    await world.grant("admin", f"projects/{red}", f"users/{bob['id']}")
    member = await world.login("bob", "pw", "blue")
    assert (await world.call("GET", "/users", token=member)).status_code == 403
    admin = await world.login("bob", "pw", "red")
    assert (await world.call("GET", "/users", token=admin)).status_code == 200


@pytest.mark.parametrize("state", ["user", "project", "domain"])
async def test_what_is_disabled_lets_nobody_in(world: World, state: str) -> None:
    acme = await world.make("domain", "acme")
    project = await world.make("project", "p", domain_id=acme)
    user_id = await world.user("ann", "member", project, domain_id=acme)
    ids = {"user": user_id, "project": project, "domain": acme}
    await world.ask("PATCH", f"/{state}s/{ids[state]}", {state: {"enabled": False}})
    assert (await world.try_login("ann@acme", "pw", "p@acme")).status_code == 401
    alone = (await world.try_login("ann@acme", "pw")).status_code
    assert alone == (201 if state == "project" else 401)
    await world.ask("PATCH", f"/{state}s/{ids[state]}", {state: {"enabled": True}})
    await world.login("ann@acme", "pw", "p@acme")
