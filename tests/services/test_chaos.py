"""Two of every control service and four hosts on RabbitMQ and PostgreSQL: one of them dies every other second.

`bench/chaos.py` does the same with a thousand servers, and kills every second.
"""

from pathlib import Path

from tests.support.brokers import RabbitMQ
from tests.support.chaos import CONFIG, Chaos, Fire
from tests.support.databases import DatabaseServer
from tests.support.deployment import Deployment
from tests.support.running import free_port

SERVERS = 150
SEED = 20261121

EVERY_S = 2.0
"""Between two kills: starting again takes a second of a processor's time, and other tests run beside this one."""

QUIET_WITHIN_S = 30.0
"""After the last kill; whatever takes longer hangs. It is no measurement."""

DONE_WITHIN_S = 300.0
"""For all boots, or all deletes, while services die."""


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
        with Fire(cloud, SEED, EVERY_S, [(2, lambda: restart(rabbit))]) as fire:
            ids = chaos.create(SERVERS)
            chaos.until_done(fire, within_s=DONE_WITHIN_S)
        assert len(set(ids)) == SERVERS
        look = chaos.settle(fire.last_kill)
        assert look.wrongs(ids, quiet_within_s=QUIET_WITHIN_S) == [], (look.quiet_after_s, cloud.logs())
        with Fire(cloud, SEED + 1, EVERY_S, [(2, lambda: restart(postgresql))]) as fire:
            chaos.delete(ids)
            chaos.until_done(fire, within_s=DONE_WITHIN_S)
        look = chaos.settle(fire.last_kill)
        assert look.wrongs([], quiet_within_s=QUIET_WITHIN_S) == [], (look.quiet_after_s, cloud.logs())
    finally:
        cloud.stop()
