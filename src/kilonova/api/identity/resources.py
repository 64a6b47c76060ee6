"""Users, projects, domains, roles, assignments and application credentials of Identity v3."""

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.http.routing import Reply, Request
from kilonova.api.identity.tokens import api
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest, NotFound

Name = Annotated[str, Meta(min_length=1, max_length=64)]
UserName = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=4096)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]


class DomainBody(Struct, kw_only=True):
    """A domain."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class ProjectBody(Struct, kw_only=True):
    """A project."""

    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class UserBody(Struct, kw_only=True):
    """A user."""

    name: UserName | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    password: Password | UnsetType | None = UNSET
    email: UserName | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class RoleBody(Struct, kw_only=True):
    """A role."""

    name: UserName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class ThingQuery(Struct, kw_only=True):
    """Query of the lists."""

    name: str | None = None
    domain_id: str | None = None
    enabled: str | None = None


def _given(body: Struct, *, new: bool, in_domain: bool) -> dict[str, Any]:
    values = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}
    if new:
        if "name" not in values:
            raise BadRequest("Invalid input for field/attribute name: 'name' is a required property.")
        if in_domain:
            values.setdefault("domain_id", "default")
    else:
        values.pop("domain_id", None)
    if values.get("description", "") is None and not isinstance(body, (UserBody, RoleBody)):
        values["description"] = ""
    return values


_HIDDEN = frozenset({"password_hash", "tokens_since"})


def _view(kind: str, row: dict[str, Any], req: Request) -> dict[str, Any]:
    view = {key: value for key, value in row.items() if key not in _HIDDEN}
    view["links"] = {"self": req.url(f"{kind}s", row["id"])}
    if kind == "user":
        view["password_expires_at"] = None
        view["options"] = {}
    elif kind == "project":
        view |= {"parent_id": row["domain_id"], "is_domain": False, "tags": [], "options": {}}
    elif kind == "role":
        view |= {"domain_id": None, "options": {}}
    else:
        view |= {"tags": [], "options": {}}
    return view


def _crud(kind: str, body_type: type[Struct], *, in_domain: bool) -> None:
    """The five routes of one kind of thing."""

    async def list_things(cloud: Cloud, req: Request, query: ThingQuery) -> Reply:
        where: dict[str, Any] = {"name": query.name}
        if in_domain:
            where["domain_id"] = query.domain_id
        if query.enabled is not None and kind != "role":
            where["enabled"] = query.enabled.lower() not in ("false", "0")
        found = await cloud.accounts.find(req.ctx, kind, **where)
        return Reply({f"{kind}s": [_view(kind, row, req) for row in found], "links": {"self": req.url(f"{kind}s")}})

    async def show_thing(cloud: Cloud, req: Request, thing_id: str) -> Reply:
        return Reply({kind: _view(kind, await cloud.accounts.get(req.ctx, kind, thing_id), req)})

    async def create_thing(cloud: Cloud, req: Request, body: Any) -> Reply:
        made = await cloud.accounts.create(
            req.ctx, kind, _given(body, new=True, in_domain=in_domain) | _new(kind, body)
        )
        return Reply({kind: _view(kind, made, req)})

    async def update_thing(cloud: Cloud, req: Request, thing_id: str, body: Any) -> Reply:
        changed = await cloud.accounts.update(req.ctx, kind, thing_id, _given(body, new=False, in_domain=in_domain))
        return Reply({kind: _view(kind, changed, req)})

    async def delete_thing(cloud: Cloud, req: Request, thing_id: str) -> Reply:
        await cloud.accounts.delete(req.ctx, kind, thing_id)
        return Reply()

    for handler in (create_thing, update_thing):
        handler.__annotations__["body"] = body_type
    one = f"/{kind}s/{{thing_id}}"
    api.route("GET", f"/{kind}s")(list_things)
    api.route("GET", one)(show_thing)
    api.route("POST", f"/{kind}s", body_key=kind, status=201)(create_thing)
    api.route("PATCH", one, body_key=kind)(update_thing)
    api.route("DELETE", one, status=204)(delete_thing)


def _new(kind: str, body: Any) -> dict[str, Any]:
    """What a new one has where nothing was said."""
    values: dict[str, Any] = {}
    if kind != "role":
        values["enabled"] = True if body.enabled is UNSET else body.enabled
    if kind in ("domain", "project"):
        values["description"] = "" if body.description is UNSET else body.description or ""
    return values


_crud("domain", DomainBody, in_domain=False)
_crud("project", ProjectBody, in_domain=True)
_crud("user", UserBody, in_domain=True)
_crud("role", RoleBody, in_domain=False)


class PasswordChange(Struct, kw_only=True):
    """``user`` in the body of ``POST /users/{id}/password``."""

    original_password: Password
    password: Password


@api.route("POST", "/users/{user_id}/password", body_key="user", status=204)
async def change_password(cloud: Cloud, req: Request, user_id: str, body: PasswordChange) -> Reply:
    """A user's own password."""
    await cloud.accounts.change_password(req.ctx, user_id, body.original_password, body.password)
    return Reply()


@api.route("GET", "/users/{user_id}/projects")
async def list_user_projects(cloud: Cloud, req: Request, user_id: str) -> Reply:
    """Projects where a user has a role."""
    found = await cloud.accounts.projects_of(req.ctx, user_id)
    return Reply({"projects": [_view("project", row, req) for row in found], "links": {"self": req.url("projects")}})


@api.route("GET", "/auth/projects")
async def list_own_projects(cloud: Cloud, req: Request) -> Reply:
    """Projects where the caller has a role."""
    found = await cloud.accounts.projects_of(req.ctx, req.ctx.user_id)
    return Reply({"projects": [_view("project", row, req) for row in found], "links": {"self": req.url("auth")}})


# ---- roles on things ----------------------------------------------------------------------------------------


async def _grant(cloud: Cloud, req: Request, scope: str, scope_id: str, user_id: str, role_id: str) -> Reply:
    if req.method == "PUT":
        await cloud.accounts.grant(req.ctx, scope, scope_id, user_id, role_id)
    elif req.method == "DELETE":
        await cloud.accounts.ungrant(req.ctx, scope, scope_id, user_id, role_id)
    else:
        held = await cloud.accounts.grants(req.ctx, scope, scope_id, user_id)
        if role_id not in {role["id"] for role in held}:
            raise NotFound(kind="role assignment", id=role_id)
    return Reply()


async def grant_on_project(cloud: Cloud, req: Request, project_id: str, user_id: str, role_id: str) -> Reply:
    """A user's role on a project: give, check, take away."""
    return await _grant(cloud, req, "project", project_id, user_id, role_id)


async def grant_on_domain(cloud: Cloud, req: Request, domain_id: str, user_id: str, role_id: str) -> Reply:
    """A user's role on a domain."""
    return await _grant(cloud, req, "domain", domain_id, user_id, role_id)


async def grant_on_system(cloud: Cloud, req: Request, user_id: str, role_id: str) -> Reply:
    """A user's role on the whole system."""
    return await _grant(cloud, req, "system", "all", user_id, role_id)


for _method in ("PUT", "HEAD", "DELETE"):
    api.route(_method, "/projects/{project_id}/users/{user_id}/roles/{role_id}", status=204)(grant_on_project)
    api.route(_method, "/domains/{domain_id}/users/{user_id}/roles/{role_id}", status=204)(grant_on_domain)
    api.route(_method, "/system/users/{user_id}/roles/{role_id}", status=204)(grant_on_system)


@api.route("GET", "/projects/{project_id}/users/{user_id}/roles")
async def list_grants_on_project(cloud: Cloud, req: Request, project_id: str, user_id: str) -> Reply:
    """A user's roles on a project."""
    found = await cloud.accounts.grants(req.ctx, "project", project_id, user_id)
    return Reply({"roles": [_view("role", row, req) for row in found], "links": {"self": req.url("roles")}})


class AssignmentQuery(Struct, kw_only=True):
    """Query of ``GET /role_assignments``."""

    user: str | None = field(name="user.id", default=None)
    role: str | None = field(name="role.id", default=None)
    project: str | None = field(name="scope.project.id", default=None)
    domain: str | None = field(name="scope.domain.id", default=None)
    system: str | None = field(name="scope.system", default=None)
    effective: str | None = None
    include_names: str | None = None


@api.route("GET", "/role_assignments")
async def list_assignments(cloud: Cloud, req: Request, query: AssignmentQuery) -> Reply:
    """Who has which role where."""
    scope = "project" if query.project else "domain" if query.domain else "system" if query.system else None
    found = await cloud.accounts.assignments(
        req.ctx,
        effective=query.effective is not None and query.effective.lower() not in ("false", "0"),
        user_id=query.user,
        role_id=query.role,
        scope=scope,
        scope_id=query.project or query.domain or ("all" if query.system else None),
    )
    named = query.include_names is not None and query.include_names.lower() not in ("false", "0")
    views = [_assignment(row, req, named=named) for row in found]
    return Reply({"role_assignments": views, "links": {"self": req.url("role_assignments")}})


def _assignment(row: dict[str, Any], req: Request, *, named: bool) -> dict[str, Any]:
    def shown(id: str, thing: dict[str, Any] | None) -> dict[str, Any]:
        view: dict[str, Any] = {"id": id}
        if named and thing:
            view["name"] = thing["name"]
            domain = row["domains"].get(thing.get("domain_id"))
            if domain:
                view["domain"] = {"id": domain["id"], "name": domain["name"]}
        return view

    if row["scope"] == "system":
        scope: dict[str, Any] = {"system": {"all": True}}
    else:
        scope = {row["scope"]: shown(row["scope_id"], row["target"])}
    return {
        "user": shown(row["user_id"], row["user"]),
        "role": shown(row["role_id"], row["role"]),
        "scope": scope,
        "links": {"assignment": req.url("role_assignments")},
    }


# ---- application credentials --------------------------------------------------------------------------------


class RoleRef(Struct, kw_only=True):
    """A role by id or name."""

    id: str | None = None
    name: str | None = None


class CredentialBody(Struct, kw_only=True):
    """``application_credential`` in the body."""

    name: UserName
    description: Text | None = None
    secret: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    roles: list[RoleRef] = []
    unrestricted: bool = False
    expires_at: str | None = None


def _credential(row: dict[str, Any], req: Request) -> dict[str, Any]:
    view = {key: value for key, value in row.items() if key != "secret_hash"}
    view["roles"] = [{"name": name} for name in row["roles"]]
    view["expires_at"] = row["expires_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") if row["expires_at"] else None
    view["links"] = {"self": req.url("users", row["user_id"], "application_credentials", row["id"])}
    return view


@api.route("GET", "/users/{user_id}/application_credentials")
async def list_credentials(cloud: Cloud, req: Request, user_id: str) -> Reply:
    """A user's application credentials."""
    wanted = {name: value for name, value in req.params if name == "name"}
    found = await cloud.accounts.credentials(req.ctx, user_id, **wanted)
    return Reply({"application_credentials": [_credential(row, req) for row in found], "links": {}})


@api.route("POST", "/users/{user_id}/application_credentials", body_key="application_credential", status=201)
async def create_credential(cloud: Cloud, req: Request, user_id: str, body: CredentialBody) -> Reply:
    """A new one; its secret is shown only now."""
    expires = None
    if body.expires_at is not None:
        try:
            expires = datetime.fromisoformat(body.expires_at).replace(tzinfo=UTC)
        except ValueError:
            raise BadRequest("Invalid input for field/attribute expires_at: it is not an ISO 8601 time.") from None
    names = []
    for role in body.roles:
        if role.name is None and role.id is None:
            raise BadRequest("Invalid input for field/attribute roles: give each an id or a name.")
        names.append(role.name or (await cloud.accounts.get(req.ctx, "role", role.id or ""))["name"])
    row, secret = await cloud.accounts.create_credential(
        req.ctx,
        user_id,
        name=body.name,
        secret=body.secret,
        description=body.description,
        roles=names,
        unrestricted=body.unrestricted,
        expires_at=expires,
    )
    return Reply({"application_credential": {**_credential(row, req), "secret": secret}})


@api.route("GET", "/users/{user_id}/application_credentials/{credential_id}")
async def show_credential(cloud: Cloud, req: Request, user_id: str, credential_id: str) -> Reply:
    """One of them."""
    row = await cloud.accounts.credential(req.ctx, user_id, credential_id)
    return Reply({"application_credential": _credential(row, req)})


@api.route("DELETE", "/users/{user_id}/application_credentials/{credential_id}", status=204)
async def delete_credential(cloud: Cloud, req: Request, user_id: str, credential_id: str) -> Reply:
    """Remove one."""
    await cloud.accounts.delete_credential(req.ctx, user_id, credential_id)
    return Reply()
