"""Ten real guests come and go while their host's agent and a conductor die at random."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import GUEST_IMAGE
from tests.support.brokers import RabbitMQ
from tests.support.chaos import Chaos, Fire
from tests.support.databases import PostgreSQL, running
from tests.support.deployment import Deployment
from tests.support.remains import Remains
from tests.support.running import Client, free_port

pytestmark = [pytest.mark.real, pytest.mark.slow]

CONFIG = """
[DEFAULT]
report_interval = 2
[compute]
virt = libvirt
report_interval = 2
sync_power_state_interval = 5
reserved_host_memory_mb = 0
cpu_allocation_ratio = 16
[network]
flat_cidr = 10.94.0.0/24
"""

SERVERS = 10

QUIET_WITHIN_S = 120.0
"""After the last kill: real guests are started and stopped here, several at a time without KVM. Longer is a hang."""


class LibvirtChaos(Chaos):
    """One host with real guests: a guest is a QEMU process."""

    def upload(self, admin: Client) -> str:
        return admin.upload_image("tiny", GUEST_IMAGE.read_bytes(), disk_format="qcow2")

    def guests(self) -> Iterator[tuple[str, str]]:
        for command in Remains(self.cloud.root / "host1").processes("qemu-system").values():
            words = command.split()
            if "-uuid" in words:
                yield words[words.index("-uuid") + 1], "host1"


def test_ten_guests_under_fire(tmp_path: Path) -> None:
    remains = Remains(tmp_path / "cloud" / "host1")
    broker = RabbitMQ(tmp_path / "rabbit")
    with running(PostgreSQL) as database:
        broker.start()
        cloud = Deployment(tmp_path / "cloud", database=database.create("chaos"), transport=broker.url(), config=CONFIG)
        chaos = LibvirtChaos(cloud, free_port(), agents=1)
        victims = ("host1", "ctl1-conductor", "ctl2-conductor")
        try:
            chaos.start()
            with Fire(cloud, 3, 3.0, [], victims) as fire:
                ids = chaos.create(SERVERS)
                fire.wait_for_kills(4)
            look = chaos.settle(fire.last_kill, within_s=180)
            assert len(set(ids)) == SERVERS
            assert look.wrongs(ids, quiet_within_s=QUIET_WITHIN_S) == [], (look.quiet_after_s, cloud.logs())
            with Fire(cloud, 4, 2.0, [], victims) as fire:
                chaos.delete(ids)
                fire.wait_for_kills(3)
            look = chaos.settle(fire.last_kill, within_s=180)
            assert look.wrongs([], quiet_within_s=QUIET_WITHIN_S) == [], (look.quiet_after_s, cloud.logs())
            assert remains.of_guests() == []
        finally:
            cloud.stop()
            remains.remove_all()
            broker.stop()
