"""Application credentials of a user."""

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from kilonova.api.http.routing import Reply, Request
from kilonova.api.identity.resources import Id, Text, UserName
from kilonova.api.identity.tokens import api
from kilonova.cloud.application_credentials import NewCredential
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest


class RoleRef(Struct, kw_only=True):
    """A role by id or name."""

    id: Id | None = None
    name: UserName | None = None


class CredentialBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """``application_credential`` in the body."""

    name: UserName
    description: Text | None = None
    secret: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    roles: Annotated[list[RoleRef], Meta(max_length=64)] = []
    unrestricted: bool | None = False
    expires_at: Annotated[str, Meta(max_length=64)] | None = None
    project_id: Id | None = None
    access_rules: Annotated[list[Any], Meta(max_length=0)] | None = None


def _view(row: dict[str, Any], req: Request) -> dict[str, Any]:
    view = {key: value for key, value in row.items() if key != "secret_hash"}
    view["roles"] = [{"name": name} for name in row["roles"]]
    view["expires_at"] = row["expires_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") if row["expires_at"] else None
    view["links"] = {"self": req.url("users", row["user_id"], "application_credentials", row["id"])}
    return view


def _time(text: str) -> datetime:
    """A time; without a zone it is in UTC."""
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest("Invalid input for field/attribute expires_at: it is not an ISO 8601 time.") from None


class CredentialQuery(Struct, kw_only=True):
    """Query of the list."""

    name: str | None = None


@api.route("GET", "/users/{user_id}/application_credentials")
async def list_credentials(cloud: Cloud, req: Request, user_id: str, query: CredentialQuery) -> Reply:
    """A user's application credentials."""
    found = await cloud.application_credentials.find(req.ctx, user_id, query.name)
    links = {"self": f"{req.base_url}{req.path}", "next": None, "previous": None}
    return Reply({"application_credentials": [_view(row, req) for row in found], "links": links})


@api.route("POST", "/users/{user_id}/application_credentials", body_key="application_credential", status=201)
async def create_credential(cloud: Cloud, req: Request, user_id: str, body: CredentialBody) -> Reply:
    """A new one; its secret is shown only now."""
    if any(role.name is None and role.id is None for role in body.roles):
        raise BadRequest("Invalid input for field/attribute roles: give each an id or a name.")
    if body.project_id not in (None, req.ctx.project_id):
        raise BadRequest("Invalid input for field/attribute project_id: it is another than that of the token.")
    new = NewCredential(
        name=body.name,
        secret=body.secret,
        description=body.description,
        roles=tuple((role.id, role.name) for role in body.roles),
        unrestricted=bool(body.unrestricted),
        expires_at=None if body.expires_at is None else _time(body.expires_at),
    )
    row, secret = await cloud.application_credentials.create(req.ctx, user_id, new)
    return Reply({"application_credential": {**_view(row, req), "secret": secret}})


@api.route("GET", "/users/{user_id}/application_credentials/{credential_id}")
async def show_credential(cloud: Cloud, req: Request, user_id: str, credential_id: str) -> Reply:
    """One of them."""
    row = await cloud.application_credentials.get(req.ctx, user_id, credential_id)
    return Reply({"application_credential": _view(row, req)})


@api.route("DELETE", "/users/{user_id}/application_credentials/{credential_id}", status=204)
async def delete_credential(cloud: Cloud, req: Request, user_id: str, credential_id: str) -> Reply:
    """Remove one."""
    await cloud.application_credentials.delete(req.ctx, user_id, credential_id)
    return Reply()
