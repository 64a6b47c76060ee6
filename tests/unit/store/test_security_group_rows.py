"""Security groups in the database: the default one, what hosts are told, and ports from before there were any."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kilonova.model.errors import BadRequest
from kilonova.model.network_plans import GroupMembers
from kilonova.model.security_group import default_id
from kilonova.store import migrations
from kilonova.store.engine import Store
from kilonova.store.queries import security_groups
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.security_groups import port_security_groups
from kilonova.store.transactions import Tx, insert_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NETWORK, SUBNET = "11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"


def port_row(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": f"22222222-0000-0000-0000-{number:012d}",
        "network_id": NETWORK,
        "project_id": "p1",
        "name": "",
        "description": "",
        "mac": f"fa:16:3e:00:00:{number:02x}",
        "admin_state_up": True,
        "device_id": "",
        "device_owner": "",
        "host": f"host-{number}",
        "hostname": "",
        "auto": False,
        "port_security": True,
        "allowed_address_pairs": [],
        "created_at": NOW,
        "updated_at": NOW,
        **values,
    }


def add_port(tx: Tx, number: int, address: int, groups: list[str], **values: Any) -> None:
    row = port_row(number, **values)
    insert_row(tx, ports, row)
    insert_row(tx, addresses, {"subnet_id": SUBNET, "address": address, "port_id": row["id"]})
    security_groups.set_of_port(tx, row["id"], groups)


async def test_the_default_group_is_made_once_whoever_asks(store: Store) -> None:
    first = await store.run(security_groups.ensure_default, "p1", at=NOW)
    assert await store.run(security_groups.ensure_default, "p1", at=NOW) == first == default_id("p1")
    assert await store.run(security_groups.ensure_default, "p2", at=NOW) != first
    [group] = await store.read(security_groups.list_all, project_id="p1")
    assert len(group.rules) == 4


async def test_groups_are_found_by_name_or_id_of_ones_own_project(store: Store) -> None:
    mine = await store.run(security_groups.resolve, "p1", [], at=NOW)
    assert mine == [default_id("p1")]
    assert await store.run(security_groups.resolve, "p1", ["default", default_id("p1")], at=NOW) == mine
    theirs = await store.run(security_groups.ensure_default, "p2", at=NOW)
    for word in (theirs, "web"):
        with pytest.raises(BadRequest, match="not found"):
            await store.run(security_groups.resolve, "p1", [word], at=NOW)


async def test_hosts_are_told_who_is_in_a_group_on_their_networks(store: Store) -> None:
    def fill(tx: Tx) -> None:
        group = security_groups.ensure_default(tx, "p1", at=NOW)
        add_port(tx, 1, 0x0A000001, [group])
        add_port(tx, 2, 0x0A000002, [group], allowed_address_pairs=[{"ip_address": "10.9.0.0/16"}])
        add_port(tx, 3, 0x0A000003, [])
        add_port(tx, 4, 0x0A000004, [group], network_id="33333333-0000-0000-0000-000000000001")

    await store.run(fill)
    group = default_id("p1")
    told = await store.read(security_groups.members_on, [NETWORK], [group])
    members = ("10.0.0.1", "10.0.0.2", "10.9.0.0/16")
    assert told == (GroupMembers(network_id=NETWORK, group_id=group, addresses=members),)
    assert await store.read(security_groups.members_on, [NETWORK], []) == ()
    assert await store.read(security_groups.hosts_of_group, group) == ["host-1", "host-2", "host-4"]
    assert await store.read(security_groups.hosts_of_networks, [NETWORK]) == ["host-1", "host-2", "host-3"]
    plans = await store.read(security_groups.plans_of, [group])
    assert {(rule.direction, rule.remote_group) for rule in plans[group]} == {("ingress", group), ("egress", "")}


def test_ports_from_before_there_were_groups_are_in_their_projects_default_one(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'db.sqlite'}", inline=True)
    migrations.upgrade(store.engine, "0009")
    with store.engine.begin() as connection:
        connection.execute(sa.insert(ports), [port_row(1), port_row(2, project_id="p2"), port_row(3)])
    migrations.upgrade(store.engine)
    with store.engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(sa.select(port_security_groups))}
    assert found == {
        (port_row(number)["id"], default_id(project)) for number, project in ((1, "p1"), (2, "p2"), (3, "p1"))
    }
