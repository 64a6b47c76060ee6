"""Filters of where other servers are, of addresses, and of hosts tried before."""

from typing import Any

import pytest
from scheduler_builders import a_request, host_table, only_complaint, passing

from kilonova.model.request_spec import ServerGroup
from kilonova.scheduler.needs import needs_of
from kilonova.scheduler.table import HostTable

# ---- groups ----------------------------------------------------------------------------------------------------


def grouped(name: str, table: HostTable, policy: str, members: dict[str, str], most: int = 1) -> list[str]:
    group = ServerGroup(id="g", policy=policy, members=members, max_server_per_host=most)
    return passing(name, table, a_request(group=group))


TOGETHER, APART = "ServerGroupAffinityFilter", "ServerGroupAntiAffinityFilter"


def test_affinity_passes_the_hosts_of_the_members() -> None:
    table = host_table(3)
    assert grouped(TOGETHER, table, "affinity", {"m1": "h1"}) == ["h1"]
    assert grouped(TOGETHER, table, "affinity", {"m1": "h1", "m2": "h2"}) == ["h1", "h2"]
    assert grouped(TOGETHER, table, "affinity", {}) == ["h0", "h1", "h2"]


def test_affinity_to_a_host_that_left_passes_nobody() -> None:
    assert grouped(TOGETHER, host_table(2), "affinity", {"m1": "gone"}) == []


def test_anti_affinity_refuses_the_hosts_of_the_members() -> None:
    table = host_table(3)
    assert grouped(APART, table, "anti-affinity", {"m1": "h1", "m2": "gone"}) == ["h0", "h2"]
    assert grouped(APART, table, "anti-affinity", {}) == ["h0", "h1", "h2"]


def test_anti_affinity_may_allow_several_a_host() -> None:
    members = {"m1": "h0", "m2": "h0", "m3": "h1"}
    assert grouped(APART, host_table(3), "anti-affinity", members, most=2) == ["h1", "h2"]
    assert grouped(APART, host_table(3), "anti-affinity", members, most=3) == ["h0", "h1", "h2"]


@pytest.mark.parametrize("name", [TOGETHER, APART])
def test_other_policies_and_no_group_are_not_looked_at(name: str) -> None:
    other = "anti-affinity" if name == TOGETHER else "affinity"
    for policy in ("soft-affinity", "soft-anti-affinity", other):
        assert grouped(name, host_table(2), policy, {"m1": "h1"}) == ["h0", "h1"]
    assert passing(name, host_table(2)) == ["h0", "h1"]


def test_members_that_were_only_just_promised_count_each_once() -> None:
    table = host_table(3)
    group = ServerGroup(id="g", policy="anti-affinity", members={})
    table.take(needs_of(a_request(group=group)), "s1", table.row_of["h0"])
    table.take(needs_of(a_request(group=ServerGroup(id="other", policy="anti-affinity"))), "s2", table.row_of["h1"])
    assert grouped(APART, table, "anti-affinity", {}) == ["h1", "h2"]
    assert grouped(APART, table, "anti-affinity", {"s1": "h0"}, most=2) == ["h0", "h1", "h2"]
    assert grouped(TOGETHER, table, "affinity", {}) == ["h0"]


# ---- same host, another host -----------------------------------------------------------------------------------

WHERE = {"a": "h0", "b": "h1", "lost": "gone"}


def hinted(name: str, hint: str, given: Any) -> list[str]:
    return passing(name, host_table(3), a_request(scheduler_hints={hint: given}, hosts_of_servers=WHERE))


@pytest.mark.parametrize(
    ("given", "same", "different"),
    [
        ("a", ["h0"], ["h1", "h2"]),
        (["a"], ["h0"], ["h1", "h2"]),
        (["a", "b"], ["h0", "h1"], ["h2"]),
        (["a", "unknown"], ["h0"], ["h1", "h2"]),
        ("unknown", [], ["h0", "h1", "h2"]),
        ("lost", [], ["h0", "h1", "h2"]),
        ([], ["h0", "h1", "h2"], ["h0", "h1", "h2"]),
        ("", ["h0", "h1", "h2"], ["h0", "h1", "h2"]),
        ([""], ["h0", "h1", "h2"], ["h0", "h1", "h2"]),
        (None, ["h0", "h1", "h2"], ["h0", "h1", "h2"]),
        (7, [], ["h0", "h1", "h2"]),
        ([["a"], "b"], ["h1"], ["h0", "h2"]),
    ],
    ids=str,
)
def test_hosts_of_the_servers_that_a_hint_names(given: Any, same: list[str], different: list[str]) -> None:
    assert hinted("SameHostFilter", "same_host", given) == same
    assert hinted("DifferentHostFilter", "different_host", given) == different


# ---- addresses -------------------------------------------------------------------------------------------------


def near(table: HostTable, **hints: Any) -> list[str]:
    return passing("SimpleCIDRAffinityFilter", table, a_request(scheduler_hints=hints))


def at_addresses() -> HostTable:
    return host_table(host_ip=["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::5"])


@pytest.mark.parametrize(
    ("hints", "hosts"),
    [
        ({}, ["h0", "h1", "h2", "h3"]),
        ({"cidr": "/24"}, ["h0", "h1", "h2", "h3"]),
        ({"build_near_host_ip": "192.0.2.7"}, ["h0", "h1"]),
        ({"build_near_host_ip": "192.0.2.7", "cidr": "/25"}, ["h0"]),
        ({"build_near_host_ip": "192.0.2.7", "cidr": "/0"}, ["h0", "h1", "h2"]),
        ({"build_near_host_ip": ["192.0.2.7"], "cidr": ["/25"]}, ["h0"]),
        ({"build_near_host_ip": "192.0.2.7", "cidr": ""}, ["h0", "h1"]),
        ({"build_near_host_ip": "2001:db8::", "cidr": "/64"}, ["h3"]),
        ({"build_near_host_ip": ""}, ["h0", "h1", "h2", "h3"]),
        ({"build_near_host_ip": [""]}, ["h0", "h1", "h2", "h3"]),
        ({"build_near_host_ip": "203.0.113.9"}, []),
        ({"build_near_host_ip": "192.0.2.7", "cidr": "/33"}, []),
        ({"build_near_host_ip": "192.0.2.7", "cidr": "wide"}, []),
        ({"build_near_host_ip": "here"}, []),
        ({"build_near_host_ip": ["192.0.2.7", "x"]}, []),
        ({"build_near_host_ip": 7}, []),
    ],
    ids=str,
)
def test_hosts_with_an_address_in_the_block(hints: dict[str, Any], hosts: list[str]) -> None:
    assert near(at_addresses(), **hints) == hosts


def test_a_host_without_an_address_is_near_nothing_and_told_once() -> None:
    table = host_table(host_ip=["192.0.2.1", "not-an-address"])
    for cidr in ("/24", "/0"):
        assert near(table, build_near_host_ip="192.0.2.1", cidr=cidr) == ["h0"]
    assert "host 'h1': its address 'not-an-address' is none" in only_complaint(table)


# ---- tried before ----------------------------------------------------------------------------------------------


def test_hosts_where_it_failed_before_are_left_out() -> None:
    assert passing("RetryFilter", host_table(3), a_request(excluded_hosts=("h1", "gone"))) == ["h0", "h2"]
    assert passing("RetryFilter", host_table(3)) == ["h0", "h1", "h2"]
