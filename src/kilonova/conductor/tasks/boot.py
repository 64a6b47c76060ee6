"""Boot one server: from the row the API wrote to a running guest. Read this file from its end.

Payload: ``admin_password`` (secret, gone when the task ends), ``excluded`` (hosts where the build failed
before), ``host`` once one is claimed.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from kilonova.base.log import get_logger
from kilonova.conductor.guests import guest_spec
from kilonova.conductor.hands import Hands
from kilonova.conductor.tasks.broken import break_server
from kilonova.model.devices import Held
from kilonova.model.errors import GuestRejected, HostDown, NoValidHost
from kilonova.model.guest import CellPlan
from kilonova.model.guest_layout import LayoutError, lay_out
from kilonova.model.host import NumaCell
from kilonova.model.metadata import InstanceFacts
from kilonova.model.network_plans import PortPlan
from kilonova.model.numa import GuestTopology, MalformedTopology, guest_topology
from kilonova.model.pci import MalformedAlias, requests_of_flavor
from kilonova.model.placing import named_by_hints, spec_of_server
from kilonova.model.request_spec import Choice, PciRequest, RequestSpec
from kilonova.model.server import Decision, Server
from kilonova.model.states import PowerState, TaskState, VMState
from kilonova.model.task import Failure
from kilonova.store.queries import allocations, decisions, devices, facts, groups, hosts, ports, servers, services
from kilonova.store.transactions import Tx
from kilonova.tasks.kinds import Run, Step, TaskKind, Write

log = get_logger(__name__)

MAX_ATTEMPTS = 3
"""Hosts on which a build is tried before the server goes to ERROR."""

FINAL = frozenset({"host.image_unusable", "not_found", "scheduler.no_valid_host"})
"""Faults that another host would meet as well."""


# ---- place: choose a host, take its room and the addresses ----------------------------------------------


async def place(run: Run[Hands]) -> Write:
    server, spec = await run.services.store.read(_wanted, run.subject, tuple(run.payload.get("excluded", ())))
    [choice] = await run.services.scheduler.select(spec)
    if not choice.candidates:
        raise NoValidHost(
            choice.explanation.missing,
            reasons=dict(choice.explanation.filters),
            explanation=msgspec.to_builtins(choice.explanation),
        )
    return partial(
        _claim,
        server=server,
        spec=spec,
        fine=_fine_needs(spec, run.services.pci_aliases),
        choice=choice,
        attempt=run.attempt,
        request_id=run.request_id,
        run=run,
    )


def _wanted(tx: Tx, server_id: str, excluded: tuple[str, ...]) -> tuple[Server, RequestSpec]:
    server = servers.get(tx, server_id)
    named = named_by_hints(server.order.scheduler_hints)
    spec = spec_of_server(
        server,
        excluded=excluded,
        group=groups.of_server(tx, server_id),
        hosts_of_servers=groups.hosts_of_servers(tx, named, project_id=server.project_id) if named else None,
    )
    return server, spec


def _fine_needs(spec: RequestSpec, aliases: Mapping[str, PciRequest]) -> allocations.FineNeeds:
    try:
        topology = guest_topology(spec)
        devices = requests_of_flavor(spec.extra_specs, aliases)
    except (MalformedTopology, MalformedAlias) as error:
        raise NoValidHost(f"{error}.") from None
    return allocations.FineNeeds(group=spec.group, topology=topology, pci=(*spec.pci_requests, *devices))


def _claim(
    tx: Tx,
    *,
    server: Server,
    spec: RequestSpec,
    fine: allocations.FineNeeds,
    choice: Choice,
    attempt: int,
    request_id: str,
    run: Run[Hands],
) -> Mapping[str, Any]:
    at = run.clock.now()
    claimed = allocations.claim_first(
        tx,
        server_id=server.id,
        candidates=[(candidate.host_id, candidate.host) for candidate in choice.candidates],
        amounts=spec.amounts(),
        fine=fine,
    )
    host = claimed.host
    explanation = msgspec.to_builtins(choice.explanation)
    if claimed.races_lost:
        explanation["races_lost"] = claimed.races_lost
    ports.allocate_for_server(
        tx,
        server_id=server.id,
        project_id=server.project_id,
        host=host,
        requested=server.order.networks,
        hostname=server.hostname,
        ids=run.ids,
        at=at,
        groups=server.order.security_groups,
    )
    decisions.add(tx, _decision(server.id, request_id, attempt, host, explanation, at))
    servers.become(tx, server.id, at=at, task_state=TaskState.NETWORKING, host=host)
    return {"host": host}


def _decision(
    server_id: str, request_id: str, attempt: int, host: str | None, explanation: dict[str, Any], at: datetime
) -> Decision:
    return Decision(
        server_id=server_id,
        request_id=request_id,
        attempt=attempt,
        host=host,
        explanation=explanation,
        created_at=at,
    )


async def unplace(run: Run[Hands]) -> Write:
    # What every host would meet is not the fault of this one: the scheduler shall not avoid it.
    is_hosts_fault = run.failure is None or run.failure.code not in FINAL
    return partial(_unclaim, server_id=run.subject, host=run.host, is_hosts_fault=is_hosts_fault, at=run.clock.now())


def _unclaim(tx: Tx, *, server_id: str, host: str | None, is_hosts_fault: bool, at: datetime) -> None:
    allocations.release(tx, server_id=server_id)
    ports.unbind_for_server(tx, server_id)
    servers.become(tx, server_id, at=at, task_state=TaskState.SCHEDULING, host=None)
    if host is not None and is_hosts_fault:
        hosts.count_build(tx, host, failed=True)


# ---- plug: bridge, address server and rules on the host ------------------------------------------------


async def plug(run: Run[Hands]) -> Write:
    await plug_ports(run, host_of(run))
    return partial(servers.become, server_id=run.subject, at=run.clock.now(), task_state=TaskState.SPAWNING)


async def plug_ports(run: Run[Hands], host: str) -> None:
    """Have the host's network agent make ready for the server's cards."""
    networks, plans = await run.services.store.read(ports.plans_for_server, run.subject)
    if plans:
        await run.services.network(host).plug(run.subject, networks, plans, epoch=run.epoch)
        run.services.networks_changed(network.id for network in networks)


async def unplug(run: Run[Hands]) -> None:
    if await _is_left_to_the_host(run):
        return
    await run.services.network(host_of(run)).unplug(run.subject, epoch=run.epoch)


def host_of(run: Run[Hands]) -> str:
    """The host that the task's server has.

    Raises:
        LookupError: it has none yet.
    """
    host = run.host
    if host is None:
        raise LookupError("no host has been claimed yet")
    return host


# ---- spawn: the guest --------------------------------------------------------------------------------------


async def spawn(run: Run[Hands]) -> None:
    # A host that is down is not to be waited for, try after try: another may do.
    await run_guest(run, host_of(run), if_down=HostDown("The host went down while the guest was to be made."))


def _is_down(tx: Tx, host: str) -> bool:
    found = services.list_all(tx, service="compute", host=host)
    return bool(found) and not any(service.is_up for service in found)


async def _is_left_to_the_host(run: Run[Hands]) -> bool:
    """Whether there is nobody to undo it: the agent removes what does not belong there when it returns."""
    host = host_of(run)
    if not await run.services.store.read(_is_down, host):
        return False
    log.info("host is down; it will clean up when it returns", host=host)
    return True


async def run_guest(
    run: Run[Hands], host: str, *, replaces: bool = False, power_on: bool = True, if_down: HostDown | None = None
) -> None:
    """Have the server's guest made on `host` as its rows say.

    Args:
        replaces: in place of an earlier build's.
        if_down: raised if the host is known to be down; None: it is asked nevertheless.
    """
    server, told, plans, held, host_cells = await run.services.store.read(_guest_rows, run.subject, host, if_down)
    image = await run.services.image_ref(server.image_id) if server.image_id else None
    topology = guest_topology(spec_of_server(server)) if held.cells else None
    spec = guest_spec(
        server,
        image=image,
        ports=plans,
        facts=told,
        admin_password=run.payload.get("admin_password", ""),
        power_on=power_on,
        cells=_cells(topology, held, host_cells) if topology else (),
        pci_devices=held.devices,
        build=run.task_id,
        replaces=replaces,
    )
    await run.services.compute(host).spawn(spec, epoch=run.epoch)


def _cells(topology: GuestTopology, held: Held, host_cells: tuple[NumaCell, ...]) -> tuple[CellPlan, ...]:
    try:
        return lay_out(topology, held, host_cells)
    except LayoutError as error:
        raise GuestRejected(str(error)) from error


def _guest_rows(
    tx: Tx, server_id: str, host: str, if_down: HostDown | None
) -> tuple[Server, InstanceFacts, list[PortPlan], Held, tuple[NumaCell, ...]]:
    if if_down is not None and _is_down(tx, host):
        raise if_down
    server, told = facts.of_server(tx, server_id)
    held, cells = devices.held_by(tx, server_id)
    return server, told, ports.plans_for_server(tx, server_id)[1], held, cells


async def destroy(run: Run[Hands]) -> None:
    if await _is_left_to_the_host(run):
        return
    await run.services.compute(host_of(run)).destroy(run.subject, epoch=run.epoch)


# ---- announce: tell the world ------------------------------------------------------------------------------


async def announce(run: Run[Hands]) -> Write:
    return partial(_activate, server_id=run.subject, host=host_of(run), task_id=run.task_id, at=run.clock.now())


def _activate(tx: Tx, *, server_id: str, host: str, task_id: str, at: datetime) -> None:
    servers.become(
        tx,
        server_id,
        at=at,
        vm_state=VMState.ACTIVE,
        power_state=PowerState.RUNNING,
        launched_at=at,
        progress=100,
    )
    hosts.count_build(tx, host, failed=False)
    hosts.touch_by_name(tx, [host])
    servers.touch_action(tx, task_id=task_id, at=at)


# ---- when it goes wrong ------------------------------------------------------------------------------------


def begin_again(run: Run[Hands], failure: Failure) -> Mapping[str, Any] | None:
    """Try the next host, unless every host would meet the same fault."""
    if failure.host is None or failure.code in FINAL or run.attempt >= MAX_ATTEMPTS:
        return None
    payload = {key: value for key, value in run.payload.items() if key != "host"}
    payload["excluded"] = [*payload.get("excluded", ()), failure.host]
    payload["earlier"] = msgspec.to_builtins(failure)
    return payload


def failed(run: Run[Hands], failure: Failure) -> Write:
    return partial(_give_up, run=run, failure=failure, at=run.clock.now())


def _give_up(tx: Tx, *, run: Run[Hands], failure: Failure, at: datetime) -> None:
    if failure.facts.get("explanation"):
        decisions.add(tx, _decision(run.subject, run.request_id, run.attempt, None, failure.facts["explanation"], at))
    message = failure.message
    earlier = run.payload.get("earlier")
    if failure.code == NoValidHost.code and earlier:
        # That no further host was left is not the cause: what happened on the last one is.
        failure = msgspec.convert(earlier, Failure)
        message = f"{failure.message} No other host could take the server."
    break_server(tx, run.subject, failure, message=message, attempt=run.attempt, task_id=run.task_id, at=at)


BOOT = TaskKind(
    "server.boot",
    steps=(
        Step("place", place, undo=unplace, deadline_s=60, tries=20),
        Step("plug", plug, undo=unplug, deadline_s=90),
        Step("spawn", spawn, undo=destroy, deadline_s=900),
        Step("announce", announce),
    ),
    begin_again=begin_again,
    failed=failed,
)
