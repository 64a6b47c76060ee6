"""The network agents of hosts, as Network v2.0 shows agents."""

from typing import Any

from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Uuid
from kilonova.api.network.api import api
from kilonova.api.network.collection import listed
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import NotFound
from kilonova.model.service import Service

_STAMP = "%Y-%m-%d %H:%M:%S"


def agent_view(service: Service) -> dict[str, Any]:
    """One host's network agent. It carries the host's bridges, its DHCP and its metadata."""
    seen = service.last_seen_at.strftime(_STAMP)
    return {
        "id": service.uuid,
        "agent_type": "Linux bridge agent",
        "binary": "kilonova-network",
        "topic": "network",
        "host": service.host,
        "admin_state_up": not service.disabled,
        "alive": service.is_up,
        "availability_zone": service.availability_zone,
        "description": None,
        "created_at": service.state_since.strftime(_STAMP),
        "started_at": service.state_since.strftime(_STAMP),
        "heartbeat_timestamp": seen,
        "configurations": {},
        "resources_synced": None,
    }


@api.route("GET", "/agents")
async def list_agents(cloud: Cloud, req: Request) -> Reply:
    """The network agents of all hosts, to administrators; to others none."""
    found = await cloud.hosts.services(service="network") if _sees(cloud, req) else []
    return listed(req, "agents", [agent_view(service) for service in found])


@api.route("GET", "/agents/{agent_id}")
async def show_agent(cloud: Cloud, req: Request, agent_id: Uuid) -> Reply:
    """One of them."""
    found = await cloud.hosts.services(service="network") if _sees(cloud, req) else []
    for service in found:
        if service.uuid == agent_id:
            return Reply({"agent": agent_view(service)})
    raise NotFound(kind="Agent", id=agent_id)


def _sees(cloud: Cloud, req: Request) -> bool:
    return cloud.parts.policy.allows(req.ctx, "get_agent")
