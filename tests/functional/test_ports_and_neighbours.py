"""What a member cannot do to the neighbours on a network that all share."""

from typing import Any

import pytest
from tests.support.running import Client, RunningCloud


@pytest.fixture(scope="module")
def member(cloud: RunningCloud, admin: Client) -> Client:
    project = admin.identity("POST", "/projects", json={"project": {"name": "p2"}}).json()["project"]["id"]
    user = {"user": {"name": "u2", "password": "secret-1234"}}
    user_id = admin.identity("POST", "/users", json=user).json()["user"]["id"]
    [role] = [r for r in admin.identity("GET", "/roles").json()["roles"] if r["name"] == "member"]
    admin.identity("PUT", f"/projects/{project}/users/{user_id}/roles/{role['id']}").raise_for_status()
    return cloud.client(username="u2", password="secret-1234", project_name="p2")


@pytest.fixture(scope="module")
def shared(admin: Client) -> str:
    [network] = [n for n in admin.network("GET", "/networks").json()["networks"] if n["shared"]]
    return str(network["id"])


LOOSE: list[dict[str, Any]] = [
    {"allowed_address_pairs": [{"ip_address": "0.0.0.0/0"}]},
    {"port_security_enabled": False},
    {"binding:host_id": "fake-0001"},
]


@pytest.mark.parametrize("values", LOOSE)
def test_a_port_on_a_shared_network_stays_guarded(member: Client, shared: str, values: dict[str, Any]) -> None:
    made = member.network("POST", "/ports", json={"port": {"network_id": shared, **values}})
    assert made.status_code == 403, made.text
    plain = member.network("POST", "/ports", json={"port": {"network_id": shared}}).json()["port"]["id"]
    changed = member.network("PUT", f"/ports/{plain}", json={"port": values})
    assert changed.status_code == 403, changed.text
    member.network("DELETE", f"/ports/{plain}").raise_for_status()


def test_on_ones_own_network_it_may_be_loosened(member: Client) -> None:
    network = member.network("POST", "/networks", json={"network": {"name": "own"}}).json()["network"]["id"]
    subnet = {"subnet": {"network_id": network, "cidr": "10.201.0.0/24", "ip_version": 4}}
    member.network("POST", "/subnets", json=subnet).raise_for_status()
    pairs = {"allowed_address_pairs": [{"ip_address": "10.9.0.5/16"}], "port_security_enabled": True}
    port = member.network("POST", "/ports", json={"port": {"network_id": network, **pairs}}).json()["port"]
    assert port["allowed_address_pairs"][0]["ip_address"] == "10.9.0.0/16"
    member.network("DELETE", f"/ports/{port['id']}").raise_for_status()
    member.network("DELETE", f"/networks/{network}").raise_for_status()


def test_a_port_is_no_card_of_somebody_elses_server(
    admin: Client, member: Client, shared: str, image_id: str, flavor_id: str
) -> None:
    server = admin.boot("victim", image_id, flavor_id)
    admin.wait(server, "ACTIVE")
    port = {"network_id": shared, "device_id": server, "device_owner": "compute:nova"}
    assert member.network("POST", "/ports", json={"port": port}).status_code == 404
    plain = member.network("POST", "/ports", json={"port": {"network_id": shared}}).json()["port"]["id"]
    assert member.network("PUT", f"/ports/{plain}", json={"port": {"device_id": server}}).status_code == 404
    member.network("DELETE", f"/ports/{plain}").raise_for_status()
    admin.compute("DELETE", f"/servers/{server}")
    admin.wait_gone(server)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/\u0662\u0664", "10.0.0.0/\u00b2", "10.0.0.0/33", "10.0.0.0/", "x/8", "::/0"]
)
def test_a_block_that_is_none_never_reaches_a_host(admin: Client, shared: str, text: str) -> None:
    pairs = [{"ip_address": text}]
    answer = admin.network("POST", "/ports", json={"port": {"network_id": shared, "allowed_address_pairs": pairs}})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("mac", ["fa:16:3e:00:00:01 accept", "01:00:5e:00:00:01", "fa:16:3e:00:00", ""])
def test_a_pairs_card_that_is_none_is_refused(admin: Client, shared: str, mac: str) -> None:
    pairs = [{"ip_address": "10.0.0.1", "mac_address": mac}]
    answer = admin.network("POST", "/ports", json={"port": {"network_id": shared, "allowed_address_pairs": pairs}})
    assert answer.status_code == 400, answer.text


def test_a_pairs_card_is_kept_as_hosts_compare_it(admin: Client, shared: str) -> None:
    port = admin.network("POST", "/ports", json={"port": {"network_id": shared}}).json()["port"]["id"]
    pairs = [{"ip_address": "10.0.0.1", "mac_address": "FA:16:3E:00:00:0A"}, {"ip_address": "10.0.0.2"}]
    changed = admin.network("PUT", f"/ports/{port}", json={"port": {"allowed_address_pairs": pairs}}).json()["port"]
    assert [pair["mac_address"] for pair in changed["allowed_address_pairs"]] == ["fa:16:3e:00:00:0a", None]
    admin.network("DELETE", f"/ports/{port}").raise_for_status()


@pytest.mark.parametrize("cidr", ["127.5.0.0/24", "169.254.169.0/24", "224.0.0.0/8", "0.0.0.0/8", "168.0.0.0/7"])
def test_a_subnet_of_addresses_that_are_nobodys_is_refused(admin: Client, cidr: str) -> None:
    network = admin.network("POST", "/networks", json={"network": {"name": "odd"}}).json()["network"]["id"]
    subnet = {"subnet": {"network_id": network, "cidr": cidr, "ip_version": 4}}
    assert admin.network("POST", "/subnets", json=subnet).status_code == 400
    admin.network("DELETE", f"/networks/{network}").raise_for_status()


def test_a_port_cannot_have_the_hosts_own_card_or_address(member: Client, admin: Client, shared: str) -> None:
    [subnet] = [s for s in admin.network("GET", "/subnets").json()["subnets"] if s["network_id"] == shared]
    for values in ({"mac_address": "fa:16:3f:00:00:01"}, {"fixed_ips": [{"ip_address": subnet["gateway_ip"]}]}):
        made = member.network("POST", "/ports", json={"port": {"network_id": shared, **values}})
        assert made.status_code in (400, 409), made.text
