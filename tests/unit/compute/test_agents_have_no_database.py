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
from kilonova.launch import services  # all that `kilonova service compute` imports
from kilonova.launch.agents import Agents
from kilonova.launch.process import Process
from kilonova.launch.state import StateDir
from kilonova.rpc.transports.memory import MemoryTransport
from kilonova.rpcapi.compute import ComputeAPI, ComputeClient

bad = sorted(name for name in sys.modules if name.partition(".")[0] in {"sqlalchemy", "alembic", "sqlite3"})
bad += sorted(name for name in sys.modules if name.startswith("kilonova.store"))
assert services and not bad, f"a process of agents loads {bad}"

from compute_rig import Conductor, guest
from kilonova.rpc.server import RpcServer
from kilonova.rpcapi.conductor import ConductorAPI


class Networks(Conductor):
    async def wake(self): ...
    async def networks_of(self, host): ...


async def main(root):
    clock = SystemClock()
    transport = MemoryTransport(clock)
    config = Config(overrides={"fake": {"spawn_delay_s": 0.3}})
    process = Process(StateDir(root), config, transport, name="test", host="h1", clock=clock, ids=SystemIds())
    await process.open()
    rpc = process.rpc
    conductor = Networks()
    await RpcServer(transport, protocol=ConductorAPI, endpoint=conductor, host="c", clock=clock).start()
    def agents():
        return Agents(process, "fake", ["h1"], api_url="")
    host = agents()
    await host.join()
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
    await agents().join()  # and what came meanwhile is done after
    await asyncio.wait_for(waiting, 10)


asyncio.run(main(Path(sys.argv[1])))
"""


def test_an_agent_lives_whole_without_a_database(tmp_path: Path) -> None:
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=here, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
