"""What clients of Network v2.0 look at besides: a project's limits, and what this cloud has none of."""

from collections.abc import Callable
from typing import Any

from kilonova.api.http.routing import Reply, Request
from kilonova.api.network.api import api
from kilonova.cloud.cloud import Cloud

QUOTAS = ("network", "subnet", "port", "security_group", "security_group_rule")


@api.route("GET", "/quotas/{project_id}")
async def show_quota(cloud: Cloud, req: Request, project_id: str) -> Reply:
    """A project's limits."""
    if project_id != req.ctx.project_id:
        cloud.parts.policy.authorize(req.ctx, "create_network:shared", {"project_id": project_id})
    quota = await cloud.hosts.quota(project_id)
    return Reply({"quota": {name: quota[name][0] for name in QUOTAS if name in quota}})


def _empty(name: str) -> Callable[..., Any]:
    async def nothing(cloud: Cloud, req: Request) -> Reply:
        return Reply({name.replace("-", "_"): []})

    nothing.__doc__ = f"This cloud has no {name} yet; clients ask all the same."
    return nothing


for _name in ("floatingips", "routers"):
    api.route("GET", f"/{_name}")(_empty(_name))
