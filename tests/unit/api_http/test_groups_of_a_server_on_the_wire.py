"""A server's security groups as the Compute API reads and shows them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kilonova.api.compute.server_actions import ACTIONS
from kilonova.api.compute.server_security_groups import GroupReference, group_view
from kilonova.api.http.schema import convert
from kilonova.model.errors import BadRequest
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("action", ["addSecurityGroup", "removeSecurityGroup"])
@pytest.mark.parametrize(
    "argument",
    [
        None, "web", 5, True, [], ["web"], {}, {"Name": "web"}, {"name": None}, {"name": 5}, {"name": True},
        {"name": ["web"]}, {"name": {"name": "web"}}, {"name": ""}, {"name": "  "}, {"name": "\t"}, {"name": "x" * 256},
    ],
)  # fmt: skip
def test_what_names_no_group_is_refused_and_says_where(action: str, argument: Any) -> None:
    with pytest.raises(BadRequest, match=action):
        convert(argument, ACTIONS[action].argument, at=action)


@pytest.mark.parametrize("name", ["web", "x" * 255, " web ", "a, b/ü"])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert convert({"name": name, "more": 1}, GroupReference).name == name


def rule(**values: Any) -> SecurityGroupRule:
    return SecurityGroupRule(id="r", group_id="g", project_id="p", created_at=NOW, **{"direction": "ingress", **values})


def shown(*rules: SecurityGroupRule, **named: SecurityGroup) -> list[dict[str, Any]]:
    rules_shown: list[dict[str, Any]] = group_view(group("g", "web", *rules), named)["rules"]
    return rules_shown


def group(id: str, name: str, *rules: SecurityGroupRule) -> SecurityGroup:
    return SecurityGroup(id=id, project_id="p", name=name, rules=rules, created_at=NOW, updated_at=NOW)


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ({"protocol": "tcp", "port_min": 22, "port_max": 23}, (22, 23)),
        ({"protocol": "tcp"}, (1, 65535)),
        ({"protocol": "udp"}, (1, 65535)),
        ({"protocol": "icmp"}, (-1, -1)),
        ({"protocol": "icmp", "port_min": 8, "port_max": 0}, (8, 0)),
        ({"protocol": "icmp", "port_min": 8}, (8, None)),
        ({"protocol": "47"}, (-1, -1)),
        ({}, (None, None)),
    ],
)
def test_ports_of_a_rule(values: dict[str, Any], ports: tuple[int | None, int | None]) -> None:
    [view] = shown(rule(**values))
    assert (view["from_port"], view["to_port"]) == ports
    assert view["ip_protocol"] == values.get("protocol")
    assert view["parent_group_id"] == "g"


def test_where_a_rule_lets_in_from() -> None:
    [block, anywhere, anywhere6, ours] = shown(
        rule(remote_cidr="10.0.0.0/8"), rule(), rule(ethertype="IPv6"), rule(remote_group_id="d"), d=group("d", "data")
    )
    assert (block["ip_range"], block["group"]) == ({"cidr": "10.0.0.0/8"}, {})
    assert (anywhere["ip_range"], anywhere["group"]) == ({"cidr": "0.0.0.0/0"}, {})
    assert (anywhere6["ip_range"], anywhere6["group"]) == ({"cidr": "::/0"}, {})
    assert (ours["ip_range"], ours["group"]) == ({}, {"name": "data", "tenant_id": "p"})


def test_only_what_comes_in_is_told() -> None:
    assert shown(rule(direction="egress")) == []
