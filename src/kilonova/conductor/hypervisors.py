"""What hypervisors run, asked of their agents: a few hosts at a time, and not for longer than some time in all.

Reads only. A host that is down is not asked, and whoever did not answer is named with the cause: of these nothing
is known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from kilonova.model.errors import CloudError
from kilonova.model.guest import GuestState
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.store.queries import services
from kilonova.store.transactions import Tx


class Seen(msgspec.Struct, frozen=True):
    """What was shown, and by whom not."""

    guests: dict[str, dict[str, GuestState]] = {}
    """Host to its guests by server, of the hosts that answered."""
    unseen: dict[str, str] = {}
    """Host that did not answer to the cause."""


Ask = Callable[[Sequence[str]], Awaitable[Seen]]
"""Asks these hosts."""


def hosts_to_ask(tx: Tx) -> tuple[list[str], dict[str, str]]:
    """Hosts whose agent should answer; and those that are down, with since when."""
    up: list[str] = []
    down: dict[str, str] = {}
    for service in sorted(services.list_all(tx, service="compute"), key=lambda service: service.host):
        if service.is_up:
            up.append(service.host)
        else:
            down[service.host] = f"down since {service.state_since:%Y-%m-%d %H:%M:%S} UTC"
    return up, down


async def ask_agents(
    hosts: Sequence[str], compute: Callable[[str], ComputeAPI], *, at_once: int = 16, within_s: float = 120.0
) -> Seen:
    """Ask the agents of these hosts.

    Args:
        compute: the agent of a host.
        at_once: hosts that are asked at the same time: 10,000 that answer take as many small messages and no more.
        within_s: seconds after which nobody is waited for any longer.
    """
    seen = Seen({}, {})
    waiting = iter(hosts)

    async def ask() -> None:
        for host in waiting:  # all of them take from the same row
            try:
                shown = await compute(host).guests()
            except CloudError as error:
                seen.unseen[host] = error.message
            else:
                seen.guests[host] = {guest.server_id: guest for guest in shown}

    try:
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(hosts))):
                group.create_task(ask(), name="conductor.audit.ask")
    except TimeoutError:
        for host in hosts:
            if host not in seen.guests and host not in seen.unseen:
                seen.unseen[host] = f"no answer before the {within_s:g} s for all hosts were over"
    return seen
