"""Many who want the same places at the same moment, chosen by four schedulers that do not know of each other.

500 hosts with two places each. Nobody may get what another has, and nobody may go away empty while there is room.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.services.test_many_processes import storm
from tests.support.brokers import RabbitMQ
from tests.support.databases import DatabaseServer
from tests.support.deployment import Deployment
from tests.support.running import ROOM_FOR_THOUSANDS, Client

from kilonova.store.engine import Store
from kilonova.store.queries import allocations

HOSTS = 500

CONFIG = f"""{ROOM_FOR_THOUSANDS}
server_groups = 10
server_group_members = {HOSTS}
[compute]
virt = fake
cpu_allocation_ratio = 1
[fake]
vcpus = 2
memory_mib = 100000
disk_gib = 1000
"""


@pytest.fixture(scope="module")
def cloud(
    rabbit: RabbitMQ, postgresql: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    rabbit.control("add_vhost", "races")
    rabbit.control("set_permissions", "-p", "races", rabbit.user, ".*", ".*", ".*")
    made = Deployment(
        tmp_path_factory.mktemp("races"),
        database=postgresql.create("races"),
        transport=rabbit.url("races"),
        config=CONFIG,
    )
    try:
        made.migrate()
        made.start("ctl1", "api")
        for number in range(1, 5):
            made.start(f"ctl{number}", "scheduler", wait=False)
        made.start("ctl1", "conductor", wait=False)
        made.start("ctl2", "conductor", wait=False)
        made.start("sim", "compute", "network", wait=False, config=f"[compute]\nsimulated_hosts = {HOSTS}")
        for service in made.services.values():
            service.until_up(120)
        made.wait_for_hosts(HOSTS, timeout_s=120)
        yield made
    finally:
        made.stop()


@pytest.fixture
def image(cloud: Deployment) -> str:
    return cloud.client().upload_image("tiny", b"\0" * 65536)


def ended(cloud: Deployment, admin: Client, server_ids: list[str]) -> tuple[Counter[str], Counter[str]]:
    """How many servers came to which state, and how many ACTIVE ones each host has."""
    states, hosts = Counter[str](), Counter[str]()
    for server_id in server_ids:
        server = admin.wait(server_id, "ACTIVE", "ERROR", timeout_s=180)
        states[server["status"]] += 1
        if server["status"] == "ACTIVE":
            hosts[server["OS-EXT-SRV-ATTR:host"]] += 1
    assert Store.open(cloud.database, inline=True).run_now(allocations.drift) == []
    return states, hosts


def clear(admin: Client, server_ids: list[str]) -> None:
    for server_id in server_ids:
        admin.compute("DELETE", f"/servers/{server_id}").raise_for_status()
    for server_id in server_ids:
        admin.wait_gone(server_id, timeout_s=180)


def test_five_hundred_that_must_not_meet_are_on_five_hundred_hosts(cloud: Deployment, image: str) -> None:
    admin = cloud.client()
    body = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = admin.compute("POST", "/os-server-groups", json=body).raise_for_status().json()["server_group"]["id"]
    ids, failed = storm([admin], image, admin.flavor(), HOSTS, hints={"group": group})
    assert not failed, failed[:3]
    states, hosts = ended(cloud, admin, ids)
    assert states == {"ACTIVE": HOSTS}
    assert set(hosts.values()) == {1}
    clear(admin, ids)


def test_a_thousand_places_are_taken_by_exactly_a_thousand(cloud: Deployment, image: str) -> None:
    admin = cloud.client()
    ids, failed = storm([admin], image, admin.flavor(), 2 * HOSTS + 20)
    assert not failed, failed[:3]
    states, hosts = ended(cloud, admin, ids)
    assert states == {"ACTIVE": 2 * HOSTS, "ERROR": 20}
    assert set(hosts.values()) == {2} and len(hosts) == HOSTS
