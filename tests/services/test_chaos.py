"""Two of every control service and four hosts on RabbitMQ and PostgreSQL: one of them dies every second.

`bench/chaos.py` does the same with a thousand servers.
"""

from pathlib import Path

from tests.support.brokers import RabbitMQ
from tests.support.chaos import CONFIG, Chaos, Fire
from tests.support.databases import DatabaseServer
from tests.support.deployment import Deployment
from tests.support.running import free_port

SERVERS = 150
SEED = 20261121


def test_nothing_is_stuck_leaked_or_doubled_under_fire(
    rabbit: RabbitMQ, postgresql: DatabaseServer, tmp_path: Path
) -> None:
    rabbit.control("add_vhost", "chaos")
    rabbit.control("set_permissions", "-p", "chaos", rabbit.user, ".*", ".*", ".*")
    cloud = Deployment(tmp_path, database=postgresql.create("chaos"), transport=rabbit.url("chaos"), config=CONFIG)
    chaos = Chaos(cloud, free_port())

    def restart(server: RabbitMQ | DatabaseServer) -> None:
        server.kill()
        server.start()

    try:
        chaos.start()
        with Fire(cloud, SEED, 1.0, [(2, lambda: restart(rabbit))]) as fire:
            ids = chaos.create(SERVERS)
        assert len(set(ids)) == SERVERS
        look = chaos.settle(fire.last_kill)
        assert look.wrongs(ids) == [], (look.quiet_after_s, cloud.logs())
        with Fire(cloud, SEED + 1, 1.0, [(2, lambda: restart(postgresql))]) as fire:
            chaos.delete(ids)
        look = chaos.settle(fire.last_kill)
        assert look.wrongs([]) == [], (look.quiet_after_s, cloud.logs())
    finally:
        cloud.stop()
