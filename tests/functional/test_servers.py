"""Servers through the whole path (REST, database, conductor, scheduler, queue, agent) on simulated hosts."""

import base64
import hmac
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.support.running import Client, RunningCloud


def test_create_is_accepted_before_it_is_done_and_ends_active(admin: Client, image_id: str, flavor_id: str) -> None:
    body = {"server": {"name": "one", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"}}
    answer = admin.compute("POST", "/servers", json=body)
    assert answer.status_code == 202
    made = answer.json()["server"]
    assert set(made) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    assert answer.headers["Location"].endswith(f"/compute/v2.1/servers/{made['id']}")
    view = admin.wait(made["id"], "ACTIVE")
    assert view["OS-EXT-STS:power_state"] == 1
    assert view["OS-EXT-SRV-ATTR:host"].startswith("fake")
    [addresses] = view["addresses"].values()
    assert addresses[0]["version"] == 4
    assert view["flavor"]["ram"] == 128
    admin.compute("DELETE", f"/servers/{made['id']}").raise_for_status()
    admin.wait_gone(made["id"])


def test_power_cycle_and_its_record(admin: Client, image_id: str, flavor_id: str) -> None:
    server_id = admin.boot("cycle", image_id, flavor_id)
    admin.wait(server_id, "ACTIVE")
    for action, status in (
        ({"os-stop": None}, "SHUTOFF"),
        ({"os-start": None}, "ACTIVE"),
        ({"reboot": {"type": "SOFT"}}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
    ):
        assert admin.compute("POST", f"/servers/{server_id}/action", json=action).status_code == 202
        admin.wait(server_id, status)
    actions = admin.compute("GET", f"/servers/{server_id}/os-instance-actions").json()["instanceActions"]
    assert [a["action"] for a in actions] == ["reboot", "reboot", "start", "stop", "create"]
    create = admin.compute("GET", f"/servers/{server_id}/os-instance-actions/{actions[-1]['request_id']}").json()[
        "instanceAction"
    ]
    events = [(event["event"], event["result"]) for event in reversed(create["events"])]
    assert events == [(f"create_{step}", "Success") for step in ("place", "plug", "spawn", "announce")]
    output = admin.compute("POST", f"/servers/{server_id}/action", json={"os-getConsoleOutput": {"length": 5}})
    assert output.status_code == 200
    assert output.json()["output"]
    admin.compute("DELETE", f"/servers/{server_id}")
    admin.wait_gone(server_id)


@pytest.mark.parametrize(
    ("state", "action", "refused"),
    [
        ("ACTIVE", {"os-start": None}, True),
        ("ACTIVE", {"os-stop": None}, False),
        ("SHUTOFF", {"os-stop": None}, True),
        ("SHUTOFF", {"reboot": {"type": "SOFT"}}, True),
        ("SHUTOFF", {"reboot": {"type": "HARD"}}, False),
    ],
)
def test_actions_fit_the_state_or_are_refused(
    admin: Client, image_id: str, flavor_id: str, state: str, action: dict[str, object], refused: bool
) -> None:
    server_id = admin.boot("state", image_id, flavor_id)
    admin.wait(server_id, "ACTIVE")
    if state == "SHUTOFF":
        admin.compute("POST", f"/servers/{server_id}/action", json={"os-stop": None})
        admin.wait(server_id, "SHUTOFF")
    answer = admin.compute("POST", f"/servers/{server_id}/action", json=action)
    assert answer.status_code == (409 if refused else 202)
    if refused:
        assert "vm_state" in answer.json()["conflictingRequest"]["message"]
    admin.wait(server_id, "ACTIVE", "SHUTOFF")
    admin.compute("DELETE", f"/servers/{server_id}")
    admin.wait_gone(server_id)


def test_multi_create_and_listing_in_pages(admin: Client, image_id: str, flavor_id: str) -> None:
    body = {
        "server": {
            "name": "many",
            "imageRef": image_id,
            "flavorRef": flavor_id,
            "networks": "auto",
            "min_count": 5,
            "max_count": 5,
            "return_reservation_id": True,
        }
    }
    reservation = admin.compute("POST", "/servers", json=body).json()["reservation_id"]
    found: list[str] = []
    url = f"/servers/detail?reservation_id={reservation}&limit=2&sort_key=display_name&sort_dir=asc"
    while url:
        page = admin.compute("GET", url).json()
        found += [server["name"] for server in page["servers"]]
        url = next((link["href"] for link in page.get("servers_links", []) if link["rel"] == "next"), "")
        url = re.sub(r"^.*?/compute/v2\.1", "", url)
    assert found == [f"many-{n}" for n in range(1, 6)]
    servers = admin.compute("GET", f"/servers?reservation_id={reservation}").json()["servers"]
    for server in servers:
        admin.wait(server["id"], "ACTIVE")
        admin.compute("DELETE", f"/servers/{server['id']}")
    for server in servers:
        admin.wait_gone(server["id"])


def test_parallel_creates_at_the_limit_take_exactly_the_limit(
    cloud: RunningCloud, admin: Client, image_id: str, flavor_id: str
) -> None:
    before = admin.compute("GET", "/limits").json()["limits"]["absolute"]
    room = before["maxTotalInstances"] - before["totalInstancesUsed"]

    def one(n: int) -> tuple[int, str]:
        body = {"server": {"name": f"q{n}", "imageRef": image_id, "flavorRef": flavor_id, "networks": "none"}}
        answer = admin.compute("POST", "/servers", json=body)
        return answer.status_code, answer.json().get("server", {}).get("id", "")

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(room + 15)))
    made = [server_id for status, server_id in results if status == 202]
    assert len(made) == room
    assert [status for status, _ in results if status != 202] == [403] * 15
    for server_id in made:
        admin.compute("DELETE", f"/servers/{server_id}")
    for server_id in made:
        admin.wait_gone(server_id)
    after = admin.compute("GET", "/limits").json()["limits"]["absolute"]
    assert after["totalInstancesUsed"] == before["totalInstancesUsed"]
    assert after["totalRAMUsed"] == before["totalRAMUsed"]


def test_no_valid_host_says_what_was_missing_and_explain_names_the_filter(
    cloud: RunningCloud, admin: Client, image_id: str
) -> None:
    quota_free = admin.flavor("m1.huge", vcpus=1, ram=40000, disk=900000)
    server_id = admin.boot("huge", image_id, quota_free)
    view = admin.wait(server_id, "ERROR")
    assert "disk" in view["fault"]["message"].lower()
    assert "fake" not in view["fault"]["message"], "users learn no host names"
    assert "step place" in view["fault"]["details"]
    command = [sys.executable, "-m", "kilonova.cli.main", "explain", "--state", str(cloud.state)]
    for name in (server_id, "huge"):
        told = subprocess.run([*command, name], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        assert "DiskFilter" in told.stdout
    twin = admin.boot("huge", image_id, admin.flavor("m1.twin"))
    several = subprocess.run([*command, "huge"], capture_output=True, text=True)
    assert several.returncode == 2 and server_id in several.stderr and twin in several.stderr
    for each in (server_id, twin):
        admin.compute("DELETE", f"/servers/{each}")
        admin.wait_gone(each)


def test_a_request_is_traced_through_every_service(
    cloud: RunningCloud, admin: Client, image_id: str, flavor_id: str
) -> None:
    body = {"server": {"name": "traced", "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto"}}
    answer = admin.compute("POST", "/servers", json=body)
    request_id = answer.headers["x-openstack-request-id"]
    server_id = answer.json()["server"]["id"]
    admin.wait(server_id, "ACTIVE")
    told = subprocess.run(
        [sys.executable, "-m", "kilonova.cli.main", "trace", request_id, "--state", str(cloud.state), "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [json.loads(line) for line in told.splitlines()]
    assert {line["service"] for line in lines} >= {"api", "conductor", "scheduler", "compute", "network"}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    order = [line["service"] for line in lines]
    assert order.index("api") < order.index("scheduler") < order.index("compute")
    admin.compute("DELETE", f"/servers/{server_id}")
    admin.wait_gone(server_id)


def test_a_delete_takes_over_from_a_boot(admin: Client, image_id: str, flavor_id: str) -> None:
    for _ in range(10):
        server_id = admin.boot("short", image_id, flavor_id)
        assert admin.compute("DELETE", f"/servers/{server_id}").status_code == 204
        admin.wait_gone(server_id)
    hypervisors = admin.http.get(
        "/compute/v2.1/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.53"}
    ).json()["hypervisors"]
    alive = admin.compute("GET", "/servers?all_tenants=1").json()["servers"]
    assert sum(h["vcpus_used"] for h in hypervisors) == len(alive)


def test_files_for_a_guest_are_told_by_the_metadata_service(
    cloud: RunningCloud, admin: Client, image_id: str, flavor_id: str
) -> None:
    older = {"OpenStack-API-Version": "compute 2.56"}
    motd = base64.b64encode(b"hello").decode()
    wanted = {"name": "told", "imageRef": image_id, "flavorRef": flavor_id, "networks": "none"}
    for contents, word in (("%%%", "base64"), (base64.b64encode(b"x" * 10241).decode(), "10240")):
        body = {"server": {**wanted, "personality": [{"path": "/etc/motd", "contents": contents}]}}
        refused = admin.compute("POST", "/servers", json=body, headers=older)
        assert refused.status_code == 400 and word in refused.text
    body = {"server": {**wanted, "personality": [{"path": "/etc/motd", "contents": motd}]}}
    server_id = admin.compute("POST", "/servers", json=body, headers=older).json()["server"]["id"]
    admin.wait(server_id, "ACTIVE")
    secret = (cloud.state / "secrets" / "metadata").read_text().strip()
    signed = {
        "X-Instance-ID": server_id,
        "X-Instance-ID-Signature": hmac.new(secret.encode(), server_id.encode(), "sha256").hexdigest(),
    }

    def told(path: str) -> httpx.Response:
        return admin.http.get(f"/metadata/openstack/{path}", headers=signed)

    assert told("latest/meta_data.json").json()["files"] == [{"path": "/etc/motd", "content_path": "/content/0000"}]
    assert told("content/0000").content == b"hello"
    assert told("content/0001").status_code == 404
    admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    admin.wait_gone(server_id)
