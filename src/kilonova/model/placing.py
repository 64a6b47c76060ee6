"""From what was asked for a server to what the scheduler is asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from kilonova.model.flavor import Flavor
from kilonova.model.request_spec import RequestSpec, ServerGroup
from kilonova.model.server import Server, ServerOrder

MAX_NAMED = 200
"""Servers that hints may name: bounds the length of a query."""


def named_by_hints(hints: Mapping[str, Any]) -> list[str]:
    """The servers that ``same_host`` and ``different_host`` name: each a server's id or a list of them."""
    named: list[str] = []
    for hint in ("same_host", "different_host"):
        value = hints.get(hint, ())
        named += [str(one) for one in ([value] if isinstance(value, str) else value)]
    return named[:MAX_NAMED]


def request_spec(
    server_ids: Sequence[str],
    *,
    project_id: str,
    user_id: str,
    flavor: Flavor,
    image_id: str,
    order: ServerOrder,
    excluded: Sequence[str] = (),
    group: ServerGroup | None = None,
    hosts_of_servers: Mapping[str, str] | None = None,
) -> RequestSpec:
    """What the scheduler needs to know of servers.

    Args:
        excluded: hosts on which their build failed before.
        hosts_of_servers: where the servers are that hints name.
    """
    return RequestSpec(
        server_ids=tuple(server_ids),
        project_id=project_id,
        user_id=user_id,
        flavor_name=flavor.name,
        flavor_id=flavor.id,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        root_gib=flavor.root_gib,
        ephemeral_gib=flavor.ephemeral_gib,
        swap_mib=flavor.swap_mib,
        extra_specs=flavor.extra_specs,
        image_id=image_id,
        image_properties=order.image_properties,
        availability_zone=order.availability_zone,
        force_host=order.force_host,
        requested_host=order.requested_host,
        scheduler_hints=order.scheduler_hints,
        excluded_hosts=tuple(excluded),
        group=group,
        hosts_of_servers=dict(hosts_of_servers or {}),
    )


def spec_of_server(
    server: Server,
    *,
    excluded: Sequence[str] = (),
    group: ServerGroup | None = None,
    hosts_of_servers: Mapping[str, str] | None = None,
) -> RequestSpec:
    """What `server` asks for: by itself, or with what `request_spec` takes besides."""
    return request_spec(
        [server.id],
        project_id=server.project_id,
        user_id=server.user_id,
        flavor=server.flavor,
        image_id=server.image_id,
        order=server.order,
        excluded=excluded,
        group=group,
        hosts_of_servers=hosts_of_servers,
    )
