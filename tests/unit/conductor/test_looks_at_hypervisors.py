"""The look at a live cloud: guests that are otherwise than the books say count if it is so twice."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kilonova.base.clock import SystemClock
from kilonova.base.metrics import exposition, new_registry
from kilonova.conductor.audit import Audit, audit
from kilonova.conductor.hypervisors import Seen, ask_agents
from kilonova.model.errors import Unavailable
from kilonova.model.guest import GuestState
from kilonova.model.states import PowerState
from kilonova.rpcapi.compute import ComputeAPI
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import services

AT = datetime(2026, 11, 1, tzinfo=UTC)
STRAY = GuestState(server_id="stray", power_state=PowerState.RUNNING)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path / 'db'}", inline=True)
    migrations.upgrade(opened.engine)
    for host in ("a", "b", "c"):
        opened.run_now(services.register, service="compute", host=host, agent_id=host, uuid=host, at=AT)
    opened.run_now(services.change, "c", at=AT, forced_down=True)
    yield opened
    opened.engine.dispose()


class Agents:
    """Agents that show, look by look, what was written for them; the last look stays."""

    def __init__(self, *looks: Seen) -> None:
        self.looks = list(looks)
        self.asked: list[list[str]] = []

    async def __call__(self, hosts: Sequence[str]) -> Seen:
        self.asked.append(list(hosts))
        seen = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return Seen({host: seen.guests[host] for host in hosts if host in seen.guests}, seen.unseen)


def shows(a: Sequence[GuestState] = (), b: Sequence[GuestState] = ()) -> Seen:
    return Seen({"a": {guest.server_id: guest for guest in a}, "b": {guest.server_id: guest for guest in b}}, {})


async def test_hosts_that_agree_are_asked_once_and_those_that_are_down_are_named(store: Store) -> None:
    agents = Agents(shows())
    found = await audit(store, SystemClock(), agents, again_s=0)
    assert (found.hosts, found.violations) == (2, ())
    assert agents.asked == [["a", "b"]]
    assert found.unseen == {"c": "down since 2026-11-01 00:00:00 UTC"}


async def test_what_is_so_twice_counts_and_only_its_hosts_are_asked_again(store: Store) -> None:
    agents = Agents(shows(b=[STRAY]))
    found = await audit(store, SystemClock(), agents, again_s=0)
    assert [(violation.harm, violation.what) for violation in found.violations] == [("leaked", "stray")]
    assert agents.asked == [["a", "b"], ["b"]]


async def test_a_guest_on_two_hosts_is_doubled(store: Store) -> None:
    found = await audit(store, SystemClock(), Agents(shows([STRAY], [STRAY])), again_s=0)
    assert sorted(violation.harm for violation in found.violations) == ["doubled", "leaked", "leaked"]


async def test_what_is_under_way_does_not_count(store: Store) -> None:
    found = await audit(store, SystemClock(), Agents(shows([STRAY]), shows()), again_s=0)
    assert (found.hosts, found.violations) == (2, ())


async def test_who_falls_silent_before_the_second_look_is_named_and_proves_nothing(store: Store) -> None:
    found = await audit(store, SystemClock(), Agents(shows([STRAY]), Seen({}, {"a": "silent"})), again_s=0)
    assert (found.hosts, found.violations) == (1, ())
    assert found.unseen["a"] == "silent"


async def test_guests_are_in_the_metrics(store: Store) -> None:
    registry = new_registry()
    agents = Agents(shows([STRAY]), shows([STRAY]), shows())
    look = Audit(store, SystemClock(), registry, agents, again_s=0).look
    assert len(await look()) == 1
    told = exposition(registry)
    assert b'kilonova_invariant_drift{kind="leaked"} 1.0' in told
    assert b"kilonova_invariant_check_hosts 2.0" in told and b"kilonova_invariant_check_hosts_unseen 1.0" in told
    assert await look() == []
    assert b'kilonova_invariant_drift{kind="leaked"} 0.0' in exposition(registry)


class Agent(ComputeAPI):
    """Answers after a moment; counts how many of them are asked at the same time."""

    busy = most = 0

    def __init__(self, host: str) -> None:
        self.host = host

    async def guests(self) -> list[GuestState]:
        Agent.busy += 1
        Agent.most = max(Agent.most, Agent.busy)
        try:
            await asyncio.sleep(60 if self.host == "hangs" else 0.001)
        finally:
            Agent.busy -= 1
        if self.host == "fails":
            raise Unavailable("nobody listens")
        return [STRAY]


async def test_few_hosts_are_asked_at_once_and_nobody_is_waited_for_forever() -> None:
    hosts = ["hangs", "fails", *(f"h{number}" for number in range(20))]
    seen = await ask_agents(hosts, Agent, at_once=3, within_s=0.5)
    assert Agent.most == 3
    assert seen.guests.keys() == {*hosts} - {"hangs", "fails"}
    assert seen.guests["h7"] == {"stray": STRAY}
    assert seen.unseen["fails"] == "nobody listens" and "0.5 s" in seen.unseen["hangs"]


async def test_a_cloud_without_hosts() -> None:
    assert await ask_agents([], Agent) == Seen({}, {})
