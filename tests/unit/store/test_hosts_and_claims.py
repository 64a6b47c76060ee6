"""Claims are conditional writes; the feed tells schedulers what changed."""

import asyncio
from datetime import timedelta

import pytest

from kilonova.base.clock import SystemClock
from kilonova.model.errors import ClaimLost, Conflict
from kilonova.model.host import Amount, HostReport
from kilonova.store.engine import Store
from kilonova.store.queries import allocations, hosts, services

NOW = SystemClock().now()


def a_report(host: str, **more: object) -> HostReport:
    values = {
        "host": host,
        "hypervisor_hostname": host,
        "hypervisor_type": "fake",
        "hypervisor_version": 1,
        "vcpus": 4,
        "memory_mib": 8192,
        "disk_gib": 100,
        "vcpus_ratio": 2.0,
        **more,
    }
    return HostReport(**values)  # type: ignore[arg-type]


async def add_host(store: Store, name: str, **more: object) -> int:
    await store.run(services.register, service="compute", host=name, agent_id=name, uuid=f"s-{name}", at=NOW)
    await store.run(hosts.record_report, a_report(name, **more), uuid=f"h-{name}", at=NOW)
    return await store.read(hosts.id_of, name)


async def used(store: Store, name: str) -> tuple[int, int, int]:
    [state] = [s for s in await store.read(hosts.changes_since, 0) if s.name == name]
    return state.vcpus_used, state.memory_used_mib, state.disk_used_gib


async def test_a_race_for_the_last_places_is_won_by_exactly_as_many(store: Store) -> None:
    host = await add_host(store, "h1")  # 4 CPUs, ratio 2: 8 places
    results = await asyncio.gather(
        *(
            store.run(allocations.claim_first, server_id=f"s{n}", candidates=[(host, "h1")], amounts={"VCPU": 1})
            for n in range(30)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(r, ClaimLost) for r in results) == 22
    assert (await used(store, "h1"))[0] == 8
    assert await store.read(allocations.drift) == []


async def test_a_claim_that_fits_only_in_part_takes_nothing(store: Store) -> None:
    host = await add_host(store, "h1")
    with pytest.raises(ClaimLost) as lost:
        await store.run(
            allocations.claim_first,
            server_id="s",
            candidates=[(host, "h1")],
            amounts={"DISK_GB": 10, "MEMORY_MB": 9000, "VCPU": 1},
        )
    assert lost.value.resource_class == "MEMORY_MB"
    assert await used(store, "h1") == (0, 0, 0)


async def test_the_next_candidate_is_taken_when_the_first_is_full(store: Store) -> None:
    first, second = await add_host(store, "h1", memory_mib=100), await add_host(store, "h2")
    candidates = [(first, "h1"), (second, "h2")]
    chosen = await store.run(
        allocations.claim_first, server_id="s", candidates=candidates, amounts={"MEMORY_MB": 512, "DISK_GB": 1}
    )
    assert chosen == (second, "h2", {"h1": "MEMORY_MB"})
    assert await used(store, "h1") == (0, 0, 0)
    assert await used(store, "h2") == (0, 512, 1)


async def test_claiming_twice_is_claiming_once_and_release_gives_all_back(store: Store) -> None:
    host = await add_host(store, "h1")
    for _ in range(2):
        await store.run(allocations.claim_first, server_id="s", candidates=[(host, "h1")], amounts={"VCPU": 2})
    assert (await used(store, "h1"))[0] == 2
    for _ in range(2):
        await store.run(allocations.release, server_id="s")
    assert await used(store, "h1") == (0, 0, 0)
    assert await store.read(allocations.drift) == []


async def test_a_report_never_changes_what_is_used(store: Store) -> None:
    host = await add_host(store, "h1")
    await store.run(allocations.claim_first, server_id="s", candidates=[(host, "h1")], amounts={"VCPU": 3})
    await store.run(hosts.record_report, a_report("h1", vcpus=2, running_vms=7), uuid="x", at=NOW)
    assert (await used(store, "h1"))[0] == 3


async def test_a_ratio_that_the_host_changed_is_in_force(store: Store) -> None:
    host = await add_host(store, "h1")  # 4 CPUs, ratio 2: 8 places
    assert await store.run(hosts.record_report, a_report("h1", vcpus_ratio=1.1), uuid="x", at=NOW)
    assert not await store.run(hosts.record_report, a_report("h1", vcpus_ratio=1.1), uuid="x", at=NOW)
    claim = {"candidates": [(host, "h1")], "amounts": {"VCPU": 2}}
    await store.run(allocations.claim_first, server_id="a", **claim)
    await store.run(allocations.claim_first, server_id="b", **claim)
    with pytest.raises(ClaimLost):
        await store.run(allocations.claim_first, server_id="c", **claim)


async def test_a_resource_that_is_gone_is_told_once(store: Store) -> None:
    host = await add_host(store, "h1")
    license = {"CUSTOM_LICENSE": Amount(total=2)}
    assert await store.run(hosts.record_report, a_report("h1", more=license), uuid="x", at=NOW)
    amounts = {"CUSTOM_LICENSE": 1}
    await store.run(allocations.claim_first, server_id="s", candidates=[(host, "h1")], amounts=amounts)
    assert await store.run(hosts.record_report, a_report("h1"), uuid="x", at=NOW)
    assert not await store.run(hosts.record_report, a_report("h1"), uuid="x", at=NOW)
    await store.run(allocations.release, server_id="s")
    assert await store.run(hosts.record_report, a_report("h1"), uuid="x", at=NOW), "its row goes now"
    assert not await store.run(hosts.record_report, a_report("h1"), uuid="x", at=NOW)


async def test_the_feed_tells_what_changed_and_nothing_else(store: Store) -> None:
    await add_host(store, "h1")
    second = await add_host(store, "h2")
    seq = await store.read(hosts.last_seq)
    assert await store.read(hosts.changes_since, seq) == []
    assert not await store.run(hosts.record_report, a_report("h1", uptime="1 day"), uuid="x", at=NOW)
    assert await store.read(hosts.changes_since, seq) == []
    await store.run(allocations.claim_first, server_id="s", candidates=[(second, "h2")], amounts={"VCPU": 1})
    assert [s.name for s in await store.read(hosts.changes_since, seq)] == ["h2"]
    assert await store.run(hosts.record_report, a_report("h1", memory_mib=1), uuid="x", at=NOW)
    assert [s.name for s in await store.read(hosts.changes_since, seq)] == ["h2", "h1"]


async def test_a_second_live_agent_of_one_host_is_refused(store: Store) -> None:
    await add_host(store, "h1")
    with pytest.raises(Conflict, match="Another compute service runs on h1"):
        await store.run(services.register, service="compute", host="h1", agent_id="other", uuid="u", at=NOW)
    later = NOW + timedelta(seconds=1)
    assert await store.run(services.mark_silent, {("compute", "h1"): NOW}, at=later) == [("compute", "h1")]
    assert await store.run(services.register, service="compute", host="h1", agent_id="other", uuid="u", at=NOW)


async def test_silence_is_told(store: Store) -> None:
    await add_host(store, "h1")
    name, later = ("compute", "h1"), NOW + timedelta(seconds=1)
    assert await store.read(services.silent, before=NOW) == {}
    assert await store.read(services.silent, before=later) == {name: NOW}
    assert await store.run(services.seen, {name: NOW + timedelta(seconds=5)}, at=later) == ([], [])
    assert await store.read(services.silent, before=later) == {}
    assert await store.run(services.mark_silent, {name: NOW}, at=later) == [], "somebody heard of it meanwhile"


async def test_a_heartbeat_brings_a_service_back_whoever_marked_it_down(store: Store) -> None:
    await add_host(store, "h1")
    name, later = ("compute", "h1"), NOW + timedelta(seconds=60)
    assert await store.run(services.mark_silent, {name: NOW}, at=later) == [name]
    heard = {name: later, ("compute", "gone"): later}
    assert await store.run(services.seen, heard, at=later) == ([name], [("compute", "gone")])
    [service] = await store.read(services.list_all)
    assert (service.is_up, service.state_since, service.last_seen_at) == (True, later, later)
    # Whoever hears of it next may have a clock that is behind: that it moves is what counts.
    await store.run(services.seen, {name: NOW}, at=later)
    [service] = await store.read(services.list_all)
    assert service.last_seen_at == NOW
