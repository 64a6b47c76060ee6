"""An agent has no database: its process does not even load one."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, sys
from pathlib import Path
from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import SystemIds
from kilonova.launch.agents import Surroundings, build_host
from kilonova.launch.state import StateDir
from kilonova.rpc.client import RpcClient
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpcapi.compute import ComputeAPI, ComputeClient

bad = sorted(name for name in sys.modules if name.partition(".")[0] in {"sqlalchemy", "alembic", "sqlite3"})
bad += sorted(name for name in sys.modules if name.startswith(("kilonova.store", "kilonova.cloud")))
assert not bad, f"launch/agents.py loads {bad}"

from compute_rig import Conductor, guest
from kilonova.rpc.server import RpcServer
from kilonova.rpcapi.conductor import ConductorAPI


class Networks(Conductor):
    async def wake(self): ...
    async def networks_of(self, host): ...


async def main(root):
    clock, ids = SystemClock(), SystemIds()
    transport = MemoryTransport(clock)
    await transport.open()
    rpc = RpcClient(transport, clock=clock, ids=ids)
    await rpc.start()
    conductor = Networks()
    await RpcServer(transport, protocol=ConductorAPI, endpoint=conductor, host="c", clock=clock).start()
    around = Surroundings(transport=transport, rpc=rpc, clock=clock, ids=ids, state=StateDir(root), api_url="",
        metadata_secret="", config=Config(overrides={"fake": {"spawn_delay_s": 0.3}}))
    host = build_host(around, "h1", "fake")
    await host.start()
    assert conductor.reports[0].host == "h1"
    client = ComputeClient(rpc.target_of(ComputeAPI, host="h1"))
    spawning = asyncio.create_task(client.spawn(guest("s"), epoch=1))
    await asyncio.sleep(0.1)
    await host.stop()  # what is in hand is finished first
    assert spawning.done() and spawning.exception() is None, spawning
    waiting = asyncio.create_task(client.destroy("s", epoch=2))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    conductor.records = []
    await build_host(around, "h1", "fake").start()  # and what came meanwhile is done after
    await asyncio.wait_for(waiting, 10)


asyncio.run(main(Path(sys.argv[1])))
"""


def test_an_agent_lives_whole_without_a_database(tmp_path: Path) -> None:
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=here, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
