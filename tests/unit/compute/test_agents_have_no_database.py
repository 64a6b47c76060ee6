"""An agent has no database: its process does not even load one."""

import subprocess
import sys

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
"""


def test_the_launch_path_of_an_agent_loads_no_database() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
