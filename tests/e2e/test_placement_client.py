"""Where servers go, steered and explained as operators do it: by the real client, on four simulated hosts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import OpenStack
from tests.support.remains import Remains
from tests.support.running import RunningCloud

pytestmark = [pytest.mark.real, pytest.mark.slow]

ZONED = """
[fake]
vcpus = 8
[compute]
cpu_allocation_ratio = 1
[quota]
cores = 100
[filter_scheduler]
enabled_filters = ComputeFilter,AvailabilityZoneFilter,AggregateInstanceExtraSpecsFilter,CoreFilter,RamFilter,\
ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter
"""


@pytest.fixture
def cloud(tmp_path: Path, remains: Remains) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path / "state", hosts=4, config=ZONED)
    running.start()
    yield running
    running.stop()


class Operator:
    """Commands, shortened to what this day needs of them."""

    def __init__(self, cloud: RunningCloud, openstack: OpenStack) -> None:
        self._cloud = cloud
        self.openstack = openstack

    def boot(self, name: str, *words: str, flavor: str = "small", check: bool = True) -> str:
        """Create a server and wait; its host, or what the client said."""
        found = self.openstack(
            "server", "create", name, "--image", "tiny", "--flavor", flavor, "--network", "flat", "--wait", *words,
            check=check,
        )  # fmt: skip
        return str(found["OS-EXT-SRV-ATTR:host"]) if isinstance(found, dict) else str(found)

    def kilonova(self, *words: str) -> str:
        """Our own command, on this cloud's state."""
        command = [sys.executable, "-m", "kilonova.cli.main", *words, "--state", str(self._cloud.state)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._cloud.environment())
        return done.stdout + done.stderr


def test_an_operators_day_with_zones_groups_hints_and_questions(cloud: RunningCloud, openstack: OpenStack) -> None:
    operator = Operator(cloud, openstack)
    admin = cloud.client()
    admin.upload_image("tiny", b"\0" * 65536)
    for name, vcpus in (("small", 1), ("huge", 16), ("fast", 1)):
        flavor = {"name": name, "ram": 64, "vcpus": vcpus, "disk": 0}
        admin.compute("POST", "/flavors", json={"flavor": flavor}).raise_for_status()
    services = openstack("compute", "service", "list", "--service", "nova-compute")
    one, two, three, four = sorted(service["Host"] for service in services)

    # A zone and an aggregate with metadata that a flavor asks for.
    openstack("aggregate", "create", "north", "--zone", "az-north")
    openstack("aggregate", "add", "host", "north", one)
    openstack("aggregate", "create", "disks", "--property", "ssd=true")
    openstack("aggregate", "add", "host", "disks", two)
    flavor_property = ("--property", "aggregate_instance_extra_specs:ssd=true")
    openstack("flavor", "set", "fast", *flavor_property, parse=False)
    assert operator.boot("in-north", "--availability-zone", "az-north") == one
    assert operator.boot("on-ssd", flavor="fast") == two
    assert "az-north" in {zone["Zone Name"] for zone in openstack("availability", "zone", "list", "--compute")}

    # Apart by a group, together by a hint.
    group = openstack("server", "group", "create", "apart", "--policy", "anti-affinity")["id"]
    apart = [operator.boot(f"apart-{number}", "--server-group", group) for number in range(2)]
    assert len(set(apart)) == 2
    on_ssd = openstack("server", "show", "on-ssd")["id"]
    assert operator.boot("beside", "--hint", f"same_host={on_ssd}") == two
    assert operator.boot("not-beside", "--hint", f"different_host={on_ssd}") != two

    # A disabled host takes nobody, and says why it is disabled.
    openstack(
        "compute", "service", "set", "--disable", "--disable-reason", "new disks", two, "nova-compute", parse=False
    )
    [listed] = openstack("compute", "service", "list", "--host", two, "--service", "nova-compute", "--long")
    assert (listed["Status"], listed["Disabled Reason"]) == ("disabled", "new disks")
    operator.boot("nowhere", flavor="fast", check=False)
    nowhere = openstack("server", "show", "nowhere")
    assert (nowhere["status"], nowhere["OS-EXT-SRV-ATTR:host"]) == ("ERROR", None)

    # A boot that fails says what was missing, without names of hosts.
    operator.boot("too-big", flavor="huge", check=False)
    fault = openstack("server", "show", "too-big")["fault"]
    told = fault if isinstance(fault, str) else fault["message"]
    assert "No host has 16 free vCPUs; the largest free is" in told, told
    assert not any(host in told for host in (one, two, three, four))

    # Why, and where the next would go.
    explained = operator.kilonova("explain", openstack("server", "show", "in-north")["id"])
    assert "AvailabilityZoneFilter" in explained and one in explained
    assert "would go to" in operator.kilonova("explain", "--what-if", "flavor=small,zone=az-north").lower()
    answer = operator.kilonova("explain", "--what-if", "flavor=huge")
    assert "vCPU" in answer, answer
    small = openstack("flavor", "show", "small")["id"]
    question = {"what_if": {"flavorRef": small, "availability_zone": "az-north"}}
    asked = admin.compute("POST", "/kilonova-what-if", json=question).json()["what_if"]
    there = openstack("server", "list", "--host", one)
    assert asked["host"] == one and asked["fits"] == 8 - len(there), asked
