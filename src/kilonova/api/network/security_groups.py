"""Security groups and their rules of Network v2.0."""

from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.api.network.api import api
from kilonova.api.network.collection import create, listed
from kilonova.api.network.fields import Project, Text, given, owner_of, stamp
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule

# ---- groups -------------------------------------------------------------------------------------------------


class GroupFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """A security group, as it is asked for."""

    name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    project_id: Project | UnsetType = UNSET
    tenant_id: Project | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class GroupBody(Struct, kw_only=True):
    """Body of ``POST /security-groups``."""

    security_group: GroupFields | UnsetType = UNSET
    security_groups: Annotated[list[GroupFields], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


def group_view(group: SecurityGroup) -> dict[str, Any]:
    """A security group as clients see it."""
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "stateful": True,
        "shared": False,
        "project_id": group.project_id,
        "tenant_id": group.project_id,
        "security_group_rules": [rule_view(rule) for rule in group.rules],
        "tags": [],
        "revision_number": 1,
        "created_at": stamp(group.created_at),
        "updated_at": stamp(group.updated_at),
    }


def _check_stateful(fields: GroupFields) -> None:
    if fields.stateful is False:
        raise BadRequest("Invalid input for stateful. Reason: security groups of this cloud are stateful.")


@api.route("GET", "/security-groups")
async def list_groups(cloud: Cloud, req: Request) -> Reply:
    """Groups of the caller's project; an administrator sees all."""
    return listed(req, "security_groups", [group_view(group) for group in await cloud.security_groups.groups(req.ctx)])


@api.route("GET", "/security-groups/{group_id}")
async def show_group(cloud: Cloud, req: Request, group_id: Uuid) -> Reply:
    """One group."""
    return Reply({"security_group": group_view(await cloud.security_groups.group(req.ctx, group_id))})


@api.route("POST", "/security-groups", status=201, once=True)
async def create_group(cloud: Cloud, req: Request, body: GroupBody) -> Reply:
    """New groups."""

    def order(fields: GroupFields) -> Callable[[], Awaitable[SecurityGroup]]:
        _check_stateful(fields)
        name = "" if isinstance(fields.name, UnsetType) else fields.name
        description = "" if isinstance(fields.description, UnsetType) else fields.description
        return partial(cloud.security_groups.create_group, req.ctx, owner_of(fields), name, description)

    return await create(req, "security_group", body, order, group_view)


@api.route("PUT", "/security-groups/{group_id}", body_key="security_group")
async def update_group(cloud: Cloud, req: Request, group_id: Uuid, body: GroupFields) -> Reply:
    """Change a group."""
    _check_stateful(body)
    values = given(body, {"name": "name", "description": "description"})
    return Reply({"security_group": group_view(await cloud.security_groups.update_group(req.ctx, group_id, values))})


@api.route("DELETE", "/security-groups/{group_id}", status=204)
async def delete_group(cloud: Cloud, req: Request, group_id: Uuid) -> Reply:
    """Remove a group that no port is in."""
    await cloud.security_groups.delete_group(req.ctx, group_id)
    return Reply()


# ---- rules --------------------------------------------------------------------------------------------------


class RuleFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """A rule, as it is asked for."""

    security_group_id: Uuid
    direction: Literal["ingress", "egress"]
    ethertype: str | None = None
    protocol: str | int | None = None
    port_range_min: Annotated[int, Meta(ge=0, le=65535)] | None = None
    port_range_max: Annotated[int, Meta(ge=0, le=65535)] | None = None
    remote_ip_prefix: Annotated[str, Meta(max_length=64)] | None = None
    remote_group_id: Uuid | None = None
    remote_address_group_id: None = None
    description: Text | None = None
    project_id: Project | UnsetType = UNSET
    tenant_id: Project | UnsetType = UNSET


class RuleBody(Struct, kw_only=True):
    """Body of ``POST /security-group-rules``."""

    security_group_rule: RuleFields | UnsetType = UNSET
    security_group_rules: Annotated[list[RuleFields], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


def rule_view(rule: SecurityGroupRule) -> dict[str, Any]:
    """A rule as clients see it."""
    return {
        "id": rule.id,
        "security_group_id": rule.group_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_cidr,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": None,
        "description": rule.description,
        "project_id": rule.project_id,
        "tenant_id": rule.project_id,
        "tags": [],
        "revision_number": 0,
        "created_at": stamp(rule.created_at),
        "updated_at": stamp(rule.created_at),
    }


_ETHERTYPES = {"ipv4": "IPv4", "ipv6": "IPv6"}
_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp"}
_NAMED = {"icmp": "icmp", "tcp": "tcp", "udp": "udp", "icmpv6": "ipv6-icmp", "ipv6-icmp": "ipv6-icmp"} | {
    "ah": "51", "dccp": "33", "esp": "50", "gre": "47", "igmp": "2", "ospf": "89", "pgm": "113", "rsvp": "46",
    "sctp": "132", "udplite": "136", "vrrp": "112", "ipip": "4",
}  # fmt: skip


def _protocol(given: str | int | None) -> str | None:
    """The form that is kept: one of four names, or a number as text; None is any."""
    if given is None:
        return None
    text = str(given).strip().lower()
    if text in ("any", "0"):
        return None
    if text in _NAMED:
        return _NAMED[text]
    if text.isascii() and text.isdigit() and int(text) <= 255:
        return _NUMBERS.get(str(int(text)), str(int(text)))
    raise BadRequest(f"Invalid input for protocol. Reason: '{text[:40]}' is neither a known name nor 0 to 255.")


def _prefix(text: str | None, ethertype: str) -> str | None:
    if text is None:
        return None
    try:
        if not text.isascii():
            raise ValueError
        network = IPv4Network(text, strict=False) if ethertype == "IPv4" else IPv6Network(text, strict=False)
    except ValueError:
        raise BadRequest(
            f"Invalid input for remote_ip_prefix. Reason: '{text}' is not an {ethertype} prefix."
        ) from None
    # All of them is any.
    return str(network) if network.prefixlen else None


def _check_ports(protocol: str | None, low: int | None, high: int | None) -> None:
    if protocol in ("icmp", "ipv6-icmp"):
        if high is not None and low is None:
            raise BadRequest("ICMP code (port-range-max) is provided but ICMP type (port-range-min) is missing.")
        if any(number is not None and number > 255 for number in (low, high)):
            raise BadRequest("Invalid value for ICMP: a type or a code is between 0 and 255.")
    elif low is not None or high is not None:
        if protocol not in ("tcp", "udp"):
            raise BadRequest("Must also specify protocol if port range is given: tcp, udp or icmp.")
        if low is None or high is None or not 1 <= low <= high:
            raise BadRequest("For TCP/UDP protocols, port_range_min must be >= 1 and <= port_range_max.")


def _rule_values(fields: RuleFields) -> dict[str, Any]:
    ethertype = _ETHERTYPES.get((fields.ethertype or "IPv4").lower())
    if ethertype is None:
        raise BadRequest("Invalid input for ethertype. Reason: it is IPv4 or IPv6.")
    if fields.remote_ip_prefix is not None and fields.remote_group_id is not None:
        raise BadRequest("Only remote_ip_prefix or remote_group_id may be provided.")
    protocol = _protocol(fields.protocol)
    _check_ports(protocol, fields.port_range_min, fields.port_range_max)
    return {
        "direction": fields.direction,
        "ethertype": ethertype,
        "protocol": protocol,
        "port_min": fields.port_range_min,
        "port_max": fields.port_range_max,
        "remote_cidr": _prefix(fields.remote_ip_prefix, ethertype),
        "remote_group_id": fields.remote_group_id,
        "description": fields.description or "",
    }


@api.route("GET", "/security-group-rules")
async def list_rules(cloud: Cloud, req: Request) -> Reply:
    """Rules of the caller's project; an administrator sees all."""
    found = await cloud.security_groups.rules(req.ctx)
    return listed(req, "security_group_rules", [rule_view(rule) for rule in found])


@api.route("GET", "/security-group-rules/{rule_id}")
async def show_rule(cloud: Cloud, req: Request, rule_id: Uuid) -> Reply:
    """One rule."""
    return Reply({"security_group_rule": rule_view(await cloud.security_groups.rule(req.ctx, rule_id))})


@api.route("POST", "/security-group-rules", status=201, once=True)
async def create_rule(cloud: Cloud, req: Request, body: RuleBody) -> Reply:
    """New rules."""

    def order(fields: RuleFields) -> Callable[[], Awaitable[SecurityGroupRule]]:
        values = _rule_values(fields)
        return partial(cloud.security_groups.create_rule, req.ctx, fields.security_group_id, values)

    return await create(req, "security_group_rule", body, order, rule_view)


@api.route("DELETE", "/security-group-rules/{rule_id}", status=204)
async def delete_rule(cloud: Cloud, req: Request, rule_id: Uuid) -> Reply:
    """Remove a rule."""
    await cloud.security_groups.delete_rule(req.ctx, rule_id)
    return Reply()
