"""The live cloud, looked at from outside: its database, and its hypervisors as their agents show them.

On a broker the agents are asked over it. A cloud of one process has its queue in memory, so that process is asked
(``/guests``, where it said in its state directory that it can be looked at).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config, ConfigError
from kilonova.base.ids import SystemIds
from kilonova.conductor.audit import Audited
from kilonova.conductor.audit import audit as look_at
from kilonova.conductor.housekeeping import ConductorOptions
from kilonova.conductor.hypervisors import Ask, Seen, ask_agents
from kilonova.launch.calls import Calls
from kilonova.launch.options import DatabaseOptions, DeploymentOptions
from kilonova.launch.running import running
from kilonova.launch.state import StateDir
from kilonova.launch.transports import make_transport
from kilonova.model.errors import CloudError, Unavailable
from kilonova.rpc.client import RpcClient
from kilonova.rpc.transports.base import Transport
from kilonova.store.engine import Store

ANSWER_S: Final = 150.0
"""Seconds after which a process that was asked for all guests is not waited for any longer."""

NAMED: Final = 50
"""Hosts that are named to a process that is asked; more are not: it asks all."""


async def audit(config: Config) -> Audited:
    """Look at the cloud that this configuration is of.

    Raises:
        Unavailable: the database cannot be reached, or there is none.
    """
    store = _store(config)
    try:
        async with asking(config) as ask:
            return await look_at(store, SystemClock(), ask, again_s=config.get(ConductorOptions).invariant_check_again)
    finally:
        await store.close()


def _store(config: Config) -> Store:
    url = config.get(DatabaseOptions).connection
    if not url:
        place = StateDir(Path(config.get(DeploymentOptions).state_path))
        if not (place.root / "kilonova.sqlite").exists():
            raise Unavailable(f"There is no database: [database] connection is not set, nor is one in {place.root}.")
        url = place.database_url
    return Store.open(url, inline=True)


@asynccontextmanager
async def asking(config: Config) -> AsyncIterator[Ask]:
    """How the agents of the cloud that this configuration is of are asked."""
    options = config.get(DeploymentOptions)
    if not options.transport_url or options.transport_url.startswith("memory:"):
        yield partial(_ask_process, Path(options.state_path))
        return
    clock, ids = SystemClock(), SystemIds()
    try:
        transport: Transport = make_transport(options.transport_url, config, clock, ids)
        async with asyncio.timeout(15):
            await transport.open()
    except (ConfigError, CloudError, TimeoutError) as error:
        yield partial(_nobody, f"the broker cannot be reached: {error or 'no answer within 15 s'}")
        return
    client = RpcClient(transport, clock=clock, ids=ids, name="doctor")
    try:
        await client.start()
        yield partial(ask_agents, compute=Calls(client).compute)
    finally:
        await client.stop()
        await transport.close()


async def _nobody(cause: str, hosts: Sequence[str]) -> Seen:
    return Seen({}, dict.fromkeys(hosts, cause))


async def _ask_process(state: Path, hosts: Sequence[str]) -> Seen:
    """Ask the process that has the agents in it."""
    process = next(running(state, service="conductor"), None)
    if process is None:
        return await _nobody(f"no process of this cloud runs on {state}", hosts)
    named = hosts if len(hosts) <= NAMED else ()
    try:
        async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as client:
            answer = await client.get(f"{process.url}/guests", params={"host": list(named)})
        seen = msgspec.json.decode(answer.raise_for_status().content, type=Seen)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
        return await _nobody(f"{process} does not tell: {error or type(error).__name__}", hosts)
    lacking = {host: f"{process} says nothing of it" for host in hosts if host not in seen.guests}
    return Seen({host: seen.guests[host] for host in hosts if host in seen.guests}, {**lacking, **seen.unseen})
