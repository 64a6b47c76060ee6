"""A build that fails on one host is undone there and tried on the next, three times in all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.running import Client, RunningCloud


@pytest.fixture
def make(tmp_path: Path) -> Iterator[dict[str, RunningCloud]]:
    """Clouds that the test started, by name; they are stopped in the end."""
    made: dict[str, RunningCloud] = {}
    yield made
    for cloud in made.values():
        assert cloud.stop() == 0


def a_cloud(tmp_path: Path, share: float) -> RunningCloud:
    cloud = RunningCloud(
        tmp_path / "state", hosts=4, config=f"[fake]\nspawn_failures = {share}\n[quota]\ninstances = 50\ncores = 50\n"
    )
    cloud.start()
    return cloud


def used(admin: Client) -> int:
    answer = admin.compute("GET", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"})
    return sum(int(host["vcpus_used"]) for host in answer.json()["hypervisors"])


def test_three_hosts_are_tried_and_the_fault_names_step_host_and_cause(
    tmp_path: Path, make: dict[str, RunningCloud]
) -> None:
    cloud = make["all"] = a_cloud(tmp_path, 1.0)
    admin = cloud.client()
    server = admin.boot("unlucky", admin.upload_image("x", b"\0" * 65536), admin.flavor())
    view = admin.wait(server, "ERROR")
    decisions = admin.compute("GET", f"/servers/{server}/kilonova-decisions").json()["decisions"]
    hosts = [decision["host"] for decision in decisions]
    assert len(set(hosts)) == 3 and [decision["attempt"] for decision in decisions] == [1, 2, 3]
    details = view["fault"]["details"]
    assert "step spawn" in details and f"on host {hosts[-1]}" in details and "attempt 3" in details
    assert "asked for by [fake] spawn_failures" in view["fault"]["message"]
    assert not any(host in view["fault"]["message"] for host in hosts), "users learn no host names"
    # Nothing of it is left on any host, and it can be deleted.
    assert used(admin) == 0 and view["OS-EXT-SRV-ATTR:host"] is None
    assert admin.network("GET", f"/ports?device_id={server}").json()["ports"][0]["binding:host_id"] == ""
    admin.compute("DELETE", f"/servers/{server}").raise_for_status()
    admin.wait_gone(server)
    assert admin.network("GET", f"/ports?device_id={server}").json()["ports"] == []
    assert cloud.drift() == []


def test_most_builds_get_by_where_some_fail(tmp_path: Path, make: dict[str, RunningCloud]) -> None:
    cloud = make["some"] = a_cloud(tmp_path, 0.4)
    admin = cloud.client()
    image, flavor = admin.upload_image("x", b"\0" * 65536), admin.flavor()
    ids = [admin.boot(f"s{number}", image, flavor) for number in range(20)]
    views = [admin.wait(server, "ACTIVE", "ERROR") for server in ids]
    active = [view for view in views if view["status"] == "ACTIVE"]
    tries = [
        len(admin.compute("GET", f"/servers/{view['id']}/kilonova-decisions").json()["decisions"]) for view in active
    ]
    assert max(tries) > 1, "some needed another host"
    assert len(active) >= 12, "of twenty, one or two fail three times"
    assert used(admin) == len(active)
    assert cloud.drift() == []
