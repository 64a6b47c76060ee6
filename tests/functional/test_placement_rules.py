"""Aggregates, zones, server groups and hints, through the API, on simulated hosts."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.support.running import Client, RunningCloud

HOSTS = ("fake-0001", "fake-0002", "fake-0003")


@pytest.fixture
def made(admin: Client) -> Iterator[list[str]]:
    """Ids of servers that the test made; they are deleted in the end."""
    ids: list[str] = []
    yield ids
    for server_id in ids:
        admin.compute("DELETE", f"/servers/{server_id}")
    for server_id in ids:
        admin.wait_gone(server_id)


def aggregate(admin: Client, name: str, *hosts: str, zone: str | None = None, **metadata: str) -> int:
    body = {"aggregate": {"name": name, "availability_zone": zone}}
    made = admin.compute("POST", "/os-aggregates", json=body).raise_for_status().json()["aggregate"]
    assert "hosts" not in made and made["availability_zone"] == zone and re.match(r"[0-9a-f-]{36}$", made["uuid"])
    for host in hosts:
        act(admin, made["id"], {"add_host": {"host": host}})
    if metadata:
        act(admin, made["id"], {"set_metadata": {"metadata": metadata}})
    return int(made["id"])


def act(admin: Client, aggregate_id: int, body: dict[str, object], status: int = 200) -> dict[str, object]:
    answer = admin.compute("POST", f"/os-aggregates/{aggregate_id}/action", json=body)
    assert answer.status_code == status, answer.text
    view: dict[str, object] = answer.json().get("aggregate", answer.json())
    return view


def drop(admin: Client, aggregate_id: int) -> None:
    for host in admin.compute("GET", f"/os-aggregates/{aggregate_id}").json()["aggregate"]["hosts"]:
        act(admin, aggregate_id, {"remove_host": {"host": host}})
    admin.compute("DELETE", f"/os-aggregates/{aggregate_id}").raise_for_status()


def group(admin: Client, policy: str, **more: object) -> str:
    body = {"server_group": {"name": policy, "policy": policy, **more}}
    made = admin.compute("POST", "/os-server-groups", json=body).raise_for_status().json()["server_group"]
    return str(made["id"])


def boot(
    admin: Client, image_id: str, flavor_id: str, made: list[str], name: str, count: int = 1, **more: object
) -> list[dict[str, object]]:
    hints = more.pop("hints", {})
    body = {
        "server": {"name": name, "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto", **more},
        "os:scheduler_hints": hints,
    }
    ids = []
    for _ in range(count):
        answer = admin.compute("POST", "/servers", json=body)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["server"]["id"])
    made += ids
    return [admin.wait(server_id, "ACTIVE", "ERROR") for server_id in ids]


def host_of(view: dict[str, object]) -> object:
    return view["OS-EXT-SRV-ATTR:host"]


def test_a_zone_keeps_its_servers_and_its_hosts(admin: Client, image_id: str, flavor_id: str, made: list[str]) -> None:
    zone = aggregate(admin, "north", "fake-0002", zone="az-north")
    [server] = boot(admin, image_id, flavor_id, made, "n", availability_zone="az-north")
    assert (server["status"], host_of(server), server["OS-EXT-AZ:availability_zone"]) == (
        "ACTIVE",
        "fake-0002",
        "az-north",
    )
    names = [z["zoneName"] for z in admin.compute("GET", "/os-availability-zone").json()["availabilityZoneInfo"]]
    assert sorted(names) == ["az-north", "nova"]
    # What would change the zone of a host with servers is refused.
    act(admin, zone, {"remove_host": {"host": "fake-0002"}}, 409)
    act(admin, zone, {"set_metadata": {"metadata": {"availability_zone": "other"}}}, 400)
    assert admin.compute("DELETE", f"/os-aggregates/{zone}").status_code == 400
    south = aggregate(admin, "south", zone="az-south")
    act(admin, south, {"add_host": {"host": "fake-0002"}}, 409)
    act(admin, south, {"add_host": {"host": "nowhere"}}, 404)
    act(admin, south, {"remove_host": {"host": "fake-0001"}}, 404)
    drop(admin, south)
    admin.compute("DELETE", f"/servers/{made[0]}")
    admin.wait_gone(made.pop(0))
    drop(admin, zone)
    unknown = {"server": {"name": "x", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"}}
    unknown["server"]["availability_zone"] = "az-north"
    answer = admin.compute("POST", "/servers", json=unknown)
    assert answer.status_code == 400, "a zone that is not there is said at once"


def test_an_aggregate_is_listed_changed_and_renamed(admin: Client) -> None:
    first = aggregate(admin, "ssd", "fake-0001", ssd="true", gone="x")
    assert act(admin, first, {"set_metadata": {"metadata": {"gone": None, "rack": "7"}}})["metadata"] == {
        "ssd": "true",
        "rack": "7",
    }
    changed = admin.compute("PUT", f"/os-aggregates/{first}", json={"aggregate": {"name": "fast"}})
    assert changed.json()["aggregate"]["name"] == "fast"
    assert admin.compute("POST", "/os-aggregates", json={"aggregate": {"name": "fast"}}).status_code == 409
    assert [a["name"] for a in admin.compute("GET", "/os-aggregates").json()["aggregates"]] == ["fast"]
    act(admin, first, {"add_host": {"host": "fake-0001"}}, 409)
    drop(admin, first)
    assert admin.compute("GET", f"/os-aggregates/{first}").status_code == 404


def test_anti_affinity_keeps_servers_apart_and_says_why_a_fourth_has_no_host(
    admin: Client, image_id: str, flavor_id: str, made: list[str]
) -> None:
    apart = group(admin, "anti-affinity")
    views = boot(admin, image_id, flavor_id, made, "apart", 4, hints={"group": apart})
    assert Counter(view["status"] for view in views) == {"ACTIVE": 3, "ERROR": 1}
    assert {host_of(view) for view in views if view["status"] == "ACTIVE"} == set(HOSTS)
    [broken] = [view for view in views if view["status"] == "ERROR"]
    fault = broken["fault"]
    assert isinstance(fault, dict) and "fake-000" not in fault["message"], fault
    shown = admin.compute("GET", f"/os-server-groups/{apart}").json()["server_group"]
    assert sorted(shown["members"]) == sorted(made) and shown["rules"] == {"max_server_per_host": 1}
    # A place is free again once its server is gone.
    gone = next(view["id"] for view in views if view["status"] == "ACTIVE")
    admin.compute("DELETE", f"/servers/{gone}")
    admin.wait_gone(str(gone))
    made.remove(str(gone))
    [again] = boot(admin, image_id, flavor_id, made, "again", hints={"group": apart})
    assert again["status"] == "ACTIVE"
    admin.compute("DELETE", f"/os-server-groups/{apart}").raise_for_status()


def test_anti_affinity_takes_as_many_on_a_host_as_its_rule_says(
    admin: Client, image_id: str, flavor_id: str, made: list[str]
) -> None:
    pairs = group(admin, "anti-affinity", rules={"max_server_per_host": 2})
    views = boot(admin, image_id, flavor_id, made, "pair", 7, hints={"group": pairs})
    assert Counter(host_of(view) for view in views if view["status"] == "ACTIVE") == dict.fromkeys(HOSTS, 2)


def test_affinity_keeps_servers_together(admin: Client, image_id: str, flavor_id: str, made: list[str]) -> None:
    together = group(admin, "affinity")
    views = boot(admin, image_id, flavor_id, made, "together", 4, hints={"group": together})
    assert {view["status"] for view in views} == {"ACTIVE"}
    assert len({host_of(view) for view in views}) == 1


def test_servers_of_one_request_keep_the_rule_too(
    admin: Client, image_id: str, flavor_id: str, made: list[str]
) -> None:
    apart = group(admin, "anti-affinity")
    body = {
        "server": {
            "name": "m", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto", "min_count": 3,
            "max_count": 3,
        },
        "os:scheduler_hints": {"group": apart},
    }  # fmt: skip
    first = admin.compute("POST", "/servers", json=body).json()["server"]["id"]
    made += admin.compute("GET", f"/os-server-groups/{apart}").json()["server_group"]["members"]
    assert first in made and len(made) == 3
    assert {host_of(admin.wait(server_id, "ACTIVE", "ERROR")) for server_id in made} == set(HOSTS)


def test_hints_name_other_servers(admin: Client, image_id: str, flavor_id: str, made: list[str]) -> None:
    [first] = boot(admin, image_id, flavor_id, made, "first")
    [same] = boot(admin, image_id, flavor_id, made, "same", hints={"same_host": [first["id"]]})
    [other] = boot(admin, image_id, flavor_id, made, "other", hints={"different_host": first["id"]})
    assert (same["status"], other["status"]) == ("ACTIVE", "ACTIVE")
    assert host_of(same) == host_of(first) != host_of(other)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "x", "policy": "nonsense"},
        {"name": "x", "policies": ["affinity"]},
        {"name": "x", "policy": "affinity", "rules": {"max_server_per_host": 2}},
        {"name": "x", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}},
        {"name": "x", "policy": "anti-affinity", "rules": {"max_server_per_host": "-1"}},
        {"name": "x", "policy": "anti-affinity", "rules": {"more": 1}},
        {"name": "", "policy": "affinity"},
        {"policy": "affinity"},
        {"name": "x", "policy": "affinity", "extra": 1},
    ],
)
def test_a_bad_group_is_refused(admin: Client, body: dict[str, object]) -> None:
    answer = admin.compute("POST", "/os-server-groups", json={"server_group": body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["badRequest"]["message"]


def test_groups_of_older_microversions(admin: Client) -> None:
    old = {"OpenStack-API-Version": "compute 2.1"}
    body = {"server_group": {"name": "old", "policies": ["affinity"]}}
    made = admin.compute("POST", "/os-server-groups", json=body, headers=old).json()["server_group"]
    assert made == {"id": made["id"], "name": "old", "policies": ["affinity"], "members": [], "metadata": {}}
    soft = {"server_group": {"name": "old", "policies": ["soft-affinity"]}}
    assert admin.compute("POST", "/os-server-groups", json=soft, headers=old).status_code == 400
    listed = admin.compute("GET", "/os-server-groups?limit=1").json()["server_groups"]
    assert len(listed) == 1
    assert admin.compute("DELETE", f"/os-server-groups/{made['id']}").status_code == 204
    assert admin.compute("GET", f"/os-server-groups/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/os-aggregates", {"aggregate": {}}, 400),
        ("POST", "/os-aggregates", {"aggregate": {"name": "x", "availability_zone": "a:b"}}, 400),
        ("POST", "/os-aggregates", {"aggregate": {"name": "x" * 256}}, 400),
        ("POST", "/os-aggregates", {"name": "x"}, 400),
        ("PUT", "/os-aggregates/1", {"aggregate": {}}, 400),
        ("PUT", "/os-aggregates/999", {"aggregate": {"name": "y"}}, 404),
        ("POST", "/os-aggregates/999/action", {"add_host": {"host": "fake-0001"}}, 404),
        ("POST", "/os-aggregates/1/action", {}, 400),
        ("POST", "/os-aggregates/1/action", {"add_host": {"host": "a"}, "remove_host": {"host": "a"}}, 400),
        ("POST", "/os-aggregates/1/action", {"set_metadata": {"metadata": {"a": 1}}}, 400),
        ("GET", "/os-aggregates/x", None, 404),
        ("DELETE", "/os-aggregates/-1", None, 404),
    ],
)
def test_a_bad_request_about_aggregates(
    admin: Client, method: str, path: str, body: dict[str, object] | None, status: int
) -> None:
    answer = admin.compute(method, path, json=body)
    assert answer.status_code == status, answer.text


def test_a_group_that_is_not_there(admin: Client, image_id: str, flavor_id: str) -> None:
    body = {
        "server": {"name": "x", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"},
        "os:scheduler_hints": {"group": "11111111-2222-3333-4444-555555555555"},
    }
    assert admin.compute("POST", "/servers", json=body).status_code == 400


def test_members_see_nothing_of_aggregates(cloud: RunningCloud, admin: Client) -> None:
    project = admin.identity("POST", "/projects", json={"project": {"name": "p1"}}).json()["project"]["id"]
    user = {"user": {"name": "u1", "password": "secret-1234"}}
    user_id = admin.identity("POST", "/users", json=user).json()["user"]["id"]
    [role] = [r for r in admin.identity("GET", "/roles").json()["roles"] if r["name"] == "member"]
    admin.identity("PUT", f"/projects/{project}/users/{user_id}/roles/{role['id']}").raise_for_status()
    member = cloud.client(username="u1", password="secret-1234", project_name="p1")
    assert member.compute("GET", "/os-aggregates").status_code == 403
    assert member.compute("POST", "/os-aggregates/1/action", json={"add_host": {"host": "x"}}).status_code == 403
    body = {"server_group": {"name": "mine", "policy": "soft-anti-affinity"}}
    mine = member.compute("POST", "/os-server-groups", json=body).json()["server_group"]["id"]
    assert admin.compute("GET", f"/os-server-groups/{mine}").status_code == 200
    assert mine not in [g["id"] for g in admin.compute("GET", "/os-server-groups").json()["server_groups"]]
    everywhere = admin.compute("GET", "/os-server-groups?all_projects=True").json()["server_groups"]
    assert mine in [g["id"] for g in everywhere]
    assert member.compute("GET", "/os-server-groups?all_projects=True").status_code == 403


def ask(admin: Client, **question: object) -> dict[str, object]:
    answer = admin.compute("POST", "/kilonova-what-if", json={"what_if": question})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()["what_if"]
    return found


def test_what_if_says_where_servers_would_go_and_takes_nothing(
    admin: Client, image_id: str, flavor_id: str, made: list[str]
) -> None:
    before = admin.compute("GET", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"}).json()
    # 16 CPUs times 4 and 64 GiB less 512 MiB on each of three hosts: by memory, 7 servers of 8 GiB fit on each.
    big = admin.flavor("big", ram=8192, disk=1)
    found = ask(admin, flavorRef=big, imageRef=image_id)
    assert (found["fits"], found["is_all"]) == (21, True)
    assert found["hosts"] == dict.fromkeys(HOSTS, 7)
    assert "MiB" in str(found["missing_for_more"])
    # Asked twice, answered twice the same; and what is really booted goes where it said.
    again = ask(admin, flavorRef=big, imageRef=image_id)
    assert again["fits"] == 21
    [server] = boot(admin, image_id, big, made, "real")
    assert host_of(server) == again["host"]
    assert ask(admin, flavorRef=big, imageRef=image_id)["fits"] == 20
    admin.compute("DELETE", f"/servers/{made[0]}")
    admin.wait_gone(made.pop())
    after = admin.compute("GET", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"}).json()
    used = [(h["hypervisor_hostname"], h["memory_mb_used"], h["vcpus_used"]) for h in before["hypervisors"]]
    assert used == [(h["hypervisor_hostname"], h["memory_mb_used"], h["vcpus_used"]) for h in after["hypervisors"]]


def test_what_if_follows_groups_zones_and_hosts(admin: Client, flavor_id: str) -> None:
    apart = group(admin, "anti-affinity")
    assert ask(admin, flavorRef=flavor_id, scheduler_hints={"group": apart})["fits"] == 3
    assert set(ask(admin, flavorRef=flavor_id, host="fake-0002", most=5)["hosts"]) == {"fake-0002"}  # type: ignore[call-overload]
    capped = ask(admin, flavorRef=flavor_id, most=5)
    assert (capped["fits"], capped["is_all"]) == (5, False)
    giant = admin.flavor("giant", vcpus=999)
    nowhere = ask(admin, flavorRef=giant)
    assert nowhere["host"] is None and nowhere["fits"] == 0 and nowhere["explanation"]["missing"]  # type: ignore[index]


@pytest.mark.parametrize(
    "question",
    [{}, {"flavorRef": "none"}, {"flavorRef": "x", "most": 0}, {"flavorRef": "x", "most": 5000}, {"flavorRef": 1}],
)
def test_a_what_if_that_cannot_be_answered(admin: Client, question: dict[str, object]) -> None:
    assert admin.compute("POST", "/kilonova-what-if", json={"what_if": question}).status_code == 400


def test_decisions_are_shown_to_administrators(admin: Client, image_id: str, flavor_id: str, made: list[str]) -> None:
    [server] = boot(admin, image_id, flavor_id, made, "told")
    [decision] = admin.compute("GET", f"/servers/{server['id']}/kilonova-decisions").json()["decisions"]
    assert decision["host"] == host_of(server) == decision["explanation"]["chosen"][0]
    assert [step[0] for step in decision["explanation"]["filters"]][:2] == ["", "ComputeFilter"]
    assert decision["request_id"].startswith("req-")
    missing = "11111111-2222-3333-4444-555555555555"
    assert admin.compute("GET", f"/servers/{missing}/kilonova-decisions").status_code == 404
