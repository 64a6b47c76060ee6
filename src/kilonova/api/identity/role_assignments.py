"""Roles that users and groups have on projects, domains and the system; and where one can log in to."""

from typing import Any

from msgspec import Struct, field

from kilonova.api.http.routing import Reply, Request
from kilonova.api.identity.resources import is_true, view, views
from kilonova.api.identity.tokens import api
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.role_assignments import AssignmentFilter, Holder
from kilonova.identity.roles import IMPLIED
from kilonova.model.errors import BadRequest


async def _put(cloud: Cloud, req: Request, holder: Holder, role_id: str) -> None:
    await cloud.role_assignments.grant(req.ctx, holder, role_id)


async def _head(cloud: Cloud, req: Request, holder: Holder, role_id: str) -> None:
    await cloud.role_assignments.check(req.ctx, holder, role_id)


async def _delete(cloud: Cloud, req: Request, holder: Holder, role_id: str) -> None:
    await cloud.role_assignments.ungrant(req.ctx, holder, role_id)


_VERBS = {"PUT": _put, "HEAD": _head, "DELETE": _delete}


def _routes(scope: str, actor: str) -> None:
    """Give, check, take away, and list: the roles of one sort of actor on one sort of place."""

    async def change_role_on_place(cloud: Cloud, req: Request, place_id: str, actor_id: str, role_id: str) -> Reply:
        await _VERBS[req.method](cloud, req, Holder(actor, actor_id, scope, place_id), role_id)
        return Reply()

    async def list_roles_on_place(cloud: Cloud, req: Request, place_id: str, actor_id: str) -> Reply:
        holder = Holder(actor, actor_id, scope, place_id)
        return views("role", await cloud.role_assignments.roles_of(req.ctx, holder), req)

    async def change_role_on_system(cloud: Cloud, req: Request, actor_id: str, role_id: str) -> Reply:
        await _VERBS[req.method](cloud, req, Holder(actor, actor_id, "system", "all"), role_id)
        return Reply()

    async def list_roles_on_system(cloud: Cloud, req: Request, actor_id: str) -> Reply:
        return views(
            "role", await cloud.role_assignments.roles_of(req.ctx, Holder(actor, actor_id, "system", "all")), req
        )

    on_system = scope == "system"
    path = (
        f"/system/{actor}s/{{actor_id}}/roles" if on_system else f"/{scope}s/{{place_id}}/{actor}s/{{actor_id}}/roles"
    )
    api.route("GET", path)(list_roles_on_system if on_system else list_roles_on_place)
    for method in _VERBS:
        change = change_role_on_system if on_system else change_role_on_place
        api.route(method, f"{path}/{{role_id}}", status=204)(change)


for _scope in ("project", "domain", "system"):
    for _actor in ("user", "group"):
        _routes(_scope, _actor)


class AssignmentQuery(Struct, kw_only=True):
    """Query of ``GET /role_assignments``."""

    user: str | None = field(name="user.id", default=None)
    group: str | None = field(name="group.id", default=None)
    role: str | None = field(name="role.id", default=None)
    project: str | None = field(name="scope.project.id", default=None)
    domain: str | None = field(name="scope.domain.id", default=None)
    system: str | None = field(name="scope.system", default=None)
    inherited: str | None = field(name="scope.OS-INHERIT:inherited_to", default=None)
    effective: str | None = None
    include_names: str | None = None


@api.route("GET", "/role_assignments")
async def list_assignments(cloud: Cloud, req: Request, query: AssignmentQuery) -> Reply:
    """Who has which role where."""
    places = {"project": query.project, "domain": query.domain, "system": "all" if query.system else None}
    given = [(scope, place_id) for scope, place_id in places.items() if place_id is not None]
    if len(given) > 1:
        raise BadRequest("Invalid input for query parameters scope: ask for one project, one domain, or the system.")
    scope, scope_id = given[0] if given else (None, None)
    wanted = AssignmentFilter(
        user_id=query.user,
        group_id=query.group,
        role_id=query.role,
        scope=scope,
        scope_id=scope_id,
        effective=is_true(query.effective),
    )
    found = await cloud.role_assignments.find(req.ctx, wanted)
    # No role here goes on to the projects inside a domain or project.
    shown = [] if query.inherited else [_assignment(row, req, named=is_true(query.include_names)) for row in found]
    return Reply({"role_assignments": shown, "links": {"self": req.url("role_assignments"), "next": None}})


def _assignment(row: dict[str, Any], req: Request, *, named: bool) -> dict[str, Any]:
    def shown(id: str, thing: dict[str, Any] | None) -> dict[str, Any]:
        view: dict[str, Any] = {"id": id}
        if named and thing:
            view["name"] = thing["name"]
            domain = row["domains"].get(thing.get("domain_id"))
            if domain:
                view["domain"] = {"id": domain["id"], "name": domain["name"]}
        return view

    actor = "user" if "user_id" in row else "group"
    actor_id = row[f"{actor}_id"]
    on_system = row["scope"] == "system"
    scope = {"system": {"all": True}} if on_system else {row["scope"]: shown(row["scope_id"], row["target"])}
    place = ("system",) if on_system else (f"{row['scope']}s", row["scope_id"])
    through = row.get("through")
    given_to = ("groups", through) if through else (f"{actor}s", actor_id)
    links = {"assignment": req.url(*place, *given_to, "roles", row["role_id"])}
    if through:
        links["membership"] = req.url("groups", through, "users", actor_id)
    return {
        actor: shown(actor_id, row[actor]),
        "role": shown(row["role_id"], row["role"]),
        "scope": scope,
        "links": links,
    }


@api.route("GET", "/role_inferences")
async def list_inferences(cloud: Cloud, req: Request) -> Reply:
    """Which roles imply which."""
    roles = {role["name"]: role for role in await cloud.accounts.find(req.ctx, "role", {})}

    def short(name: str) -> dict[str, Any]:
        return {"id": roles[name]["id"], "name": name, "links": view("role", roles[name], req)["links"]}

    found = [
        {"prior_role": short(prior), "implies": [short(name) for name in implied if name in roles]}
        for prior, implied in IMPLIED.items()
        if prior in roles
    ]
    return Reply({"role_inferences": found, "links": {"self": req.url("role_inferences")}})


# ---- where one can log in to --------------------------------------------------------------------------------


@api.route("GET", "/users/{user_id}/projects")
async def list_user_projects(cloud: Cloud, req: Request, user_id: str) -> Reply:
    """Projects where a user has a role."""
    return views("project", await cloud.role_assignments.projects_of(req.ctx, user_id), req)


@api.route("GET", "/auth/projects")
async def list_own_projects(cloud: Cloud, req: Request) -> Reply:
    """Projects that the caller can log in to."""
    return views("project", await cloud.role_assignments.own_places(req.ctx, "project"), req)


@api.route("GET", "/auth/domains")
async def list_own_domains(cloud: Cloud, req: Request) -> Reply:
    """Domains that the caller can log in to."""
    return views("domain", await cloud.role_assignments.own_places(req.ctx, "domain"), req)


@api.route("GET", "/auth/system")
async def list_own_system(cloud: Cloud, req: Request) -> Reply:
    """Whether the caller can log in to the system."""
    there = [{"all": True}] if await cloud.role_assignments.has_system_role(req.ctx) else []
    return Reply({"system": there, "links": {"self": req.url("auth", "system")}})
