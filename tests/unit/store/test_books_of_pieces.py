"""Cells, devices and places in groups are taken and given back so that the books agree, and a forgotten one is seen."""

import msgspec
import pytest
import sqlalchemy as sa

from kilonova.base.clock import SystemClock
from kilonova.conductor.invariants import always
from kilonova.model.errors import ClaimLost
from kilonova.model.host import Amount, HostReport, NumaCell, PciDevice
from kilonova.model.numa import GuestCell, GuestTopology
from kilonova.model.request_spec import PciRequest, ServerGroup
from kilonova.model.server_group import AFFINITY, ANTI_AFFINITY, ServerGroupRecord
from kilonova.store.engine import Store
from kilonova.store.queries import allocations, devices, groups, hosts, services
from kilonova.store.queries.allocations import FineNeeds
from kilonova.store.queries.invariants import books
from kilonova.store.tables.devices import device_claims, host_devices
from kilonova.store.tables.groups import group_claims, group_slots
from kilonova.store.tables.hosts import inventories
from kilonova.store.transactions import Tx

NOW = SystemClock().now()
CELL = NumaCell(id=0, cpus=(0, 1), dedicated_cpus=(2, 3, 4, 5), memory_mib=4096)
CARD = PciDevice(address="0000:01:00.0", vendor_id="10de", product_id="1db4")
GUEST = GuestTopology(cells=(GuestCell(vcpus=2, pinned=2, memory_mib=512),))
REPORT = HostReport(
    host="h", hypervisor_hostname="h", hypervisor_type="fake", hypervisor_version=1, vcpus=4, memory_mib=8192,
    disk_gib=100, numa=(CELL,), pci=(CARD,), more={"PCPU": Amount(total=4, ratio=1.0)},
)  # fmt: skip
AMOUNTS = {"MEMORY_MB": 512, "PCPU": 2}
ABSENT = {
    "leaked: a deleted server holds nothing",
    "leaked: a deleted server holds no cells or devices",
    "leaked: a deleted server holds no place",
}
"""What is said of claims of servers that are in no row."""


@pytest.fixture(params=[ANTI_AFFINITY, AFFINITY])
async def group(request: pytest.FixtureRequest, store: Store) -> ServerGroup:
    record = ServerGroupRecord(
        id="g", project_id="p", user_id="u", name="g", policy=request.param, max_server_per_host=1, created_at=NOW
    )
    await store.run(groups.insert, record)
    return ServerGroup(id="g", policy=request.param)


async def claim(store: Store, group: ServerGroup, server_id: str = "s") -> None:
    host_id = await store.read(_host)
    fine = FineNeeds(group=group, topology=GUEST, pci=(PciRequest(count=1, specs=({"vendor_id": "10de"},)),))
    await store.run(
        allocations.claim_first, server_id=server_id, candidates=[(host_id, "h")], amounts=AMOUNTS, fine=fine
    )


def _host(tx: Tx) -> int:
    return hosts.id_of(tx, "h")


@pytest.fixture(autouse=True)
async def host(store: Store) -> None:
    await store.run(services.register, service="compute", host="h", agent_id="h", uuid="s-h", at=NOW)
    await store.run(hosts.record_report, REPORT, uuid="h-h", at=NOW)


async def rules(store: Store) -> set[str]:
    """That are broken, with their harm."""
    return {f"{violation.harm}: {violation.rule}" for violation in always(await store.read(books))}


async def test_what_is_given_back_is_given_back_whole(store: Store, group: ServerGroup) -> None:
    assert await rules(store) == set()
    for _ in range(3):
        await claim(store, group)
        assert await rules(store) == ABSENT  # all that is held agrees
        await store.run(allocations.release, server_id="s")
        assert await rules(store) == set()


async def test_what_is_held_is_read(store: Store, group: ServerGroup) -> None:
    await claim(store, group)
    seen = await store.read(books)
    [(where, held)] = seen.devices_held.values()
    assert where == "h" and held.devices == (CARD.address,) and len(held.cells[0].pins) == 2
    assert seen.devices["h"].cells[0].pinned_cpus == held.cells[0].pins
    [place] = seen.places.values()
    assert (place.host, place.members, place.most) == ("h", 1, 1 if group.policy == ANTI_AFFINITY else None)
    assert seen.places_held["s"] in seen.places


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (devices, "leaked: a deleted server holds no cells or devices"),
        (groups, "leaked: a deleted server holds no place"),
    ],
    ids=["devices", "groups"],
)
async def test_a_release_that_is_left_out_is_seen(
    store: Store, group: ServerGroup, module: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claim(store, group)
    monkeypatch.setattr(module, "release", lambda tx, server_id: None)
    await store.run(allocations.release, server_id="s")
    assert await rules(store) == {told}


@pytest.mark.parametrize(
    ("forget", "told"),
    [
        (sa.delete(device_claims), "leaked: what a host gave out is what claims hold"),
        (sa.delete(host_devices), "doubled: what a host gave out is what claims hold"),
        (sa.delete(group_claims), "leaked: places taken are the places held"),
        (sa.delete(group_slots), "doubled: places taken are the places held"),
        (
            sa.delete(inventories).where(inventories.c.resource_class == "PCPU"),
            "doubled: used is the sum of the claims",
        ),
    ],
    ids=["device_claims", "host_devices", "group_claims", "group_slots", "inventories"],
)
async def test_half_of_it_is_seen(store: Store, group: ServerGroup, forget: sa.Delete, told: str) -> None:
    await claim(store, group)
    await store.run(lambda tx: tx.execute(forget))
    assert told in await rules(store)


async def test_a_host_that_says_something_else_of_itself_keeps_what_is_held(store: Store, group: ServerGroup) -> None:
    await claim(store, group)
    less = msgspec.structs.replace(CELL, cpus=(0,), dedicated_cpus=(2, 3))
    await store.run(devices.report, await store.read(_host), [less], [])
    assert await rules(store) == ABSENT


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_after_a_report_without_cells_no_cpu_is_given_out_twice(store: Store, version: str) -> None:
    """As from an agent that took its conductor for an older one, or as from a host that really has none for a while."""
    host_id = await store.read(_host)

    async def take(server_id: str) -> None:
        needs, candidates = FineNeeds(topology=GUEST), [(host_id, "h")]
        await store.run(
            allocations.claim_first, server_id=server_id, candidates=candidates, amounts=AMOUNTS, fine=needs
        )

    await take("one")
    without = msgspec.structs.replace(REPORT, version=version, numa=(), pci=(), more={})
    await store.run(hosts.record_report, without, uuid="h-h", at=NOW)
    if version == "1.1":
        with pytest.raises(ClaimLost):
            await take("nobody")
    await store.run(hosts.record_report, REPORT, uuid="h-h", at=NOW)
    await take("two")
    held = (await store.read(books)).devices_held
    assert {server_id: found.cells[0].pins for server_id, (_, found) in held.items()} == {"one": (2, 3), "two": (4, 5)}
    with pytest.raises(ClaimLost):
        await take("three")
    assert await rules(store) == ABSENT - {"leaked: a deleted server holds no place"}
