"""``/os-server-groups`` of the Compute API v2.1."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import Name, boolean, whole
from kilonova.api.http.microversions import Version
from kilonova.api.http.paging import page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Since, Until
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest
from kilonova.model.server_group import ANTI_AFFINITY, POLICIES

ONE_POLICY = Version(2, 64)
SOFT_POLICIES = Version(2, 15)


class Rules(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of ``anti-affinity``: how many members one host may have."""

    max_server_per_host: Annotated[int, Meta(ge=1, le=2**31 - 1)] | Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}$")]


class GroupCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /os-server-groups``. Until 2.63 the policy stands in a list of one."""

    name: Name
    policies: Annotated[list[str] | UnsetType, Until("2.63")] = UNSET
    policy: Annotated[str | UnsetType, Since("2.64")] = UNSET
    rules: Annotated[Rules | UnsetType, Since("2.64")] = UNSET


class GroupQuery(Struct, kw_only=True):
    """Query of ``GET /os-server-groups``."""

    all_projects: str | None = None
    limit: str | None = None
    offset: str | None = None


GROUP = View(
    Field("id", lambda g: g.id),
    Field("name", lambda g: g.name),
    Field("policies", lambda g: [g.policy], until="2.63"),
    Field("policy", lambda g: g.policy, since="2.64"),
    Field("rules", lambda g: _rules(g.policy, g.max_server_per_host), since="2.64"),
    Field("members", lambda g: list(g.members)),
    Field("metadata", lambda g: {}, until="2.63"),
    Field("project_id", lambda g: g.project_id, since="2.13"),
    Field("user_id", lambda g: g.user_id, since="2.13"),
)


def _rules(policy: str, max_server_per_host: int) -> dict[str, Any]:
    return {"max_server_per_host": max_server_per_host} if policy == ANTI_AFFINITY else {}


@api.route("GET", "/os-server-groups", policy="os_compute_api:os-server-groups:index")
async def list_groups(cloud: Cloud, req: Request, query: GroupQuery) -> Reply:
    """Groups of the project; ``all_projects`` for administrators."""
    everywhere = query.all_projects is not None and (
        query.all_projects == "" or bool(boolean("all_projects", query.all_projects))
    )
    found = await cloud.server_groups.page(
        req.ctx, all_projects=everywhere, limit=page_size(query.limit), offset=whole("offset", query.offset)
    )
    return Reply({"server_groups": [GROUP.render(group, req.microversion) for group in found]})


@api.route("POST", "/os-server-groups", policy="os_compute_api:os-server-groups:create", body_key="server_group")
async def create_group(cloud: Cloud, req: Request, body: GroupCreate) -> Reply:
    """A new group."""
    policy = _policy(body, req.microversion)
    most = 1
    if not isinstance(body.rules, UnsetType):
        if policy != ANTI_AFFINITY:
            raise BadRequest("Only anti-affinity policy supports rules.")
        most = int(body.rules.max_server_per_host)
    group = await cloud.server_groups.create(req.ctx, body.name, policy, most)
    return Reply({"server_group": GROUP.render(group, req.microversion)})


def _policy(body: GroupCreate, microversion: Version) -> str:
    if microversion >= ONE_POLICY:
        field, given = "policy", [] if isinstance(body.policy, UnsetType) else [body.policy]
    else:
        field, given = "policies", [] if isinstance(body.policies, UnsetType) else body.policies
    known = POLICIES if microversion >= SOFT_POLICIES else POLICIES[:2]
    if len(given) != 1 or given[0] not in known:
        raise BadRequest(f"Invalid input for field/attribute {field}: give one of {', '.join(known)}.")
    return given[0]


@api.route("GET", "/os-server-groups/{group_id}", policy="os_compute_api:os-server-groups:show")
async def show_group(cloud: Cloud, req: Request, group_id: str) -> Reply:
    """One group."""
    return Reply({"server_group": GROUP.render(await cloud.server_groups.get(req.ctx, group_id), req.microversion)})


@api.route("DELETE", "/os-server-groups/{group_id}", policy="os_compute_api:os-server-groups:delete", status=204)
async def delete_group(cloud: Cloud, req: Request, group_id: str) -> Reply:
    """Remove a group; its servers stay."""
    await cloud.server_groups.delete(req.ctx, group_id)
    return Reply()
