"""What runs under fire are judged by: each wrong is seen."""

from dataclasses import replace

import pytest
from tests.support.chaos import Look, Rows, ServerThere, look_at_ports, look_at_quota

ROWS = Rows(
    servers={name: ServerThere(name, "active", None, "h", {"vcpus": 2, "memory_mib": 1024}) for name in ("one", "two")},
    held={"one", "two"},
    ports={"p1": "one", "p2": "two"},
    addresses=[("s", 1, "p1"), ("s", 2, "p2")],
    quota={"instances": 2, "cores": 4, "ram": 2048, "port": 2},
)


def test_a_cloud_in_order() -> None:
    look = Look(active={"one", "two"})
    look_at_ports(ROWS, look)
    look_at_quota(ROWS, look)
    assert look.wrongs(["one", "two"], quiet_within_s=30) == []


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (Look(active={"one"}), "1 of 2 servers are not ACTIVE"),
        (Look(active={"one"}, error={"two"}), "1 servers are in ERROR"),
        (Look(active={"one", "two"}, other={"three"}), "1 servers are there that should not be"),
        (Look(active={"one", "two", "three"}), "1 servers are there that should not be"),
        (Look(active={"one", "two"}, odd=["x"]), "odd: x"),
        (Look(active={"one", "two"}, quiet_after_s=30.1), "quiet 30.1 s after the last kill"),
    ],
)
def test_what_was_asked_for_and_is_not_so_is_told(look: Look, told: str) -> None:
    assert any(told in wrong for wrong in look.wrongs(["one", "two"], quiet_within_s=30))


def test_a_lost_address_and_a_leaked_one_do_not_cancel() -> None:
    look = Look()
    look_at_ports(replace(ROWS, addresses=[("s", 1, "p1"), ("s", 2, "gone")]), look)
    assert look.out_of_order == ["leaked: address of port gone, which is not there", "lost: address of port p2"]


def test_ports_are_counted_by_server() -> None:
    look = Look()
    look_at_ports(replace(ROWS, ports={"p1": "one", "p2": "one", "p3": "gone"}), look)
    assert {wrong.split(":")[0] for wrong in look.out_of_order} == {"leaked", "lost", "doubled"}
    assert "doubled: 2 ports of one" in look.out_of_order and "lost: port of two" in look.out_of_order


@pytest.mark.parametrize("resource", ["instances", "cores", "ram", "port"])
@pytest.mark.parametrize(("more", "harm"), [(1, "leaked"), (-1, "lost")])
def test_each_quota_is_looked_at(resource: str, more: int, harm: str) -> None:
    look = Look()
    look_at_quota(replace(ROWS, quota={**ROWS.quota, resource: ROWS.quota[resource] + more}), look)
    assert len(look.out_of_order) == 1 and look.out_of_order[0].startswith(f"{harm}: quota counts")
