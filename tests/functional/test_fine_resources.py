"""CPUs of one's own, huge pages, PCI devices, custom resources and traits: asked for by flavors, on simulated hosts."""

from collections.abc import Iterator

import pytest
from tests.support.running import Client, RunningCloud

CONFIG = """
[fake]
vcpus = 16
memory_mib = 16384
numa_cells = 2
huge_pages = 1024
pci_devices = 10de:1db4=2
[compute]
cpu_dedicated_set = 4-7,12-15
resources = CUSTOM_LICENSE=3
traits = CUSTOM_FAST_DISK
reserved_host_memory_mb = 0
[pci]
alias = [{"name": "gpu", "vendor_id": "10de", "product_id": "1db4"}]
[quota]
instances = 100
cores = 1000
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path_factory.mktemp("state"), hosts=2, config=CONFIG)
    running.start()
    yield running
    assert running.stop() == 0


def flavor(admin: Client, name: str, vcpus: int = 1, ram: int = 128, **specs: str) -> str:
    flavor_id = admin.flavor(name, vcpus=vcpus, ram=ram)
    if specs:
        body = {"extra_specs": {key.replace("__", ":"): value for key, value in specs.items()}}
        admin.compute("POST", f"/flavors/{flavor_id}/os-extra_specs", json=body).raise_for_status()
    return flavor_id


def fill(admin: Client, image_id: str, flavor_id: str, count: int) -> tuple[list[str], list[str], str]:
    """Boot `count` servers: ids of those that are ACTIVE, of those in ERROR, and what the last of them says."""
    ids = [admin.boot(f"s{number}", image_id, flavor_id) for number in range(count)]
    views = [admin.wait(server_id, "ACTIVE", "ERROR") for server_id in ids]
    active = [view["id"] for view in views if view["status"] == "ACTIVE"]
    broken = [view["id"] for view in views if view["status"] == "ERROR"]
    fault = next((view["fault"]["message"] for view in reversed(views) if "fault" in view), "")
    return active, broken, fault


def empty(admin: Client, ids: list[str]) -> None:
    for server_id in ids:
        admin.compute("DELETE", f"/servers/{server_id}")
    for server_id in ids:
        admin.wait_gone(server_id)


@pytest.mark.parametrize(
    ("name", "vcpus", "ram", "specs", "fits", "says"),
    [
        # Eight dedicated CPUs a host: two servers with four of their own on each of two hosts.
        ("pinned", 4, 128, {"hw__cpu_policy": "dedicated"}, 4, "CPU"),
        # Two cells of 1,024 pages of 2 MiB each on two hosts: a server of 1 GiB takes half a cell.
        ("huge", 1, 1024, {"hw__mem_page_size": "large"}, 8, "page"),
        ("gpu", 1, 128, {"pci_passthrough__alias": "gpu:1"}, 4, "PCI device"),
        ("licensed", 1, 128, {"resources__CUSTOM_LICENSE": "1"}, 6, "CUSTOM_LICENSE"),
    ],
)
def test_as_many_as_there_are_and_all_come_back(
    admin: Client, image_id: str, name: str, vcpus: int, ram: int, specs: dict[str, str], fits: int, says: str
) -> None:
    wanted = flavor(admin, name, vcpus, ram, **specs)
    for _ in range(2):  # what was given back can be had again
        active, broken, fault = fill(admin, image_id, wanted, fits + 1)
        assert (len(active), len(broken)) == (fits, 1), fault
        assert says in fault and "fake-000" not in fault
        empty(admin, active + broken)


def test_traits_choose_hosts(admin: Client, image_id: str) -> None:
    fast = flavor(admin, "fast", trait__CUSTOM_FAST_DISK="required")
    slow = flavor(admin, "slow", trait__CUSTOM_FAST_DISK="forbidden")
    active, broken, _ = fill(admin, image_id, fast, 1)
    refused, none, fault = fill(admin, image_id, slow, 1)
    assert (len(active), len(broken)) == (1, 0) and (len(refused), len(none)) == (0, 1)
    assert "CUSTOM_FAST_DISK" in fault
    empty(admin, active + none)


def test_what_if_counts_pieces(admin: Client, image_id: str) -> None:
    both = flavor(admin, "both", 2, 128, hw__cpu_policy="dedicated", pci_passthrough__alias="gpu:1")
    answer = admin.compute("POST", "/kilonova-what-if", json={"what_if": {"flavorRef": both, "imageRef": image_id}})
    assert answer.json()["what_if"]["fits"] == 4


@pytest.mark.parametrize(
    "specs",
    [
        {"hw__cpu_policy": "own"},
        {"hw__numa_nodes": "3"},
        {"hw__mem_page_size": "huge"},
        {"pci_passthrough__alias": "tpu:1"},
        {"pci_passthrough__alias": "gpu"},
    ],
)
def test_demands_that_cannot_be_read_find_no_host_and_say_so(
    admin: Client, image_id: str, specs: dict[str, str]
) -> None:
    odd = flavor(admin, f"odd-{next(iter(specs.values()))}", 2, 128, **specs)
    active, broken, fault = fill(admin, image_id, odd, 1)
    assert not active and len(broken) == 1
    assert next(iter(specs.values())).partition(":")[0] in fault or "NUMA" in fault, fault
    empty(admin, broken)
