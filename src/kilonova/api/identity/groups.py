"""Members of groups."""

from kilonova.api.http.routing import Reply, Request
from kilonova.api.identity.resources import ThingQuery, views
from kilonova.api.identity.tokens import api
from kilonova.cloud.cloud import Cloud


@api.route("GET", "/groups/{group_id}/users")
async def list_members(cloud: Cloud, req: Request, group_id: str, query: ThingQuery) -> Reply:
    """The users of a group."""
    return views("user", await cloud.accounts.members(req.ctx, group_id, query.where("user")), req)


@api.route("GET", "/users/{user_id}/groups")
async def list_groups_of_user(cloud: Cloud, req: Request, user_id: str, query: ThingQuery) -> Reply:
    """The groups of a user."""
    return views("group", await cloud.accounts.groups_of(req.ctx, user_id, query.where("group")), req)


@api.route("PUT", "/groups/{group_id}/users/{user_id}", status=204)
async def add_member(cloud: Cloud, req: Request, group_id: str, user_id: str) -> Reply:
    """A user becomes a member."""
    await cloud.accounts.add_member(req.ctx, group_id, user_id)
    return Reply()


@api.route("HEAD", "/groups/{group_id}/users/{user_id}", status=204)
async def check_member(cloud: Cloud, req: Request, group_id: str, user_id: str) -> Reply:
    """Whether a user is a member."""
    await cloud.accounts.check_member(req.ctx, group_id, user_id)
    return Reply()


@api.route("DELETE", "/groups/{group_id}/users/{user_id}", status=204)
async def remove_member(cloud: Cloud, req: Request, group_id: str, user_id: str) -> Reply:
    """And is one no more."""
    await cloud.accounts.remove_member(req.ctx, group_id, user_id)
    return Reply()
