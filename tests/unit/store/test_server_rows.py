"""Lists of servers: every page is what sorting everything and cutting would give."""

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilonova.base.clock import SystemClock
from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.flavor import Flavor
from kilonova.model.server import Fault, Page, ServerFilter, ServerOrder
from kilonova.model.states import VMState
from kilonova.store.engine import Store
from kilonova.store.queries import servers

NOW = SystemClock().now()
FLAVOR = Flavor(id="1", name="m1", vcpus=1, memory_mib=128, root_gib=1)


def a_row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"s{number:03}",
        "project_id": "p",
        "user_id": "u",
        "name": f"n{number}",
        "hostname": "h",
        "vm_state": VMState.ACTIVE,
        "flavor": FLAVOR,
        "metadata": {},
        "tags": [],
        "order": ServerOrder(),
        "created_at": NOW,
        "updated_at": NOW,
        "key_name": None,
    } | more


SOME = [
    a_row(
        n,
        name=random.Random(n).choice("abc"),
        created_at=NOW + timedelta(seconds=n % 4),
        key_name=[None, "k1", "k2"][n % 3],
        project_id="p" if n % 5 else "q",
        vm_state=VMState.ERROR if n % 7 == 0 else VMState.ACTIVE,
    )
    for n in range(23)
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    sort=st.lists(
        st.tuples(st.sampled_from(["created_at", "name", "key_name", "vm_state"]), st.sampled_from(["asc", "desc"])),
        min_size=1,
        max_size=3,
        unique_by=lambda pair: pair[0],
    ),
    limit=st.integers(1, 9),
)
async def test_pages_join_to_the_whole_sorted_list(tmp_path_factory: Any, sort: Any, limit: int) -> None:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('db') / 'x.sqlite'}", inline=True)
    store.create_all()
    await store.run(servers.insert, SOME)
    found: list[Any] = []
    marker = None
    while True:
        page = Page(limit=limit, marker=marker, sort=tuple(sort))
        part = await store.read(servers.list_page, ServerFilter(project_id="p"), page)
        found += part
        if len(part) < limit:
            break
        marker = part[-1].id
    rows = [row for row in SOME if row["project_id"] == "p"]
    descends = sort[-1][1] == "desc"
    rows.sort(key=lambda row: row["id"], reverse=descends)
    for key, direction in reversed(sort):
        rows.sort(key=lambda row: (row[key] is not None, row[key] or ""), reverse=direction == "desc")
    assert [server.id for server in found] == [row["id"] for row in rows]
    await store.close()


async def test_a_fault_comes_with_the_server_in_error(store: Store) -> None:
    await store.run(servers.insert, SOME)
    for n in (1, 2):
        fault = Fault(code=500, message=f"m{n}", details="d", created_at=NOW)
        await store.run(servers.add_fault, "s007", fault)
    server = await store.read(servers.get, "s007")
    assert server.fault is not None
    assert server.fault.message == "m2"
    listed = await store.read(servers.list_page, ServerFilter(), Page())
    assert [s.id for s in listed if s.fault] == ["s007"]


async def test_somebody_elses_and_deleted_servers_are_not_found(store: Store) -> None:
    await store.run(servers.insert, SOME)
    with pytest.raises(NotFound):
        await store.read(servers.get, "s001", project_id="q")
    await store.run(servers.update, "s001", at=NOW, deleted_at=NOW)
    with pytest.raises(NotFound):
        await store.read(servers.get, "s001")
    assert (await store.read(servers.get, "s001", deleted=True)).id == "s001"
    assert [s.id for s in await store.read(servers.list_page, ServerFilter(deleted=True), Page())] == ["s001"]


async def test_bad_sort_keys_and_markers_are_bad_requests(store: Store) -> None:
    with pytest.raises(BadRequest, match="sorted by 'colour'"):
        await store.read(servers.list_page, ServerFilter(), Page(sort=(("colour", "asc"),)))
    with pytest.raises(BadRequest, match="marker"):
        await store.read(servers.list_page, ServerFilter(), Page(marker="nobody"))


async def test_names_match_by_pattern_and_tags_by_set(store: Store) -> None:
    rows = [a_row(1, name="web-1", tags=["x", "y"]), a_row(2, name="db-1", tags=["y"]), a_row(3, name="web-2")]
    await store.run(servers.insert, rows)

    async def ids(**wanted: Any) -> list[str]:
        page = Page(sort=(("id", "asc"),))
        return [s.id for s in await store.read(servers.list_page, ServerFilter(**wanted), page)]

    assert await ids(name="^web") == ["s001", "s003"]
    assert await ids(tags_all=("x", "y")) == ["s001"]
    assert await ids(tags_any=("x", "y")) == ["s001", "s002"]
    assert await ids(not_tags_all=("x", "y")) == ["s002", "s003"]
    assert await ids(not_tags_any=("y",)) == ["s003"]
