"""One process of a cloud of many: any of its services, on the broker and the database that the configuration names.

Services of one cloud may be started in any order. Each waits for what it needs, and says so in its log and at
``/readyz``. What has the database (api, conductor, scheduler) is imported only where it is asked for: a process of
agents has none, and needs no library for one.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

from kilonova.base.config import Config, ConfigError
from kilonova.base.log import get_logger
from kilonova.compute.options import ComputeOptions
from kilonova.launch.addresses import Address
from kilonova.launch.agents import COMPUTE, NETWORK, Agents, choose_virt
from kilonova.launch.heartbeats import start_heartbeats
from kilonova.launch.operations import Operations, OperationsOptions
from kilonova.launch.options import ApiOptions, ComputeServiceOptions, DatabaseOptions, DeploymentOptions
from kilonova.launch.process import Process
from kilonova.launch.state import StateDir
from kilonova.rpc.transports.base import Transport

log = get_logger(__name__)

CONTROL: Final = ("api", "conductor", "scheduler")
AGENTS: Final = (COMPUTE, NETWORK)
SERVICES: Final = (*CONTROL, *AGENTS)
ROLES: Final = {"control": CONTROL, "compute": AGENTS}


def services_of(roles: Sequence[str]) -> tuple[str, ...]:
    """What runs on a machine with these roles.

    Raises:
        ConfigError: there is no such role.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ConfigError(f"[DEFAULT] roles = {', '.join(roles)}: give control, compute, or both.")
    return tuple(service for service in SERVICES if any(service in ROLES[role] for role in roles))


class ServiceProcess:
    """Some services of a cloud in this process: `start`, then they run until `stop`."""

    def __init__(self, services: Sequence[str], state: StateDir, config: Config, transport: Transport) -> None:
        """
        Raises:
            ConfigError: a service cannot run with this configuration.
        """
        self.services = tuple(service for service in SERVICES if service in services)
        self.config = config
        self._deployment = config.get(DeploymentOptions)
        self._agents: Agents | None = None
        self._locks = contextlib.ExitStack()
        try:
            self._listen = Address.parse(config.get(ApiOptions).listen)
            look_at = Address.parse(config.get(OperationsOptions).listen)
        except ValueError as error:
            raise ConfigError(f"listen: {error}") from None
        self.process = Process(state, config, transport, name="-".join(self.services), host=self._deployment.host)
        self.operations = Operations(self.process, look_at, self.services)

    async def start(self) -> None:
        """Bring the services up. Waits for the broker and the database as long as it takes.

        Raises:
            OSError: the address to listen on cannot be had.
            SchemaIsOld: the database must be migrated first.
            StateInUse: another process has this machine's agents.
        """
        process, readiness = self.process, self.process.readiness
        readiness.wait_for("broker", "not connected yet")
        await self.operations.start()
        await process.open()
        readiness.is_up("broker")
        if any(service in CONTROL for service in self.services):
            await self._start_control()
        agents = [service for service in self.services if service in AGENTS]
        if agents:
            await self._start_agents(agents)
        beating = [service for service in self.services if service != COMPUTE]  # its agent beats for itself
        start_heartbeats(process, beating, every_s=self.config.get(ComputeOptions).report_interval)
        log.info("services are up", services=self.services, host=process.host)

    async def stop(self) -> None:
        """Take no more work, finish what is in hand within seconds, and go. Guests run on."""
        if self._agents is not None:
            await self._agents.stop()
        await self.process.close()
        self._locks.close()

    async def _start_control(self) -> None:
        from kilonova.launch import control

        process, readiness, api_url = self.process, self.process.readiness, self._deployment.api_url
        readiness.wait_for("database", "not connected yet")
        url = self.config.get(DatabaseOptions).connection or process.state.database_url
        store = await control.open_store(process, url, migrate=False)
        readiness.is_up("database")
        self.operations.add_check("database", partial(store.read, control.answers))
        if "conductor" in self.services:
            engine = await control.start_conductor(process, store, api_url=api_url, alone=False)
            self.operations.add_section("tasks", engine.look)
            self.operations.add_answer("/guests", partial(control.guests_shown, process, store))
        if "scheduler" in self.services:
            await control.start_scheduler(process, store)
        if "api" in self.services:
            await control.start_api(process, store, self._listen, alone=False)

    async def _start_agents(self, services: Sequence[str]) -> None:
        process, options = self.process, self.config.get(ComputeServiceOptions)
        virt = choose_virt(options.virt)
        hosts = [process.host]
        if virt == "fake" and options.simulated_hosts > 1:
            hosts = [f"{process.host}-{number:04d}" for number in range(1, options.simulated_hosts + 1)]
        for service in services:
            self._locks.enter_context(process.state.owned(f"hosts/{process.host}/{service}"))
        self._agents = Agents(process, virt, hosts, api_url=self._deployment.api_url, services=services)
        await self._agents.join()
