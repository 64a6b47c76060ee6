"""Whether a live cloud keeps its promises: its database, and its hypervisors where their agents answer.

Reads only. What is being changed while we look is left out, so a finding is a finding.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config, ConfigError
from kilonova.base.ids import SystemIds
from kilonova.conductor.audit import look
from kilonova.conductor.invariants import Violation, agree
from kilonova.launch.calls import Calls
from kilonova.launch.options import DatabaseOptions, DeploymentOptions
from kilonova.launch.state import StateDir
from kilonova.launch.transports import make_transport
from kilonova.model.errors import CloudError, Unavailable
from kilonova.model.guest import GuestState
from kilonova.rpc.client import RpcClient
from kilonova.rpc.transports.base import Transport
from kilonova.store.engine import Store
from kilonova.store.queries import services
from kilonova.store.queries.invariants import books
from kilonova.store.transactions import Tx

Guests = Mapping[str, Mapping[str, GuestState]]


@dataclass(frozen=True)
class Audited:
    """What was looked at, and found."""

    servers: int
    hosts: int
    """Whose hypervisor was seen."""
    unseen: tuple[str, ...]
    """Hosts that should run, and did not answer; or why none could be asked."""
    violations: tuple[Violation, ...]


async def audit(config: Config) -> Audited:
    """Look at the cloud that this configuration is of.

    Raises:
        Unavailable: the database cannot be reached, or there is none.
    """
    clock = SystemClock()
    store = _store(config)
    try:
        found = await store.read(look, now=clock.now())
        before = await store.read(books)
        guests, unseen = await _ask(config, await store.read(_hosts))
        after = await store.read(books)
    finally:
        await store.close()
    return Audited(len(before.servers), len(guests), unseen, (*found, *agree(before, guests, after)))


def _store(config: Config) -> Store:
    url = config.get(DatabaseOptions).connection
    if not url:
        place = StateDir(Path(config.get(DeploymentOptions).state_path))
        if not (place.root / "kilonova.sqlite").exists():
            raise Unavailable(f"There is no database: [database] connection is not set, nor is one in {place.root}.")
        url = place.database_url
    return Store.open(url, inline=True)


def _hosts(tx: Tx) -> list[str]:
    return sorted({service.host for service in services.list_all(tx, service="compute") if service.is_up})


async def _ask(config: Config, hosts: list[str]) -> tuple[Guests, tuple[str, ...]]:
    """What the hypervisors of these hosts run, and who did not say."""
    url = config.get(DeploymentOptions).transport_url
    if not url or url.startswith("memory:"):
        return {}, ("agents of a cloud in one process cannot be asked from outside",)
    clock, ids = SystemClock(), SystemIds()
    try:
        transport: Transport = make_transport(url, config, clock, ids)
        async with asyncio.timeout(15):
            await transport.open()
    except (ConfigError, CloudError, TimeoutError) as error:
        return {}, (f"the broker: {error}",)
    client = RpcClient(transport, clock=clock, ids=ids, name="doctor")
    try:
        await client.start()
        calls = Calls(client)
        answers = await asyncio.gather(*(calls.compute(host).guests() for host in hosts), return_exceptions=True)
    finally:
        await client.stop()
        await transport.close()
    seen: dict[str, dict[str, GuestState]] = {}
    unseen: list[str] = []
    for host, answer in zip(hosts, answers, strict=True):
        if isinstance(answer, CloudError):
            unseen.append(f"{host}: {answer.message}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            seen[host] = {guest.server_id: guest for guest in answer}
    return seen, tuple(unseen)
