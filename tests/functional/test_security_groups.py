"""Security groups and agents, by the API."""

from typing import Any

import pytest
from tests.support.running import Client, RunningCloud


@pytest.fixture(scope="module")
def member(cloud: RunningCloud, admin: Client) -> Client:
    project = admin.identity("POST", "/projects", json={"project": {"name": "sg"}}).json()["project"]["id"]
    user = {"user": {"name": "sg", "password": "secret-1234"}}
    user_id = admin.identity("POST", "/users", json=user).json()["user"]["id"]
    [role] = [r for r in admin.identity("GET", "/roles").json()["roles"] if r["name"] == "member"]
    admin.identity("PUT", f"/projects/{project}/users/{user_id}/roles/{role['id']}").raise_for_status()
    return cloud.client(username="sg", password="secret-1234", project_name="sg")


@pytest.fixture(scope="module")
def shared(admin: Client) -> str:
    [network] = [n for n in admin.network("GET", "/networks").json()["networks"] if n["shared"]]
    return str(network["id"])


def default_of(client: Client) -> dict[str, Any]:
    # Any administrator sees the groups of all projects: its own is that of a port it makes.
    groups = client.network("GET", "/security-groups?name=default").json()["security_groups"]
    assert len(groups) == 1, groups
    return dict(groups[0])


def make(client: Client, name: str = "web") -> str:
    made = client.network("POST", "/security-groups", json={"security_group": {"name": name}})
    assert made.status_code == 201, made.text
    return str(made.json()["security_group"]["id"])


def rule(client: Client, group: str, **fields: Any) -> Any:
    body = {"security_group_id": group, "direction": "ingress", **fields}
    return client.network("POST", "/security-group-rules", json={"security_group_rule": body})


def test_each_project_has_a_default_group_that_lets_its_own_in_and_all_out(member: Client) -> None:
    group = default_of(member)
    assert default_of(member) == group
    told = {
        (r["direction"], r["ethertype"], r["remote_group_id"], r["protocol"]) for r in group["security_group_rules"]
    }
    assert told == {
        ("ingress", "IPv4", group["id"], None),
        ("ingress", "IPv6", group["id"], None),
        ("egress", "IPv4", None, None),
        ("egress", "IPv6", None, None),
    }
    assert member.network("DELETE", f"/security-groups/{group['id']}").status_code == 409
    changed = member.network("PUT", f"/security-groups/{group['id']}", json={"security_group": {"name": "x"}})
    assert changed.status_code == 409
    again = member.network("POST", "/security-groups", json={"security_group": {"name": "default"}})
    assert again.status_code == 409


def test_a_group_is_made_filled_and_removed(member: Client) -> None:
    group = make(member)
    [out4, out6] = member.network("GET", f"/security-groups/{group}").json()["security_group"]["security_group_rules"]
    assert {out4["direction"], out6["direction"]} == {"egress"}
    made = rule(member, group, protocol="TCP", port_range_min=22, port_range_max=22, remote_ip_prefix="10.0.0.7/8")
    assert made.status_code == 201, made.text
    ssh = made.json()["security_group_rule"]
    assert (ssh["protocol"], ssh["ethertype"], ssh["remote_ip_prefix"]) == ("tcp", "IPv4", "10.0.0.0/8")
    again = rule(member, group, protocol="6", port_range_min=22, port_range_max=22, remote_ip_prefix="10.0.0.0/8")
    assert again.status_code == 409, again.text
    assert rule(member, group, protocol="icmp").status_code == 201
    listed = member.network("GET", f"/security-group-rules?security_group_id={group}").json()["security_group_rules"]
    assert len(listed) == 4
    assert member.network("GET", f"/security-group-rules/{ssh['id']}").json()["security_group_rule"] == ssh
    assert member.network("DELETE", f"/security-group-rules/{ssh['id']}").status_code == 204
    assert member.network("GET", f"/security-group-rules/{ssh['id']}").status_code == 404
    renamed = member.network("PUT", f"/security-groups/{group}", json={"security_group": {"description": "d"}})
    assert renamed.json()["security_group"]["description"] == "d"
    assert member.network("DELETE", f"/security-groups/{group}").status_code == 204
    assert member.network("GET", f"/security-groups/{group}").status_code == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": "tcp", "port_range_min": 80},
        {"protocol": "tcp", "port_range_min": 90, "port_range_max": 80},
        {"protocol": "tcp", "port_range_min": 1, "port_range_max": 70000},
        {"port_range_min": 80, "port_range_max": 80},
        {"protocol": "gre", "port_range_min": 80, "port_range_max": 80},
        {"protocol": "icmp", "port_range_max": 0},
        {"protocol": "icmp", "port_range_min": 256},
        {"protocol": "tcp accept; #"},
        {"protocol": "\u0661"},
        {"protocol": 256},
        {"protocol": True},
        {"ethertype": "IPX"},
        {"remote_ip_prefix": "10.0.0.0/33"},
        {"remote_ip_prefix": "::/0"},
        {"remote_ip_prefix": "10.0.0.0/\u0662"},
        {"direction": "sideways"},
        {"remote_group_id": "11111111-2222-3333-4444-555555555555"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(member: Client, fields: dict[str, Any]) -> None:
    answer = rule(member, default_of(member)["id"], **fields)
    assert answer.status_code == 400, answer.text


def test_groups_of_others_are_not_there(member: Client, admin: Client, shared: str) -> None:
    foreign = admin.network("POST", "/ports", json={"port": {"network_id": shared}}).json()["port"]
    [group] = foreign["security_groups"]
    assert member.network("GET", f"/security-groups/{group}").status_code == 404
    assert rule(member, group, protocol="tcp").status_code == 404
    assert rule(member, default_of(member)["id"], remote_group_id=group).status_code == 400
    port = {"network_id": shared, "security_groups": [group]}
    assert member.network("POST", "/ports", json={"port": port}).status_code == 400
    admin.network("DELETE", f"/ports/{foreign['id']}").raise_for_status()


def test_ports_carry_groups(member: Client, shared: str) -> None:
    default, group = default_of(member)["id"], make(member, "carried")

    def port(**fields: Any) -> dict[str, Any]:
        made = member.network("POST", "/ports", json={"port": {"network_id": shared, **fields}})
        assert made.status_code == 201, made.text
        return dict(made.json()["port"])

    plain, chosen, bare = port(), port(security_groups=[group]), port(security_groups=[])
    assert [one["security_groups"] for one in (plain, chosen, bare)] == [[default], [group], []]
    assert member.network("DELETE", f"/security-groups/{group}").status_code == 409
    body = {"port": {"security_groups": [default, group]}}
    changed = member.network("PUT", f"/ports/{plain['id']}", json=body).json()["port"]
    assert sorted(changed["security_groups"]) == sorted([default, group])
    for one in (plain, chosen, bare):
        member.network("DELETE", f"/ports/{one['id']}").raise_for_status()
    assert member.network("DELETE", f"/security-groups/{group}").status_code == 204


def test_a_server_is_booted_into_a_group(member: Client, admin: Client, image_id: str, flavor_id: str) -> None:
    admin.image("PATCH", f"/images/{image_id}", json=[{"op": "replace", "path": "/visibility", "value": "public"}],
                headers={"Content-Type": "application/openstack-images-v2.1-json-patch"})  # fmt: skip
    group = make(member, "boots")
    server = member.boot("in-a-group", image_id, flavor_id, security_groups=[{"name": "boots"}])
    member.wait(server, "ACTIVE")
    [port] = member.network("GET", f"/ports?device_id={server}").json()["ports"]
    assert port["security_groups"] == [group]
    assert [one["name"] for one in member.server(server)["security_groups"]] == ["boots"]
    body = {
        "server": {
            "name": "x", "imageRef": image_id, "flavorRef": flavor_id, "security_groups": [{"name": "nobody's"}],
            "networks": "auto",
        }
    }  # fmt: skip
    refused = member.compute("POST", "/servers", json=body, headers={"OpenStack-API-Version": "compute 2.90"})
    assert refused.status_code == 400, refused.text
    member.compute("DELETE", f"/servers/{server}")
    member.wait_gone(server)
    assert member.network("DELETE", f"/security-groups/{group}").status_code == 204


def act(client: Client, server: str, action: str, group: str) -> int:
    answer = client.compute("POST", f"/servers/{server}/action", json={action: {"name": group}})
    assert answer.status_code != 202 or answer.content == b""
    return answer.status_code


def names_of(client: Client, server: str) -> list[str]:
    return sorted(one["name"] for one in client.server(server).get("security_groups", []))


def test_a_server_goes_from_group_to_group(
    member: Client, admin: Client, shared: str, image_id: str, flavor_id: str
) -> None:
    admin.image("PATCH", f"/images/{image_id}", json=[{"op": "replace", "path": "/visibility", "value": "public"}],
                headers={"Content-Type": "application/openstack-images-v2.1-json-patch"})  # fmt: skip
    default, group = default_of(member)["id"], make(member, "moves")
    rule(member, group, protocol="tcp", port_range_min=22, port_range_max=22).raise_for_status()
    extra = member.network("POST", "/ports", json={"port": {"network_id": shared, "security_groups": []}})
    extra_id = extra.raise_for_status().json()["port"]["id"]
    server = member.boot("moves", image_id, flavor_id, networks=[{"uuid": shared}, {"port": extra_id}])
    member.wait(server, "ACTIVE")
    assert names_of(member, server) == ["default"]

    for name in ("moves", group):  # into one that it is in already, too
        assert act(member, server, "addSecurityGroup", name) == 202
        assert names_of(member, server) == ["default", "moves"]
    [listed] = member.compute("GET", f"/servers/detail?uuid={server}").json()["servers"]
    assert listed["security_groups"] == member.server(server)["security_groups"]
    ports = member.network("GET", f"/ports?device_id={server}").json()["ports"]
    groups_of = {port["id"]: set(port["security_groups"]) for port in ports}
    assert groups_of.pop(extra_id) == {group}
    assert list(groups_of.values()) == [{default, group}]

    told = member.compute("GET", f"/servers/{server}/os-security-groups").raise_for_status().json()["security_groups"]
    assert [(one["name"], one["tenant_id"]) for one in told] == [
        ("default", member.project_id), ("moves", member.project_id)
    ]  # fmt: skip
    [ssh] = told[1]["rules"]
    assert (ssh["ip_protocol"], ssh["from_port"], ssh["to_port"]) == ("tcp", 22, 22)
    assert (ssh["ip_range"], ssh["group"], ssh["parent_group_id"]) == ({"cidr": "0.0.0.0/0"}, {}, group)
    assert {str(one["group"]) for one in told[0]["rules"]} == {str({"name": "default", "tenant_id": member.project_id})}

    make(member, "twin"), make(member, "twin")
    assert act(member, server, "addSecurityGroup", "twin") == 409
    assert act(member, server, "removeSecurityGroup", "twin") == 409
    assert act(member, server, "addSecurityGroup", "nobody's") == 404
    assert act(admin, server, "addSecurityGroup", "moves") == 202, "an administrator means the server's project's"
    assert act(member, server, "removeSecurityGroup", "moves") == 202
    assert act(member, server, "removeSecurityGroup", "moves") == 404
    assert act(member, server, "removeSecurityGroup", default) == 202
    assert "security_groups" not in member.server(server)
    assert member.compute("GET", f"/servers/{server}/os-security-groups").json() == {"security_groups": []}

    assert act(member, server, "addSecurityGroup", default_of_port(admin, shared)) == 404
    member.compute("DELETE", f"/servers/{server}")
    member.wait_gone(server)
    member.network("DELETE", f"/ports/{extra_id}").raise_for_status()
    for one in member.network("GET", "/security-groups").json()["security_groups"]:
        if one["name"] != "default":
            member.network("DELETE", f"/security-groups/{one['id']}").raise_for_status()


def default_of_port(client: Client, network: str) -> str:
    """The default group of the client's project, whoever it is."""
    port = client.network("POST", "/ports", json={"port": {"network_id": network}}).json()["port"]
    client.network("DELETE", f"/ports/{port['id']}").raise_for_status()
    [group] = port["security_groups"]
    return str(group)


def test_quotas_hold(member: Client) -> None:
    made = [make(member, f"many-{number}") for number in range(10)]
    refused = member.network("POST", "/security-groups", json={"security_group": {"name": "one too many"}})
    assert refused.status_code in (403, 409, 413), refused.text
    for group in made:
        member.network("DELETE", f"/security-groups/{group}").raise_for_status()
    member.network("DELETE", f"/security-groups/{make(member, 'again')}").raise_for_status()


def test_agents_are_for_administrators(member: Client, admin: Client) -> None:
    assert member.network("GET", "/agents").json() == {"agents": []}
    # Simulated hosts have no network agents that could fail.
    assert admin.network("GET", "/agents").json() == {"agents": []}
    assert admin.network("GET", "/agents/11111111-2222-3333-4444-555555555555").status_code == 404
