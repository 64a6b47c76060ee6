"""Bad requests, by the hundred: each gets a clear answer in its API's own form, and none a 500."""

import uuid
from typing import Any

import httpx
import pytest
from tests.support.running import Client, RunningCloud

NOBODY = str(uuid.uuid4())
DEEP = "[" * 5000 + "]" * 5000

#: (method, path, body or None); the body is JSON unless it is bytes
COMPUTE: list[tuple[str, str, Any]] = [
    ("GET", "/nothing", None),
    ("GET", "/servers/not-a-uuid", None),
    ("GET", f"/servers/{NOBODY}", None),
    ("GET", "/servers/%00", None),
    ("GET", "/servers/" + "x" * 3000, None),
    ("GET", "/servers?limit=-1", None),
    ("GET", "/servers?limit=many", None),
    ("GET", "/servers?limit=99999999999999999999", None),
    ("GET", f"/servers?marker={NOBODY}", None),
    ("GET", "/servers?sort_key=colour", None),
    ("GET", "/servers?sort_key=name&sort_dir=sideways", None),
    ("GET", "/servers?changes-since=yesterday", None),
    ("GET", "/servers?changes-since=2026-02-30T00:00:00Z", None),
    ("GET", "/servers?name=%5B", None),
    ("GET", "/servers?all_tenants=perhaps", None),
    ("GET", "/servers?deleted=perhaps", None),
    ("PATCH", "/servers", None),
    ("PUT", "/servers", {}),
    ("POST", "/servers", None),
    ("POST", "/servers", b""),
    ("POST", "/servers", b"{"),
    ("POST", "/servers", b"\xff\xfe"),
    ("POST", "/servers", b"\x00"),
    ("POST", "/servers", DEEP.encode()),
    ("POST", "/servers", b"null"),
    ("POST", "/servers", b"[]"),
    ("POST", "/servers", b'"server"'),
    ("POST", "/servers", b'{"server": NaN}'),
    ("POST", "/servers", b'{"server": {"name": "\\ud800"}}'),
    ("POST", "/servers", {}),
    ("POST", "/servers", {"server": None}),
    ("POST", "/servers", {"server": []}),
    ("POST", "/servers", {"server": {}}),
    ("POST", "/servers", {"server": {"name": ""}}),
    ("POST", "/servers", {"server": {"name": "n"}}),
    ("POST", "/servers", {"server": {"name": 5, "flavorRef": "1"}}),
    ("POST", "/servers", {"server": {"name": "x" * 256, "flavorRef": "1"}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": "1", "colour": "red"}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": None}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": {}}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": "1", "imageRef": "not-a-uuid", "networks": "auto"}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": "1", "imageRef": NOBODY, "networks": "auto"}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": "nope", "imageRef": "IMAGE", "networks": "auto"}}),
    ("POST", "/servers", {"server": {"name": "n", "flavorRef": "FLAVOR", "imageRef": "IMAGE"}}),
]
GOOD = {"name": "n", "flavorRef": "FLAVOR", "imageRef": "IMAGE", "networks": "auto"}
COMPUTE += [
    ("POST", "/servers", {"server": {**GOOD, **bad}})
    for bad in (
        {"networks": "some"},
        {"networks": 5},
        {"networks": [{}]},
        {"networks": [{"uuid": "x"}]},
        {"networks": [{"uuid": NOBODY}]},
        {"networks": [{"port": NOBODY}]},
        {"networks": [{"uuid": NOBODY, "fixed_ip": "300.1.1.1"}]},
        {"networks": [{"uuid": NOBODY, "port": NOBODY}]},
        {"key_name": "nobody-has-this"},
        {"key_name": 5},
        {"user_data": "%%% not base64"},
        {"user_data": "A" * 70000},
        {"user_data": {"a": 1}},
        {"metadata": []},
        {"metadata": {"k": 5}},
        {"metadata": {"k": "v" * 256}},
        {"metadata": {"": "v"}},
        {"metadata": {f"k{n}": "v" for n in range(200)}},
        {"min_count": 0},
        {"min_count": -5},
        {"min_count": 3, "max_count": 2},
        {"max_count": "many"},
        {"max_count": 10**30},
        {"min_count": True},
        {"config_drive": "perhaps"},
        {"OS-DCF:diskConfig": "SOMETIMES"},
        {"accessIPv4": "x"},
        {"accessIPv6": "10.0.0.1"},
        {"availability_zone": ""},
        {"availability_zone": "nova:no-such-host"},
        {"host": "no-such-host"},
        {"hostname": "-bad-"},
        {"tags": ["a,b"]},
        {"tags": "a"},
        {"description": "x" * 300},
        {"personality": []},
        {"block_device_mapping_v2": [{"source_type": "volume", "uuid": NOBODY, "boot_index": 0}]},
        {"block_device_mapping_v2": "x"},
        {"security_groups": [{"id": 1}]},
        {"trusted_image_certificates": ["x"]},
    )
]
COMPUTE += [
    ("PUT", f"/servers/{NOBODY}", {"server": {"name": "n"}}),
    ("DELETE", f"/servers/{NOBODY}", None),
    ("POST", f"/servers/{NOBODY}/action", {"os-start": None}),
    ("POST", "/servers/SERVER/action", {}),
    ("POST", "/servers/SERVER/action", {"os-start": None, "os-stop": None}),
    ("POST", "/servers/SERVER/action", {"fly": {}}),
    ("POST", "/servers/SERVER/action", {"reboot": None}),
    ("POST", "/servers/SERVER/action", {"reboot": {"type": "GENTLE"}}),
    ("POST", "/servers/SERVER/action", {"reboot": {"type": []}}),
    ("POST", "/servers/SERVER/action", {"os-getConsoleOutput": {"length": "many"}}),
    ("POST", "/servers/SERVER/action", {"os-getConsoleOutput": {"length": -7}}),
    ("POST", "/servers/SERVER/action", {"addSecurityGroup": None}),
    ("POST", "/servers/SERVER/action", {"addSecurityGroup": {"name": " "}}),
    ("POST", "/servers/SERVER/action", {"addSecurityGroup": {"name": "nobody's"}}),
    ("POST", "/servers/SERVER/action", {"removeSecurityGroup": {"name": ["default"]}}),
    ("POST", "/servers/SERVER/action", {"removeSecurityGroup": {"name": NOBODY}}),
    ("POST", f"/servers/{NOBODY}/action", {"addSecurityGroup": {"name": "default"}}),
    ("GET", f"/servers/{NOBODY}/os-security-groups", None),
    ("PUT", "/servers/SERVER", {"server": {"name": ""}}),
    ("PUT", "/servers/SERVER", {"server": {"colour": "red"}}),
    ("PUT", "/servers/SERVER/metadata/k", {"meta": {"other": "v"}}),
    ("GET", "/servers/SERVER/metadata/nope", None),
    ("GET", "/servers/SERVER/os-instance-actions/req-nope", None),
    ("GET", "/servers/SERVER/ips/nope", None),
    ("GET", "/flavors/nope", None),
    ("GET", "/flavors?marker=nope", None),
    ("GET", "/flavors?minRam=much", None),
    ("GET", "/flavors?sort_key=colour", None),
    ("POST", "/flavors", {"flavor": {"name": "x", "ram": 0, "vcpus": 1, "disk": 1}}),
    ("POST", "/flavors", {"flavor": {"name": "x", "ram": 1, "vcpus": "a", "disk": 1}}),
    ("POST", "/flavors", {"flavor": {"name": "x", "ram": 10**12, "vcpus": 1, "disk": 1}}),
    ("POST", "/flavors", {"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1, "rxtx_factor": "inf"}}),
    ("POST", "/flavors/FLAVOR/os-extra_specs", {"extra_specs": {"k": {}}}),
    ("PUT", "/flavors/FLAVOR/os-extra_specs/a", {"b": "c"}),
    ("POST", "/flavors/FLAVOR/action", {}),
    ("GET", "/os-keypairs/nope", None),
    ("POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": "ssh-rsa AAAA"}}),
    ("POST", "/os-keypairs", {"keypair": {"name": "a/b", "public_key": "x"}}),
    ("POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": "x", "type": "pgp"}}),
    ("POST", "/os-keypairs", {"keypair": {"name": "k"}}),
    ("DELETE", "/os-keypairs/nope", None),
    ("PUT", f"/os-services/{NOBODY}", {"status": "disabled"}),
    ("PUT", f"/os-services/{NOBODY}", {}),
    ("GET", f"/os-hypervisors/{NOBODY}", None),
    ("GET", "/os-hypervisors/detail?marker=nope", None),
]

IMAGE: list[tuple[str, str, Any]] = [
    ("GET", "/images/not-a-uuid", None),
    ("GET", f"/images/{NOBODY}", None),
    ("GET", f"/images/{NOBODY}/file", None),
    ("GET", "/images?limit=-1", None),
    ("GET", f"/images?marker={NOBODY}", None),
    ("GET", "/images?sort_key=colour", None),
    ("POST", "/images", {"name": 5}),
    ("POST", "/images", {"name": "x" * 300}),
    ("POST", "/images", {"disk_format": "floppy"}),
    ("POST", "/images", {"visibility": "secret"}),
    ("POST", "/images", {"min_disk": -1}),
    ("POST", "/images", {"id": "x"}),
    ("POST", "/images", b"{"),
    ("POST", "/images", []),
    ("PUT", f"/images/{NOBODY}/file", b"x"),
    ("DELETE", f"/images/{NOBODY}", None),
]

NETWORK: list[tuple[str, str, Any]] = [
    ("GET", f"/networks/{NOBODY}", None),
    ("GET", "/ports?limit=x", None),
    ("POST", "/networks", {}),
    ("POST", "/networks", {"network": {"name": 5}}),
    ("POST", "/networks", {"network": {"mtu": "big"}}),
    ("POST", "/subnets", {"subnet": {"network_id": NOBODY, "ip_version": 4, "cidr": "10.0.0.0/24"}}),
    ("POST", "/subnets", {"subnet": {"network_id": "x", "ip_version": 4, "cidr": "10.0.0.0/24"}}),
    ("POST", "/subnets", {"subnet": {"network_id": NOBODY, "ip_version": 5, "cidr": "10.0.0.0/24"}}),
    ("POST", "/subnets", {"subnet": {"network_id": NOBODY, "ip_version": 4, "cidr": "ten"}}),
    ("POST", "/ports", {"port": {"network_id": NOBODY}}),
    ("POST", "/ports", {"port": {"network_id": NOBODY, "mac_address": "zz"}}),
    ("POST", "/ports", {"port": []}),
    ("PUT", f"/ports/{NOBODY}", {"port": {"name": "x"}}),
    ("DELETE", f"/subnets/{NOBODY}", None),
]

IDENTITY: list[tuple[str, str, Any]] = [
    ("POST", "/auth/tokens", {}),
    ("POST", "/auth/tokens", {"auth": {}}),
    ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["magic"]}}}),
    ("POST", "/auth/tokens", {"auth": {"identity": {"methods": []}}}),
    ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": {"user": {}}}}}),
    ("POST", "/auth/tokens", {"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}}}),
    ("GET", f"/users/{NOBODY}", None),
    ("GET", f"/projects/{NOBODY}", None),
    ("POST", "/users", {"user": {}}),
    ("POST", "/users", {"user": {"name": 5}}),
    ("POST", "/projects", {"project": {"name": ""}}),
    ("POST", "/projects", {"project": {"name": "p", "domain_id": NOBODY}}),
    ("PUT", f"/projects/{NOBODY}/users/{NOBODY}/roles/{NOBODY}", None),
    ("DELETE", f"/roles/{NOBODY}", None),
]


@pytest.fixture(scope="module")
def server_id(admin: Client, image_id: str, flavor_id: str) -> str:
    server_id = admin.boot("target", image_id, flavor_id)
    admin.wait(server_id, "ACTIVE")
    return server_id


def _fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, real in names.items():
            value = value.replace(name, real)
        return value
    if isinstance(value, dict):
        return {key: _fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, names) for item in value]
    return value


def _error_of(service: str, answer: Any) -> str:
    """The message, from where that API's clients look for it."""
    if service == "image":
        return str(answer.text)
    body = answer.json()
    if service == "network":
        return str(body["NeutronError"]["message"])
    if service == "identity":
        assert body["error"]["code"] == answer.status_code
        return str(body["error"]["message"])
    [fault] = body.values()
    assert fault["code"] == answer.status_code
    return str(fault["message"])


@pytest.mark.parametrize("service", ["compute", "image", "network", "identity"])
def test_bad_requests_get_clear_answers(
    service: str, admin: Client, server_id: str, image_id: str, flavor_id: str
) -> None:
    table = {"compute": COMPUTE, "image": IMAGE, "network": NETWORK, "identity": IDENTITY}[service]
    names = {"SERVER": server_id, "IMAGE": image_id, "FLAVOR": flavor_id}
    wrong: list[str] = []
    for method, path, body in table:
        send = getattr(admin, service)
        if isinstance(body, bytes):
            answer = send(method, _fill(path, names), content=body, headers={"Content-Type": "application/json"})
        elif body is None:
            answer = send(method, _fill(path, names))
        else:
            answer = send(method, _fill(path, names), json=_fill(body, names))
        told = f"{method} {path[:80]} {str(body)[:120]} -> {answer.status_code} {answer.text[:200]}"
        if not 400 <= answer.status_code < 500:
            wrong.append(told)
            continue
        try:
            assert _error_of(service, answer)
        except Exception as error:
            wrong.append(f"{told}: not the API's own form ({error!r})")
    assert wrong == []


def test_the_table_is_long_enough() -> None:
    assert len(COMPUTE + IMAGE + NETWORK + IDENTITY) >= 100


@pytest.mark.parametrize(
    "path", ["/compute/v2.1/servers", "/image/v2/images", "/network/v2.0/networks", "/identity/v3/users"]
)
@pytest.mark.parametrize("token", [None, "", "x", "gAAAAA" + "B" * 300])
def test_without_a_good_token_nothing_is_told(cloud: RunningCloud, admin: Client, path: str, token: str | None) -> None:
    headers = {} if token is None else {"X-Auth-Token": token}
    answer = httpx.get(f"{cloud.url}{path}", headers=headers)
    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers


def test_an_oversize_body_is_refused(admin: Client) -> None:
    body = {"server": {"name": "n", "flavorRef": "1", "metadata": {"k": "v" * 3_000_000}}}
    assert admin.compute("POST", "/servers", json=body).status_code == 413


def test_microversions_out_of_range_are_not_acceptable(admin: Client) -> None:
    for version, status in (("2.1", 200), ("2.96", 200), ("latest", 200), ("2.0", 406), ("2.999", 406), ("two", 400)):
        answer = admin.http.get("/compute/v2.1/servers", headers={"OpenStack-API-Version": f"compute {version}"})
        assert answer.status_code == status, version


def test_errors_carry_the_request_id(admin: Client) -> None:
    answer = admin.compute("GET", f"/servers/{NOBODY}")
    assert answer.headers["x-openstack-request-id"].startswith("req-")


@pytest.mark.parametrize(
    "path",
    [
        "/projects", "/users", "/roles", "/domains", "/role_assignments?include_names", "/services", "/endpoints",
        "/regions", "/auth/catalog", "/auth/projects",
    ],
)  # fmt: skip
def test_lists_of_identity_can_be_read(admin: Client, path: str) -> None:
    answer = admin.identity("GET", path)
    assert answer.status_code == 200
    assert any(isinstance(value, list) and value for value in answer.json().values())
