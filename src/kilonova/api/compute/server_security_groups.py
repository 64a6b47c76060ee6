"""A server's security groups in the Compute API v2.1: two actions, and ``/servers/{id}/os-security-groups``.

The Network API does the same port by port; here all ports of a server are meant.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from kilonova.api.compute.api import api
from kilonova.api.http.routing import Reply, Request
from kilonova.cloud.cloud import Cloud
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule


class GroupReference(Struct):
    """``{"addSecurityGroup": {"name": "web"}}``, and so for ``removeSecurityGroup``: a name or an id.

    As in Nova, keys besides are no error.
    """

    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\S")]


async def add_group(cloud: Cloud, req: Request, server_id: str, group: GroupReference) -> Reply:
    """Put a server into a group; into one that it is in already, too."""
    await cloud.security_groups.add_to_server(req.ctx, server_id, group.name)
    return Reply(status=202)


async def remove_group(cloud: Cloud, req: Request, server_id: str, group: GroupReference) -> Reply:
    """Take a server out of a group."""
    await cloud.security_groups.remove_from_server(req.ctx, server_id, group.name)
    return Reply(status=202)


@api.route("GET", "/servers/{server_id}/os-security-groups", policy="os_compute_api:os-security-groups:list")
async def list_groups(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """The groups of a server, with the rules of what comes in."""
    found, named = await cloud.security_groups.of_server(req.ctx, server_id)
    return Reply({"security_groups": [group_view(group, named) for group in found]})


def group_view(group: SecurityGroup, named: dict[str, SecurityGroup]) -> dict[str, Any]:
    """A group as this API shows it; `named` are the groups that rules name, by id."""
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": [_rule(rule, named) for rule in group.rules if rule.direction == "ingress"],
    }


_ALL_PORTS = {"tcp": (1, 65535), "udp": (1, 65535)}


def _rule(rule: SecurityGroupRule, named: dict[str, SecurityGroup]) -> dict[str, Any]:
    """A rule in the form that this API had before the Network API was there: -1 is any type of ICMP."""
    low, high = rule.port_min, rule.port_max
    if rule.protocol is not None and low is None and high is None:
        low, high = _ALL_PORTS.get(rule.protocol, (-1, -1))
    remote = named.get(rule.remote_group_id or "")
    anywhere = "::/0" if rule.ethertype == "IPv6" else "0.0.0.0/0"
    return {
        "id": rule.id,
        "parent_group_id": rule.group_id,
        "ip_protocol": rule.protocol,
        "from_port": low,
        "to_port": high,
        "group": {} if remote is None else {"name": remote.name, "tenant_id": remote.project_id},
        "ip_range": {} if rule.remote_group_id else {"cidr": rule.remote_cidr or anywhere},
    }
