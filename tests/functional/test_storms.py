"""As many servers as there are places, asked for at once: each gets one at once, whatever goes on beside."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.running import ROOM_FOR_THOUSANDS, Client, RunningCloud

_PLACES = """
[compute]
cpu_allocation_ratio = 1
{compute}
[fake]
vcpus = {places}
memory_mib = 1000000
disk_gib = 10000
{fake}
"""

Make = Callable[..., RunningCloud]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Start a cloud of `hosts` with `places` each; it is stopped in the end."""
    made: list[RunningCloud] = []

    def start(hosts: int, places: int, *, compute: str = "", fake: str = "") -> RunningCloud:
        config = ROOM_FOR_THOUSANDS + _PLACES.format(places=places, compute=compute, fake=fake)
        made.append(RunningCloud(tmp_path / "state", hosts=hosts, config=config))
        made[0].start()
        return made[0]

    yield start
    for cloud in made:
        assert cloud.stop() == 0


def storm(admin: Client, count: int) -> list[dict[str, Any]]:
    """Ask for servers, sixteen requests at a time; how they ended."""
    image, flavor = admin.upload_image("tiny", b"\0" * 65536), admin.flavor()
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda number: admin.boot(f"s{number}", image, flavor), range(count)))
    return [admin.wait(server_id, "ACTIVE", "ERROR", timeout_s=180) for server_id in ids]


def per_host(servers: list[dict[str, Any]]) -> Counter[str]:
    return Counter(server["OS-EXT-SRV-ATTR:host"] for server in servers if server["status"] == "ACTIVE")


def retries(cloud: RunningCloud) -> list[str]:
    """What the metrics say of steps that had to be done again."""
    told = httpx.get(f"{cloud.url}/metrics").raise_for_status().text
    assert 'outcome="done"' in told
    return [line for line in told.splitlines() if "step_seconds_count" in line and 'outcome="done"' not in line]


def test_a_thousand_places_are_taken_without_one_retry(make: Make) -> None:
    cloud = make(hosts=250, places=4)
    admin = cloud.client()
    servers = storm(admin, 1000)
    hosts = per_host(servers)
    assert len(hosts) == 250 and set(hosts.values()) == {4}
    for server in servers[::10]:
        [decision] = admin.compute("GET", f"/servers/{server['id']}/kilonova-decisions").json()["decisions"]
        assert decision["attempt"] == 1 and not decision["explanation"].get("races_lost")
    assert retries(cloud) == []
    assert cloud.drift() == []


def test_reports_and_comparisons_every_ten_milliseconds_erase_no_claim(make: Make) -> None:
    quick = "update_resources_interval = 0.01\nsync_power_state_interval = 0.01"
    cloud = make(hosts=5, places=12, compute=quick, fake="spawn_delay_s = 0.3\ndelay_shape = uniform")
    servers = storm(cloud.client(), 75)
    assert Counter(server["status"] for server in servers) == {"ACTIVE": 60, "ERROR": 15}
    assert set(per_host(servers).values()) == {12}, "full, and none over"
    assert cloud.drift() == []
