"""Start the services that have the database: api, conductor, scheduler. Agents never import this."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from kilonova.api.http.app import HttpOptions, make_app
from kilonova.api.http.server import HttpServer, ServerOptions
from kilonova.base.log import bind, get_logger
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.quotas import QuotaOptions
from kilonova.conductor.audit import Audit
from kilonova.conductor.endpoint import ConductorEndpoint
from kilonova.conductor.hands import Hands
from kilonova.conductor.housekeeping import ConductorOptions, Housekeeping
from kilonova.conductor.hypervisors import ask_agents, hosts_to_ask
from kilonova.conductor.liveness import Liveness, LivenessOptions
from kilonova.conductor.network_news import EVERY_S, NetworkNews
from kilonova.conductor.tasks import KINDS
from kilonova.conductor.tasks.broken import last_resort
from kilonova.launch.addresses import Address
from kilonova.launch.cloud import APIS, build_cloud, image_references
from kilonova.launch.plugins import build_scheduler
from kilonova.launch.process import Process
from kilonova.model.errors import Unavailable
from kilonova.rpcapi.conductor import ConductorAPI
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.scheduler.metrics import SchedulerMetrics
from kilonova.scheduler.options import PciOptions
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import quotas
from kilonova.store.transactions import Tx
from kilonova.tasks.engine import Engine, TaskOptions
from kilonova.tasks.metrics import TaskMetrics

log = get_logger(__name__)


class SchemaIsOld(RuntimeError):
    """The database is not at the newest revision; the message says what to do."""


async def open_store(process: Process, url: str, *, migrate: bool) -> Store:
    """The database, at the newest revision, with the configured quotas in it; closed with the process.

    Args:
        migrate: bring it there. Only for the one process that has the database to itself.

    Raises:
        SchemaIsOld: somebody has to migrate it first.
    """
    store = Store.open(url)
    process.at_end(store.close)
    if migrate:
        migrations.upgrade(store.engine)
    else:
        await process.until_there("the database", lambda: _reach(store))
        found, newest = migrations.current(store.engine), migrations.revisions()[-1]
        if found != newest:
            raise SchemaIsOld(
                f"The database is at revision {found or '(empty)'}, this program needs {newest}. "
                "Run: kilonova db upgrade --config-file FILE"
            )
    await store.run(quotas.set_limits, "", process.config.get(QuotaOptions).limits())
    return store


async def _reach(store: Store) -> None:
    try:
        migrations.current(store.engine)
    except Exception as error:
        # Whatever the driver raises: the server is not there, or does not let us in. The log says which.
        raise Unavailable(str(error).splitlines()[0]) from None


def answers(tx: Tx) -> None:
    """The database answers."""
    quotas.limits(tx, "")


async def start_conductor(process: Process, store: Store, *, api_url: str, alone: bool) -> Engine[Hands]:
    """Run tasks and answer agents; the engine of the tasks, to look at.

    Args:
        api_url: where agents fetch images.
        alone: no other conductor works on this database, so what an earlier run left is free at once.
    """
    clock, ids, config, calls = process.clock, process.ids, process.config, process.calls
    news = NetworkNews(store, calls.network)
    process.repeat("conductor.networks", EVERY_S, news.tell)
    hands = Hands(
        store=store,
        scheduler=calls.scheduler,
        compute=calls.compute,
        network=calls.network,
        image_ref=image_references(process.state, api_url, config, store, clock),
        networks_changed=news.changed,
        pci_aliases=config.get(PciOptions).aliases(),
    )
    metrics = TaskMetrics(process.readiness.registry)
    engine = Engine(store, clock, ids, config.get(TaskOptions), KINDS, hands, metrics, last_resort=last_resort)
    liveness = Liveness(store, clock, ids, config.get(LivenessOptions), alone=alone)
    with bind(service="conductor"):
        await liveness.start()
        process.at_end(liveness.stop)
        await engine.start(alone=alone)
        process.at_end(engine.stop)
        housekeeping = Housekeeping(store, clock, config.get(ConductorOptions), config.get(TaskOptions))
        housekeeping.start()
        process.at_end(housekeeping.stop)
        _start_audit(process, store)
    endpoint = ConductorEndpoint(store, clock, ids, engine, liveness)
    await process.serve(ConductorAPI, endpoint, service="conductor")
    return engine


def _start_audit(process: Process, store: Store) -> None:
    options = process.config.get(ConductorOptions)
    at_once = options.invariant_check_hosts_at_once
    ask = partial(ask_agents, compute=process.calls.compute, at_once=at_once) if at_once > 0 else None
    again_s = options.invariant_check_again
    audit = Audit(store, process.clock, process.readiness.registry, ask, again_s=again_s)
    if options.invariant_check_interval > 0:
        process.repeat("conductor.audit", options.invariant_check_interval, audit.look)


async def guests_shown(process: Process, store: Store, hosts: Sequence[str]) -> Any:
    """What the agents of these hosts show (none named: of all that are up), for who cannot ask them himself."""
    up, _ = await store.read(hosts_to_ask)
    wanted = [host for host in up if host in {*hosts}] if hosts else up
    return msgspec.to_builtins(await ask_agents(wanted, process.calls.compute))


async def start_scheduler(process: Process, store: Store) -> None:
    """Choose hosts."""
    endpoint = build_scheduler(
        process.config, store, process.clock, process.ids, SchedulerMetrics(process.readiness.registry)
    )
    with bind(service="scheduler"):
        await endpoint.start()
        process.at_end(endpoint.stop)
    await process.serve(SchedulerAPI, endpoint)


async def start_api(process: Process, store: Store, listen: Address, *, alone: bool) -> Cloud:
    """Make the use cases, and answer HTTP on `listen`.

    Args:
        alone: no other API serves this cloud.

    Raises:
        OSError: the address to listen on cannot be had.
    """
    config = process.config
    cloud = await build_cloud(process, store, listen.url, alone=alone)
    http = HttpServer(
        make_app(APIS, cloud, config.get(HttpOptions)), listen.host, listen.port, config.get(ServerOptions)
    )
    await http.start()
    process.at_end(http.stop)
    log.info("the API answers", url=listen.url)
    return cloud
