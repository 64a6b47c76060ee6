"""The whole cloud in one process: every service on one event loop, SQLite, the queue in memory.

It is the same code as many processes on a broker; only what is chosen here differs.
"""

import asyncio
import platform
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import SystemIds
from kilonova.base.log import bind, get_logger, set_service
from kilonova.cloud.cloud import Cloud
from kilonova.conductor.endpoint import ConductorEndpoint
from kilonova.conductor.hands import Hands
from kilonova.conductor.liveness import Liveness, LivenessOptions
from kilonova.conductor.tasks import KINDS
from kilonova.launch.agents import HostAgents, Surroundings, build_host, choose_virt
from kilonova.launch.bell import RpcBell
from kilonova.launch.options import UpOptions
from kilonova.launch.state import StateDir
from kilonova.rpc.client import RpcClient
from kilonova.rpc.server import RpcServer
from kilonova.rpc.transports.memory import MemoryBroker, MemoryTransport
from kilonova.rpcapi.compute import ComputeAPI, ComputeClient
from kilonova.rpcapi.conductor import ConductorAPI, ConductorClient
from kilonova.rpcapi.network import NetworkAPI, NetworkClient
from kilonova.rpcapi.scheduler import SchedulerAPI, SchedulerClient
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.tasks.engine import Engine, TaskOptions

log = get_logger(__name__)
