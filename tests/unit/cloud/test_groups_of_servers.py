"""Servers in security groups: the same change as each of their ports would have by itself, all or none."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.stores import fresh_store

from kilonova.base.clock import SystemClock
from kilonova.base.ids import SystemIds
from kilonova.cloud.networks import NetworkOptions, Networks, subnet_row
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.cloud.security_groups import SecurityGroups
from kilonova.cloud.servers import Servers
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, CloudError, Conflict, InvalidState, NotFound, PolicyDenied
from kilonova.model.flavor import Flavor
from kilonova.model.server import Page, ServerFilter, ServerOrder
from kilonova.model.states import TaskState, VMState
from kilonova.store.engine import Store
from kilonova.store.queries import networks as network_rows
from kilonova.store.queries import ports as port_rows
from kilonova.store.queries import servers as server_rows
from kilonova.store.tables.networks import addresses, networks, ports
from kilonova.store.tables.security_groups import security_groups
from kilonova.store.transactions import insert_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVER, OTHER = "aaaaaaaa-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002"
NETWORK, SUBNET = "bbbbbbbb-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002"
WEB, DATA, TWIN, TWIN_2, FOREIGN = (f"cccccccc-0000-0000-0000-{n:012d}" for n in range(5))
PORTS = [f"dddddddd-0000-0000-0000-{n:012d}" for n in range(3)]
MEMBER = RequestContext(request_id="r", user_id="u", project_id="p", roles=frozenset({"member", "reader"}))
READER = RequestContext(request_id="r", user_id="u", project_id="p", roles=frozenset({"reader"}))
NEIGHBOUR = RequestContext(request_id="r", user_id="v", project_id="q", roles=frozenset({"member", "reader"}))


@dataclass
class Bell:
    rung: list[str] = field(default_factory=list)

    def ring(self, topic: str) -> None:
        self.rung.append(topic)


@dataclass
class Rig:
    """A server with two ports on two hosts' network, a neighbour's with one, and some groups."""

    parts: Parts
    store: Store
    bell: Bell
    groups: SecurityGroups
    servers: Servers

    async def of(self, *port_ids: str) -> list[set[str]]:
        return [set((await self.store.read(port_rows.get, one)).security_groups) for one in port_ids]

    async def shown(self, server_id: str = SERVER) -> list[str]:
        return sorted((await self.servers.get(MEMBER, server_id)).security_groups)

    async def set_server(self, **values: Any) -> None:
        await self.store.run(lambda tx: server_rows.become(tx, SERVER, at=NOW, **values))

    async def set_port(self, port_id: str, **values: Any) -> None:
        await self.store.run(
            lambda tx: tx.execute(sa.update(ports).where(ports.c.id == port_id).values(values)) and None
        )


def _server(id: str, project_id: str) -> dict[str, Any]:
    return {
        "id": id, "project_id": project_id, "user_id": "u", "name": "n", "hostname": "h", "vm_state": VMState.ACTIVE,
        "flavor": Flavor(id="1", name="m1", vcpus=1, memory_mib=128, root_gib=1), "metadata": {}, "tags": [],
        "order": ServerOrder(security_groups=["web"]), "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = fresh_store(tmp_path)
    stamps = {"created_at": NOW, "updated_at": NOW}

    def fill(tx: Any) -> None:
        server_rows.insert(tx, [_server(SERVER, "p"), _server(OTHER, "q")])
        insert_row(tx, networks, {
            "id": NETWORK, "project_id": "p", "name": "blue", "description": "", "admin_state_up": True,
            "shared": False, "external": False, "mtu": 1500, "port_security": True, **stamps,
        })  # fmt: skip
        network_rows.insert_subnet(tx, subnet_row(SUBNET, NETWORK, "p", {"cidr": "10.0.0.0/24"}, NOW))
        for number, (port_id, device, project) in enumerate(
            [(PORTS[0], SERVER, "p"), (PORTS[1], SERVER, "p"), (PORTS[2], OTHER, "q")]
        ):
            insert_row(tx, ports, {
                "id": port_id, "network_id": NETWORK, "project_id": project, "name": "", "description": "",
                "mac": f"fa:16:3e:00:00:{number:02x}", "admin_state_up": True, "device_id": device,
                "device_owner": "compute:nova", "host": f"host-{number}", "hostname": "", "auto": True,
                "port_security": True, "allowed_address_pairs": [], **stamps,
            })  # fmt: skip
            insert_row(tx, addresses, {"subnet_id": SUBNET, "address": 0x0A00000A + number, "port_id": port_id})
        for group_id, project, name in [
            (WEB, "p", "web"), (DATA, "p", "data"), (TWIN, "p", "twin"), (TWIN_2, "p", "twin"), (FOREIGN, "q", "their"),
        ]:  # fmt: skip
            row = {"id": group_id, "project_id": project, "name": name, "description": "", **stamps}
            insert_row(tx, security_groups, row)

    await store.run(fill)
    clock, bell = SystemClock(), Bell()
    parts = Parts(store, CloudPolicy.load(PolicyOptions(), clock=clock), clock, SystemIds(), bell)
    yield Rig(parts, store, bell, SecurityGroups(parts), Servers(parts, lambda host: None))  # type: ignore[arg-type, return-value]
    await store.close()


async def test_all_ports_of_the_server_are_in_the_group_and_no_others(rig: Rig) -> None:
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    await rig.groups.add_to_server(MEMBER, SERVER, DATA)
    assert await rig.of(*PORTS) == [{WEB, DATA}, {WEB, DATA}, set()]
    assert await rig.shown() == ["data", "web"]
    await rig.groups.remove_from_server(MEMBER, SERVER, WEB)
    assert await rig.of(*PORTS[:2]) == [{DATA}, {DATA}]
    assert await rig.shown() == ["data"]
    await rig.groups.remove_from_server(MEMBER, SERVER, "data")
    assert await rig.of(*PORTS[:2]) == [set(), set()]


async def test_every_host_that_lets_the_servers_neighbours_through_is_told(rig: Rig) -> None:
    told = {"network.host-0", "network.host-1", "network.host-2"}
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert set(rig.bell.rung) == told
    rig.bell.rung.clear()
    await rig.groups.remove_from_server(MEMBER, SERVER, "web")
    assert set(rig.bell.rung) == told


async def test_hosts_let_through_what_the_servers_groups_say(rig: Rig) -> None:
    async def ports_let_in() -> list[int | None]:
        told = await rig.store.read(port_rows.networks_of_host, "host-0")
        [port] = told.ports
        return [rule.port_min for rule in port.rules or ()]

    for number, group_id in ((22, WEB), (5432, DATA)):
        values = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "description": ""}
        await rig.groups.create_rule(MEMBER, group_id, values | {"port_min": number, "port_max": number})
    assert await ports_let_in() == []
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await ports_let_in() == [22]
    await rig.groups.add_to_server(MEMBER, SERVER, "data")
    await rig.groups.remove_from_server(MEMBER, SERVER, "web")
    assert await ports_let_in() == [5432]


async def test_one_that_is_in_the_group_stays_in_it_and_one_that_is_not_cannot_leave(rig: Rig) -> None:
    with pytest.raises(NotFound, match="web of server"):
        await rig.groups.remove_from_server(MEMBER, SERVER, "web")
    for _ in range(2):
        await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await rig.of(*PORTS[:2]) == [{WEB}, {WEB}]


async def test_one_port_in_the_group_is_enough_to_leave_it(rig: Rig) -> None:
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    await rig.groups.add_to_server(MEMBER, SERVER, "data")
    await rig.store.run(lambda tx: port_rows.security_groups.set_of_port(tx, PORTS[0], [DATA]))
    await rig.groups.remove_from_server(MEMBER, SERVER, "web")
    assert await rig.of(*PORTS[:2]) == [{DATA}, {DATA}]


async def test_of_changes_at_the_same_time_none_is_lost(rig: Rig) -> None:
    words = [WEB, DATA, TWIN, TWIN_2]
    for _ in range(5):
        await asyncio.gather(*(rig.groups.add_to_server(MEMBER, SERVER, word) for word in [*words, WEB]))
        assert await rig.of(*PORTS[:2]) == [set(words), set(words)]
        await asyncio.gather(*(rig.groups.remove_from_server(MEMBER, SERVER, word) for word in words))
        assert await rig.of(*PORTS[:2]) == [set(), set()]


async def test_a_ports_groups_are_those_of_one_of_two_who_set_them_at_the_same_time(rig: Rig) -> None:
    networks = Networks(rig.parts, NetworkOptions())
    sets = [[WEB, DATA], [WEB, TWIN], [DATA, TWIN]]
    for _ in range(5):
        changes = [networks.update_port(MEMBER, PORTS[0], {"security_groups": ids}, None) for ids in sets]
        await asyncio.gather(*changes)
        assert (await rig.of(PORTS[0]))[0] in [set(ids) for ids in sets]


@pytest.mark.parametrize(
    ("word", "error"),
    [("nothing", NotFound), ("their", NotFound), (FOREIGN, NotFound), ("twin", Conflict), ("WEB", NotFound)],
)
async def test_a_group_that_is_not_one_of_the_projects(rig: Rig, word: str, error: type[CloudError]) -> None:
    for change in (rig.groups.add_to_server, rig.groups.remove_from_server):
        with pytest.raises(error):
            await change(MEMBER, SERVER, word)
    assert await rig.of(*PORTS) == [set(), set(), set()]
    assert rig.bell.rung == []


async def test_of_two_groups_of_one_name_the_id_says_which(rig: Rig) -> None:
    await rig.groups.add_to_server(MEMBER, SERVER, TWIN_2)
    assert await rig.of(PORTS[0]) == [{TWIN_2}]


@pytest.mark.parametrize(
    "state", [{"vm_state": VMState.BUILDING}, {"vm_state": VMState.ACTIVE, "task_state": TaskState.DELETING}]
)
async def test_a_server_that_is_built_or_deleted_keeps_its_groups(rig: Rig, state: dict[str, Any]) -> None:
    await rig.set_server(**state)
    for change in (rig.groups.add_to_server, rig.groups.remove_from_server):
        with pytest.raises(InvalidState):
            await change(MEMBER, SERVER, "web")


@pytest.mark.parametrize("state", [VMState.STOPPED, VMState.ERROR])
async def test_a_server_that_does_not_run_changes_groups(rig: Rig, state: VMState) -> None:
    await rig.set_server(vm_state=state)
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await rig.of(PORTS[0]) == [{WEB}]


async def test_a_port_that_can_have_no_groups_keeps_all_of_the_server_as_it_is(rig: Rig) -> None:
    await rig.set_port(PORTS[1], port_security=False)
    with pytest.raises(BadRequest, match="port_security_enabled"):
        await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await rig.of(*PORTS[:2]) == [set(), set()]
    await rig.set_port(PORTS[1], port_security=True)
    await rig.store.run(lambda tx: port_rows.set_addresses(tx, PORTS[1], [], []))
    with pytest.raises(BadRequest, match="needs an address"):
        await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await rig.of(*PORTS[:2]) == [set(), set()]


async def test_a_server_without_ports_is_in_no_group(rig: Rig) -> None:
    for port_id in PORTS[:2]:
        await rig.set_port(port_id, device_id="")
    for change in (rig.groups.add_to_server, rig.groups.remove_from_server):
        with pytest.raises(NotFound, match="Port of server"):
            await change(MEMBER, SERVER, "web")
    assert await rig.shown() == []


async def test_a_port_of_another_project_is_neither_changed_nor_seen(rig: Rig) -> None:
    await rig.set_port(PORTS[1], project_id="q")
    await rig.store.run(lambda tx: port_rows.security_groups.set_of_port(tx, PORTS[1], [FOREIGN]))
    await rig.groups.add_to_server(MEMBER, SERVER, "web")
    assert await rig.of(*PORTS[:2]) == [{WEB}, {FOREIGN}]
    assert await rig.shown() == ["web"]
    found, _ = await rig.groups.of_server(MEMBER, SERVER)
    assert [group.name for group in found] == ["web"]


async def test_who_may_not_change_ports_does_not_do_so_by_the_server(rig: Rig) -> None:
    with pytest.raises(PolicyDenied):
        await rig.groups.add_to_server(READER, SERVER, "web")
    with pytest.raises(NotFound):
        await rig.groups.add_to_server(NEIGHBOUR, SERVER, "their")
    with pytest.raises(NotFound):
        await rig.groups.of_server(NEIGHBOUR, SERVER)


async def test_what_was_asked_for_is_shown_until_there_are_ports(rig: Rig) -> None:
    for port_id in PORTS[:2]:
        await rig.set_port(port_id, device_id="")
    await rig.set_server(vm_state=VMState.BUILDING)
    assert await rig.shown() == ["web"]
    [listed] = await rig.servers.page(MEMBER, ServerFilter(), Page(limit=10))
    assert listed.security_groups == ["web"]
