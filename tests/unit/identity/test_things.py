"""Domains, projects, users, groups and roles: made, shown, changed, listed, deleted; and bodies that are refused."""

from typing import Any

import pytest
from identity_rig import World, message

KINDS = ("domain", "project", "user", "group", "role")
IN_DOMAINS = ("project", "user", "group")
NOBODY = "f" * 32


@pytest.mark.parametrize("kind", KINDS)
async def test_made_shown_changed_deleted(world: World, kind: str) -> None:
    made = await world.ask("POST", f"/{kind}s", {kind: {"name": "a", "description": "first"}})
    assert await world.ask("GET", f"/{kind}s/{made['id']}") == made
    assert (made["name"], made["description"]) == ("a", "first")
    if kind in IN_DOMAINS:
        assert made["domain_id"] == "default"
    changed = await world.ask("PATCH", f"/{kind}s/{made['id']}", {kind: {"name": "b"}})
    assert changed == {**made, "name": "b"}
    if kind == "domain":
        assert (await world.call("DELETE", f"/domains/{made['id']}")).status_code == 403
        await world.ask("PATCH", f"/domains/{made['id']}", {"domain": {"enabled": False}})
    assert (await world.call("DELETE", f"/{kind}s/{made['id']}")).status_code == 204
    for method, body in (("GET", None), ("PATCH", {kind: {"name": "c"}}), ("DELETE", None)):
        gone = await world.call(method, f"/{kind}s/{made['id']}", body)
        assert gone.status_code == 404
        assert made["id"] in message(gone)


@pytest.mark.parametrize("kind", KINDS)
async def test_names_are_taken_once(world: World, kind: str) -> None:
    await world.make(kind, "a")
    other = await world.make(kind, "b")
    for answer in (
        await world.call("POST", f"/{kind}s", {kind: {"name": "a"}}),
        await world.call("PATCH", f"/{kind}s/{other}", {kind: {"name": "a"}}),
    ):
        assert answer.status_code == 409
        assert " a" in message(answer)
    await world.ask("PATCH", f"/{kind}s/{other}", {kind: {"name": "b"}})  # its own


@pytest.mark.parametrize("kind", IN_DOMAINS)
async def test_but_in_each_domain_anew(world: World, kind: str) -> None:
    acme = await world.make("domain", "acme")
    await world.make(kind, "a")
    other = await world.make(kind, "a", domain_id=acme)
    assert [row["id"] for row in await world.ask("GET", f"/{kind}s?name=a&domain_id={acme}")] == [other]
    assert len(await world.ask("GET", f"/{kind}s?name=a")) == 2
    await world.ask("PATCH", f"/domains/{acme}", {"domain": {"enabled": False}})
    refused = await world.call("DELETE", f"/domains/{acme}")
    assert refused.status_code == 403, "something is in it"
    await world.ask("DELETE", f"/{kind}s/{other}")
    assert (await world.call("DELETE", f"/domains/{acme}")).status_code == 204


@pytest.mark.parametrize("kind", IN_DOMAINS)
async def test_in_the_domain_that_one_has_logged_in_to(world: World, kind: str) -> None:
    acme = await world.make("domain", "acme")
    [admin] = await world.ask("GET", "/users?name=admin")
    await world.grant("admin", f"domains/{acme}", f"users/{admin['id']}")
    token = await world.login("admin", world.admin_password, scope={"domain": {"id": acme}})
    for body in ({"name": "a"}, {"name": "b", "domain_id": None}):
        assert (await world.ask("POST", f"/{kind}s", {kind: body}, token=token))["domain_id"] == acme


@pytest.mark.parametrize("kind", IN_DOMAINS)
async def test_nothing_moves_to_another_domain(world: World, kind: str) -> None:
    acme, thing = await world.make("domain", "acme"), await world.make(kind, "a")
    refused = await world.call("PATCH", f"/{kind}s/{thing}", {kind: {"domain_id": acme}})
    assert refused.status_code == 400
    assert "domain_id" in message(refused)
    await world.ask("PATCH", f"/{kind}s/{thing}", {kind: {"domain_id": "default", "description": "x"}})


async def test_projects_are_children_of_their_domain(world: World) -> None:
    acme = await world.make("domain", "acme")
    for body in ({"parent_id": acme}, {"parent_id": acme, "domain_id": acme}, {"parent_id": None, "domain_id": acme}):
        made = await world.ask("POST", "/projects", {"project": {"name": f"p{len(body)}{len(str(body))}", **body}})
        assert (made["domain_id"], made["parent_id"], made["is_domain"]) == (acme, acme, False)
    parent = await world.make("project", "parent")
    for body in ({"parent_id": parent}, {"parent_id": parent, "domain_id": "default"}):
        assert (await world.call("POST", "/projects", {"project": {"name": "child", **body}})).status_code == 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [{}, {"name": None}, {"name": ""}, {"name": 5}, {"name": ["a"]}, {"name": "x" * 256}])
async def test_no_name_is_refused_by_name(world: World, kind: str, body: dict[str, Any]) -> None:
    for method, path in (("POST", f"/{kind}s"), ("PATCH", f"/{kind}s/{await world.make(kind, 'a')}")):
        if method == "PATCH" and not body:
            continue
        answer = await world.call(method, path, {kind: body})
        assert answer.status_code == 400
        assert "name" in message(answer)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("domain", "enabled", "yes"), ("domain", "description", 5), ("domain", "tags", ["a"]),
        ("project", "enabled", None), ("project", "domain_id", 5), ("project", "domain_id", NOBODY),
        ("project", "domain_id", ""), ("project", "is_domain", True), ("project", "tags", ["a"]),
        ("project", "options", {"immutable": True}), ("project", "description", "x" * 4097),
        ("project", "colour", "red"),
        ("user", "enabled", 1), ("user", "email", 5), ("user", "default_project_id", "x" * 65),
        ("user", "options", {"lock_password": True}), ("user", "options", []), ("user", "password_hash", "x"),
        ("user", "tokens_since", "2026-01-01"), ("user", "id", NOBODY), ("user", "roles", ["admin"]),
        ("group", "enabled", True), ("group", "members", []), ("group", "domain_id", NOBODY),
        ("role", "domain_id", "default"), ("role", "options", {"immutable": True}), ("role", "id", NOBODY),
    ],
)  # fmt: skip
async def test_bad_fields_are_refused_by_name(world: World, kind: str, field: str, value: Any) -> None:
    answer = await world.call("POST", f"/{kind}s", {kind: {"name": "a", field: value}})
    assert answer.status_code == 400, answer.text
    assert field in message(answer)
    assert await world.ask("GET", f"/{kind}s?name=a") == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [[], "x", {}, {"thing": {}}, {"KIND": []}, {"KIND": None}, {"KIND": {}, "more": 1}])
async def test_bodies_of_another_shape(world: World, kind: str, body: Any) -> None:
    given = {key.replace("KIND", kind): value for key, value in body.items()} if isinstance(body, dict) else body
    assert (await world.call("POST", f"/{kind}s", given)).status_code == 400


async def test_what_clients_send_beside(world: World) -> None:
    """The standard client sends these, and means nothing by them."""
    await world.make("user", "a", options={}, email=None, description=None, default_project_id=None)
    await world.make("project", "a", options={}, tags=[], is_domain=False, description=None)
    await world.make("role", "a", options={}, domain_id=None, description=None)
    await world.make("domain", "a", options={}, description=None)


@pytest.mark.parametrize("kind", KINDS)
async def test_pages(world: World, kind: str) -> None:
    for n in range(7):
        await world.make(kind, f"t{n}")
    everything = [row["id"] for row in await world.ask("GET", f"/{kind}s")]
    assert len(everything) >= 7
    found: list[str] = []
    path = f"/{kind}s?limit=3"
    while path:
        answer = (await world.call("GET", path)).json()
        assert len(answer[f"{kind}s"]) <= 3
        found += [row["id"] for row in answer[f"{kind}s"]]
        following = answer["links"]["next"]
        path = following.partition("/identity/v3")[2] if following else ""
    assert found == everything
    assert (await world.call("GET", f"/{kind}s")).json()["links"]["next"] is None


async def test_pages_of_things_of_the_same_name(world: World) -> None:
    ids = set()
    for n in range(4):
        ids.add(await world.make("group", "same", domain_id=await world.make("domain", f"d{n}")))
    found, marker = [], ""
    while page := await world.ask("GET", f"/groups?limit=1{marker}"):
        found.append(page[0]["id"])
        marker = f"&marker={page[0]['id']}"
    assert len(found) == 4
    assert set(found) == ids


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", f"marker={NOBODY}"])
async def test_pages_that_are_none(world: World, query: str) -> None:
    answer = await world.call("GET", f"/users?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in message(answer)


@pytest.mark.parametrize("kind", ["domain", "project", "user"])
async def test_filters(world: World, kind: str) -> None:
    on, off = await world.make(kind, "on"), await world.make(kind, "off", enabled=False)

    async def ids(query: str) -> set[str]:
        return {row["id"] for row in await world.ask("GET", f"/{kind}s?{query}")}

    assert off not in await ids("enabled=true")
    assert await ids("enabled=false") == {off}
    assert await ids("enabled=False") == {off}
    assert await ids("name=on") == {on}
    assert await ids("name=on&enabled=0") == set()
    assert await ids("name=ON") == set()
    assert {on, off} <= await ids("unknown=1")


async def test_a_default_project_need_not_be_there(world: World) -> None:
    await world.user("ann", default_project_id=NOBODY)
    await world.login("ann", "pw")


async def test_made_by_two_at_the_same_moment_there_is_one(world: World) -> None:
    import asyncio

    calls = (world.call("POST", "/users", {"user": {"name": "a"}}, on=n % 2) for n in range(6))
    found = sorted(answer.status_code for answer in await asyncio.gather(*calls))
    assert found == [201] + [409] * 5


@pytest.mark.parametrize(
    ("identity", "status", "named"),
    [
        ({}, 400, "methods"),
        ({"methods": []}, 400, "methods"),
        ({"methods": "password"}, 400, "methods"),
        ({"methods": ["password"] * 17}, 400, "methods"),
        ({"methods": ["x" * 300]}, 400, "methods"),
        ({"methods": ["magic"]}, 401, "magic"),
        ({"methods": ["totp", "password"]}, 401, "totp"),
        (
            {
                "methods": ["password", "token"],
                "token": {"id": "x"},
                "password": {"user": {"name": "a", "password": "a"}},
            },
            400,
            "methods",
        ),
        ({"methods": ["password"]}, 400, "password"),
        ({"methods": ["password"], "password": {}}, 400, "user"),
        ({"methods": ["password"], "password": {"user": {"name": "a"}}}, 400, "password"),
        ({"methods": ["password"], "password": {"user": {"password": "a"}}}, 400, "id"),
        ({"methods": ["password"], "password": {"user": {"name": "x" * 256, "password": "a"}}}, 400, "name"),
        ({"methods": ["password"], "password": {"user": {"name": "a", "password": 5}}}, 400, "password"),
        ({"methods": ["password"], "password": {"user": {"name": "a", "password": "a", "x": 1}}}, 400, "x"),
        ({"methods": ["token"]}, 400, "token"),
        ({"methods": ["token"], "token": {}}, 400, "id"),
        ({"methods": ["token"], "token": {"id": "x" * 5000}}, 400, "id"),
        ({"methods": ["token"], "token": {"id": "x"}}, 401, "authentication"),
        ({"methods": ["application_credential"]}, 400, "application_credential"),
        ({"methods": ["application_credential"], "application_credential": {"id": "x"}}, 400, "secret"),
        ({"methods": ["application_credential"], "application_credential": {"secret": "x"}}, 400, "id"),
        ({"methods": ["application_credential"], "application_credential": {"name": "x", "secret": "x"}}, 400, "user"),
    ],
)
async def test_logins_that_cannot_be_understood(
    world: World, identity: dict[str, Any], status: int, named: str
) -> None:
    answer = await world.auth(identity)
    assert answer.status_code == status, answer.text
    assert named in message(answer)


@pytest.mark.parametrize(
    "scope",
    [
        {}, "somewhere", {"project": {}}, {"project": {"domain": {"id": "default"}}}, {"domain": {}}, {"system": {}},
        {"project": {"id": 5}}, {"system": {"all": False}}, {"OS-TRUST:trust": {"id": "x"}}, {"system": {"all": 1}},
        {"project": {"id": "a"}, "domain": {"id": "default"}}, {"domain": {"id": "default"}, "system": {"all": True}},
        {"project": {"name": "x" * 256}}, {"system": True}, [], 5,
    ],
)  # fmt: skip
async def test_scopes_that_cannot_be_understood(world: World, scope: Any) -> None:
    answer = await world.try_login("admin", world.admin_password, scope=scope)
    assert answer.status_code == 400, answer.text
