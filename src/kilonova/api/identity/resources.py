"""Domains, projects, users, groups and roles of Identity v3: five routes each, and a user's password."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.identity.tokens import api
from kilonova.cloud.cloud import Cloud
from kilonova.identity.passwords import MAX_LENGTH
from kilonova.model.errors import BadRequest

Name = Annotated[str, Meta(min_length=1, max_length=64)]
UserName = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]
Text = Annotated[str, Meta(max_length=4096)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
Nothing = Annotated[dict[str, Any], Meta(max_length=0)]
"""``options`` and the like, which clients send empty; none is known."""


class DomainBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A domain."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    options: Nothing | UnsetType = UNSET


class ProjectBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A project. All are children of their domain."""

    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    parent_id: Id | UnsetType | None = UNSET
    is_domain: Literal[False] | UnsetType = UNSET
    tags: Annotated[list[str], Meta(max_length=0)] | UnsetType = UNSET
    options: Nothing | UnsetType = UNSET


class UserBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A user."""

    name: UserName | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    password: Password | UnsetType | None = UNSET
    email: UserName | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    options: Nothing | UnsetType = UNSET


class GroupBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A group of users."""

    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET


class RoleBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A role. All are for every domain."""

    name: UserName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    domain_id: UnsetType | None = UNSET
    options: Nothing | UnsetType = UNSET


class ThingQuery(Struct, kw_only=True):
    """Query of the lists."""

    name: str | None = None
    domain_id: str | None = None
    enabled: str | None = None
    limit: str | None = None
    marker: str | None = None

    def where(self, kind: str) -> dict[str, Any]:
        """The columns that it asks for, as far as a `kind` has them."""
        where: dict[str, Any] = {} if self.name is None else {"name": self.name}
        if self.domain_id is not None and kind in _IN_DOMAINS:
            where["domain_id"] = self.domain_id
        if self.enabled is not None and kind in _ENABLED:
            where["enabled"] = is_true(self.enabled)
        return where


_IN_DOMAINS = frozenset({"project", "user", "group"})
_ENABLED = frozenset({"domain", "project", "user"})
_TEXT_NEEDED = frozenset({"domain", "project", "group"})
_NOT_KEPT = frozenset({"options", "tags", "is_domain", "parent_id"})


def is_true(text: str | None) -> bool:
    """A flag of a query: there, and not said to be false. ``?effective`` alone is true."""
    return text is not None and text.lower() not in ("false", "0")


def _given(kind: str, body: Struct) -> dict[str, Any]:
    """The columns that a body sets."""
    given = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}
    parent, domain = given.get("parent_id"), given.get("domain_id")
    if parent is not None and parent != (domain or parent):
        raise BadRequest("Invalid input for field/attribute parent_id: projects have no parent but their domain.")
    values = {name: value for name, value in given.items() if name not in _NOT_KEPT}
    if values.get("description", "") is None and kind in _TEXT_NEEDED:
        values["description"] = ""
    return values


def _new(kind: str, body: Struct, req: Request) -> dict[str, Any]:
    """All columns of a new one."""
    given = _given(kind, body)
    if "name" not in given:
        raise BadRequest("Invalid input for field/attribute name: 'name' is a required property.")
    values: dict[str, Any] = {"enabled": True} if kind in _ENABLED else {}
    if kind in _TEXT_NEEDED:
        values["description"] = ""
    if kind not in _IN_DOMAINS:
        given.pop("domain_id", None)
    elif given.get("domain_id") is None:
        # Where one has logged in to a domain, one makes things in it.
        given["domain_id"] = getattr(body, "parent_id", None) or req.ctx.domain_id or "default"
    return values | given


def _changed(kind: str, body: Struct, now: dict[str, Any]) -> dict[str, Any]:
    """The columns that change: nothing moves to another domain."""
    values = _given(kind, body)
    domain_id = values.pop("domain_id", None)
    if domain_id is not None and domain_id != now.get("domain_id"):
        raise BadRequest("Invalid input for field/attribute domain_id: it cannot be changed.")
    return values


_HIDDEN = frozenset({"password_hash", "tokens_since"})


def view(kind: str, row: dict[str, Any], req: Request) -> dict[str, Any]:
    """A domain, project, user, group or role as it is shown."""
    shown = {key: value for key, value in row.items() if key not in _HIDDEN}
    shown["links"] = {"self": req.url(f"{kind}s", row["id"])}
    if kind == "user":
        shown["password_expires_at"] = None
        shown["options"] = {}
    elif kind == "project":
        shown |= {"parent_id": row["domain_id"], "is_domain": False, "tags": [], "options": {}}
    elif kind == "role":
        shown |= {"domain_id": None, "options": {}}
    elif kind == "domain":
        shown |= {"tags": [], "options": {}}
    return shown


def views(kind: str, rows: Sequence[dict[str, Any]], req: Request, *, page: int | None = None) -> Reply:
    """A list of them.

    Args:
        page: how many were asked for: if there are so many, there may be more.
    """
    links: dict[str, str | None] = {"self": f"{req.base_url}{req.path}", "previous": None, "next": None}
    if page is not None and (more := next_links(req, page, [row["id"] for row in rows])):
        links["next"] = more[0]["href"]
    return Reply({f"{kind}s": [view(kind, row, req) for row in rows], "links": links})


def _crud(kind: str, body_type: type[Struct]) -> None:
    """The five routes of one kind of thing."""

    async def list_things(cloud: Cloud, req: Request, query: ThingQuery) -> Reply:
        page = None if query.limit is None else page_size(query.limit)
        found = await cloud.accounts.find(req.ctx, kind, query.where(kind), limit=page, marker=query.marker)
        return views(kind, found, req, page=page)

    async def show_thing(cloud: Cloud, req: Request, thing_id: str) -> Reply:
        return Reply({kind: view(kind, await cloud.accounts.get(req.ctx, kind, thing_id), req)})

    async def create_thing(cloud: Cloud, req: Request, body: Any) -> Reply:
        made = await cloud.accounts.create(req.ctx, kind, _new(kind, body, req))
        return Reply({kind: view(kind, made, req)})

    async def update_thing(cloud: Cloud, req: Request, thing_id: str, body: Any) -> Reply:
        now = await cloud.accounts.get(req.ctx, kind, thing_id)
        changed = await cloud.accounts.update(req.ctx, kind, thing_id, _changed(kind, body, now))
        return Reply({kind: view(kind, changed, req)})

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


_crud("domain", DomainBody)
_crud("project", ProjectBody)
_crud("user", UserBody)
_crud("group", GroupBody)
_crud("role", RoleBody)


class PasswordChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """``user`` in the body of ``POST /users/{id}/password``."""

    original_password: Password
    password: Password


@api.route("POST", "/users/{user_id}/password", body_key="user", status=204)
async def change_password(cloud: Cloud, req: Request, user_id: str, body: PasswordChange) -> Reply:
    """A user's own password."""
    await cloud.accounts.change_password(req.ctx, user_id, body.original_password, body.password)
    return Reply()
