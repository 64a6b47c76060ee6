"""Delete one server, whatever state it is in. Read this file from its end.

Nothing is undone: each step can be repeated, and is, whatever it met. A host that is down is passed over, and so is one
that refuses for long: its agent finds, when it can, that the guest no longer belongs there, and removes it. Ports that
cannot be unplugged hold nothing up either: the host's network agent finds them.
"""

from datetime import datetime
from functools import partial

from kilonova.base.log import get_logger
from kilonova.conductor.hands import Hands
from kilonova.conductor.tasks.broken import break_server
from kilonova.model.errors import NotFound
from kilonova.model.server import Server
from kilonova.model.states import PowerState, VMState
from kilonova.model.task import Failure
from kilonova.store.queries import allocations, groups, ports, quotas, servers, services
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import Run, Step, TaskKind, Write

log = get_logger(__name__)


async def destroy(run: Run[Hands]) -> None:
    host = await _reachable_host(run)
    if host is not None:
        await run.services.compute(host).destroy(run.subject, epoch=run.epoch)


async def unplug(run: Run[Hands]) -> None:
    host = await _reachable_host(run)
    if host is not None:
        await run.services.network(host).unplug(run.subject, epoch=run.epoch)


async def _reachable_host(run: Run[Hands]) -> str | None:
    server, is_up = await run.services.store.read(_server_and_host, run.subject)
    if server is None or server.host is None:
        return None
    if not is_up:
        log.info("host is down; it will clean up when it returns", host=server.host)
        return None
    return server.host


def _server_and_host(tx: Tx, server_id: str) -> tuple[Server | None, bool]:
    server = servers.find(tx, server_id)
    if server is None or server.host is None:
        return server, False
    return server, any(s.is_up for s in services.list_all(tx, service="compute", host=server.host))


async def erase(run: Run[Hands]) -> Write:
    networks, _ = await run.services.store.read(ports.plans_for_server, run.subject)
    run.services.networks_changed(network.id for network in networks)
    return partial(_erase, server_id=run.subject, task_id=run.task_id, at=run.clock.now())


def _erase(tx: Tx, *, server_id: str, task_id: str, at: datetime) -> None:
    try:
        server = servers.lock(tx, server_id)
    except NotFound:
        return  # it was erased before: what it had is given back once
    allocations.release(tx, server_id=server_id)
    groups.forget_server(tx, server_id)
    ports.release_for_server(tx, server_id)
    quotas.give_back(tx, server.project_id, server.flavor.quota())
    servers.become(
        tx,
        server_id,
        at=at,
        vm_state=VMState.DELETED,
        power_state=PowerState.NOSTATE,
        terminated_at=at,
        deleted_at=at,
    )
    servers.touch_action(tx, task_id=task_id, at=at)


def failed(run: Run[Hands], failure: Failure) -> Write:
    return partial(
        break_server,
        server_id=run.subject,
        failure=failure,
        message=f"The server could not be deleted: {failure.message} Delete it again.",
        attempt=run.attempt,
        task_id=run.task_id,
        at=run.clock.now(),
    )


DELETE = TaskKind(
    "server.delete",
    steps=(
        Step("destroy", destroy, deadline_s=180, tries=20, insists=True, may_fail=True),
        Step("unplug", unplug, deadline_s=90, tries=4, insists=True, may_fail=True),
        Step("erase", erase, tries=20, insists=True),
    ),
    failed=failed,
)
