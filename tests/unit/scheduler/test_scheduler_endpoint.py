"""The endpoint: freshness, batches, double spending, and what it tells the log."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from scheduler_builders import a_host, a_request

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config
from kilonova.base.ids import SeededIds
from kilonova.launch.plugins import build_scheduler
from kilonova.model.errors import Unavailable
from kilonova.model.host import HostReport, HostState
from kilonova.scheduler.endpoint import SchedulerEndpoint
from kilonova.scheduler.feed import FeedPage
from kilonova.scheduler.metrics import SchedulerMetrics
from kilonova.store.engine import Store
from kilonova.store.queries import allocations, hosts, services

NOW = SystemClock().now()


class ListFeed:
    """A feed from memory that can fail and can be held up."""

    def __init__(self, *states: HostState) -> None:
        self.states = list(states)
        self.claimed: dict[str, int] = {}
        self.reads = 0
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, *, since: int, aggregates_version: int, pending: Collection[str]) -> FeedPage:
        self.reads += 1
        page = FeedPage(
            hosts=[state for state in self.states if state.seq > since],
            claimed={server: host for server, host in self.claimed.items() if server in pending},
        )
        await self.gate.wait()
        if self.broken:
            raise Unavailable()
        return page


def endpoint_on(feed: Any) -> SchedulerEndpoint:
    from kilonova.launch.plugins import build_rules
    from kilonova.scheduler.drivers.filter import FilterScheduler

    driver = FilterScheduler(build_rules(Config()), SeededIds(1).chance)
    return SchedulerEndpoint(feed, driver, SystemClock(), metrics=SchedulerMetrics())


async def test_requests_that_wait_together_share_one_look_at_the_feed() -> None:
    feed = ListFeed(a_host("h0", seq=1, id=1), a_host("h1", seq=2, id=2))
    endpoint = endpoint_on(feed)
    feed.gate.clear()
    first = asyncio.create_task(endpoint.select(a_request("s0")))
    await asyncio.sleep(0)
    others = [asyncio.create_task(endpoint.select(a_request(f"s{n}"))) for n in range(1, 20)]
    await asyncio.sleep(0)
    feed.gate.set()
    answers = await asyncio.gather(first, *others)
    assert feed.reads == 2, "one for the first, one for all who came while that was under way"
    assert all(choice.candidates for [choice] in answers)
    assert endpoint.table.num_instances.tolist() == [10, 10]


async def test_a_request_sees_what_was_committed_before_it_came() -> None:
    feed = ListFeed(a_host("h0", seq=1, id=1))
    endpoint = endpoint_on(feed)
    feed.gate.clear()
    early = asyncio.create_task(endpoint.select(a_request("s0")))
    await asyncio.sleep(0.01)  # its look at the feed is under way
    feed.states.append(a_host("h1", seq=2, id=2, vcpus=64, memory_mib=1 << 20, disk_gib=9000))
    late = asyncio.create_task(endpoint.select(a_request("s1", vcpus=40)))
    await asyncio.sleep(0.01)
    feed.gate.set()
    assert [c.host for c in (await early)[0].candidates] == ["h0"]
    assert [c.host for c in (await late)[0].candidates] == ["h1"]


async def test_a_feed_that_cannot_be_read_is_the_askers_error_and_passes() -> None:
    feed = ListFeed(a_host("h0", seq=1, id=1))
    endpoint = endpoint_on(feed)
    feed.broken = True
    with pytest.raises(Unavailable):
        await endpoint.select(a_request("s0"))
    feed.broken = False
    [choice] = await endpoint.select(a_request("s0"))
    assert choice.candidates


async def test_a_caller_that_gave_up_costs_no_room() -> None:
    feed = ListFeed(a_host("h0", seq=1, id=1, vcpus=1))
    endpoint = endpoint_on(feed)
    feed.gate.clear()
    gone = asyncio.create_task(endpoint.select(a_request("s0")))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    feed.gate.set()
    [choice] = await endpoint.select(a_request("s1"))
    assert choice.candidates


async def test_a_plugins_fault_is_its_requests_fault_alone() -> None:
    feed = ListFeed(a_host("h0", seq=1, id=1))
    endpoint = endpoint_on(feed)
    bad = a_request("s0", vcpus="many")  # nothing compares with that
    answers = await asyncio.gather(endpoint.select(bad), endpoint.select(a_request("s1")), return_exceptions=True)
    assert isinstance(answers[0], Exception)
    assert answers[1][0].candidates  # type: ignore[index]


# ---- on a real store ---------------------------------------------------------------------------------------------


async def add_host(store: Store, name: str, **values: Any) -> int:
    report = HostReport(
        **{
            "host": name,
            "hypervisor_hostname": name,
            "hypervisor_type": "fake",
            "hypervisor_version": 1,
            "vcpus": 10,
            "memory_mib": 1 << 20,
            "disk_gib": 10_000,
            "vcpus_ratio": 1.0,
            **values,
        }
    )
    await store.run(services.register, service="compute", host=name, agent_id=name, uuid=f"s-{name}", at=NOW)
    await store.run(hosts.record_report, report, uuid=f"h-{name}", at=NOW)
    return await store.read(hosts.id_of, name)


@pytest.fixture
async def store(tmp_path: Any) -> Any:
    opened = Store.open(f"sqlite:///{tmp_path}/scheduler.sqlite")
    opened.create_all()
    yield opened
    await opened.close()


async def claim(store: Store, spec: Any, choice: Any) -> None:
    await store.run(
        allocations.claim_first,
        server_id=choice.server_id,
        candidates=[(c.host_id, c.host) for c in choice.candidates],
        amounts=spec.amounts(),
    )


async def test_a_hosts_change_is_used_by_the_next_request(store: Store) -> None:
    await add_host(store, "h0", vcpus=2)
    endpoint = build_scheduler(Config(), store, SystemClock(), SeededIds(1))
    [choice] = await endpoint.select(a_request("s0", vcpus=4))
    assert not choice.candidates
    await add_host(store, "h0", vcpus=8)
    [choice] = await endpoint.select(a_request("s0", vcpus=4))
    assert choice.candidates


async def test_concurrent_requests_fill_exactly_what_is_there_and_no_claim_is_lost(store: Store) -> None:
    for n in range(10):
        await add_host(store, f"h{n}")
    endpoint = build_scheduler(Config(), store, SystemClock(), SeededIds(1))
    await endpoint.start()

    async def boot(n: int) -> bool:
        spec = a_request(f"s{n}")
        [choice] = await endpoint.select(spec)
        if choice.candidates:
            await claim(store, spec, choice)  # ClaimLost would fail the test
        return bool(choice.candidates)

    results = await asyncio.gather(*(boot(n) for n in range(110)))
    await endpoint.stop()
    assert sum(results) == 100
    assert await store.read(allocations.drift) == []


async def test_claims_are_seen_and_pending_choices_end(store: Store) -> None:
    await add_host(store, "h0")
    endpoint = build_scheduler(Config(), store, SystemClock(), SeededIds(1))
    spec = a_request("s0", vcpus=3)
    [choice] = await endpoint.select(spec)
    assert set(endpoint.table.pending) == {"s0"}
    await endpoint.refresh()
    assert set(endpoint.table.pending) == {"s0"}, "not claimed yet"
    await claim(store, spec, choice)
    await endpoint.refresh()
    assert not endpoint.table.pending
    assert endpoint.table.free_vcpus.tolist() == [7]
    await store.run(allocations.release, server_id="s0")
    await endpoint.refresh()
    assert endpoint.table.free_vcpus.tolist() == [10]


async def test_two_schedulers_meet_in_the_database(store: Store) -> None:
    """What one has not seen of the other costs an alternate or another try, never room that is not there."""
    for n in range(5):
        await add_host(store, f"h{n}", vcpus=4)
    desks = [build_scheduler(Config(), store, SystemClock(), SeededIds(n)) for n in range(2)]

    async def boot(n: int) -> bool:
        spec = a_request(f"s{n}")
        for _ in range(20):
            [choice] = await desks[n % 2].select(spec)
            if not choice.candidates:
                await asyncio.sleep(0.05)
                continue
            try:
                await claim(store, spec, choice)
            except Exception:
                continue
            return True
        return False

    assert all(await asyncio.gather(*(boot(n) for n in range(20))))
    assert await store.read(allocations.drift) == []
