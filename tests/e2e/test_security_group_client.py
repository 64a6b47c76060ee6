"""Security groups of servers and ports, changed with the real client by an administrator, on simulated hosts."""

from typing import Any

import pytest
from tests.e2e.conftest import OpenStack
from tests.support.running import RunningCloud

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def cloud(simulated_cloud: RunningCloud) -> RunningCloud:
    return simulated_cloud


def test_a_server_and_its_port_go_from_group_to_group(cloud: RunningCloud, openstack: OpenStack) -> None:
    admin = cloud.client()
    admin.upload_image("tiny", b"\0" * 65536)
    admin.flavor("small")
    group = {name: openstack("security", "group", "create", name)["id"] for name in ("web", "data", "ssh")}

    def create(name: str, *words: str) -> Any:
        return openstack(
            "server", "create", name, "--image", "tiny", "--flavor", "small", "--network", "flat", "--wait", *words
        )

    def groups_of(server: str) -> tuple[list[str], list[str]]:
        """As the server says, and as its port does."""
        shown = openstack("server", "show", server).get("security_groups", [])
        [port] = openstack("port", "list", "--server", server)
        return sorted(one["name"] for one in shown), sorted(openstack("port", "show", port["ID"])["security_group_ids"])

    made = create("one", "--security-group", "web", "--security-group", group["data"])
    assert sorted(one["name"] for one in made["security_groups"]) == ["data", "web"]
    assert groups_of("one") == (["data", "web"], sorted([group["data"], group["web"]]))

    openstack("server", "add", "security", "group", "one", "ssh", parse=False)
    openstack("server", "remove", "security", "group", "one", "web", group["data"], parse=False)
    assert groups_of("one") == (["ssh"], [group["ssh"]])
    refused = openstack("server", "add", "security", "group", "one", "nobody's", parse=False, check=False)
    assert "nobody's" in refused and "404" in refused, refused
    [row] = openstack("server", "list", "--long", "-c", "Name", "-c", "Security Groups")
    assert row["Security Groups"] == ["ssh"]

    [port] = [row["ID"] for row in openstack("port", "list", "--server", "one")]
    openstack("port", "set", "--security-group", "web", port, parse=False)
    assert groups_of("one") == (["ssh", "web"], sorted([group["ssh"], group["web"]]))
    openstack("port", "set", "--no-security-group", "--security-group", "data", port, parse=False)
    assert groups_of("one") == (["data"], [group["data"]])
    openstack("port", "unset", "--security-group", "data", port, parse=False)
    assert groups_of("one") == ([], [])
    openstack("port", "set", "--no-security-group", port, parse=False)
    assert groups_of("one") == ([], [])

    bare = openstack("port", "create", "bare", "--network", "flat", "--no-security-group")
    assert bare["security_group_ids"] == []
    for words in (("--security-group", "web"), ()):
        openstack("port", "set", "--no-security-group", *words, "bare", parse=False)
        found = openstack("port", "show", "bare")["security_group_ids"]
        assert found == ([group["web"]] if words else [])
    create("plain")
    assert groups_of("plain")[0] == ["default"]
