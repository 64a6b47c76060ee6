"""``/os-aggregates`` of the Compute API v2.1."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import Name, timestamp_us
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.model.aggregate import Aggregate
from kilonova.model.errors import BadRequest, NotFound

Zone = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^(?!\s)[^:\x00-\x1f\x7f]*(?<!\s)$")]
HostName = Annotated[str, Meta(min_length=1, max_length=255)]


class AggregateCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /os-aggregates``."""

    name: Name
    availability_zone: Zone | None = None


class AggregateUpdate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``PUT /os-aggregates/{id}``."""

    name: Name | UnsetType = UNSET
    availability_zone: Zone | UnsetType | None = UNSET


class HostOf(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of ``add_host`` and ``remove_host``."""

    host: HostName


class MetadataOf(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of ``set_metadata``: null removes a key."""

    metadata: dict[Annotated[str, Meta(min_length=1, max_length=255)], Annotated[str, Meta(max_length=255)] | None]


class AggregateAction(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /os-aggregates/{id}/action``: one of them."""

    add_host: HostOf | UnsetType = UNSET
    remove_host: HostOf | UnsetType = UNSET
    set_metadata: MetadataOf | UnsetType = UNSET


MADE = View(
    Field("id", lambda a: a.id),
    Field("uuid", lambda a: a.uuid, since="2.41"),
    Field("name", lambda a: a.name),
    Field("availability_zone", lambda a: a.availability_zone),
    Field("created_at", lambda a: timestamp_us(a.created_at)),
    Field("updated_at", lambda a: timestamp_us(a.updated_at)),
    Field("deleted", lambda a: False),
    Field("deleted_at", lambda a: None),
)
"""What a create answers: an aggregate without hosts and metadata."""

AGGREGATE = View(
    *MADE.fields,
    Field("hosts", lambda a: list(a.hosts)),
    Field("metadata", lambda a: a.metadata),
)


def _id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotFound(kind="Aggregate", id=text)
    return int(text)


def _reply(req: Request, aggregate: Aggregate) -> Reply:
    return Reply({"aggregate": AGGREGATE.render(aggregate, req.microversion)})


@api.route("GET", "/os-aggregates", policy="os_compute_api:os-aggregates:index")
async def list_aggregates(cloud: Cloud, req: Request) -> Reply:
    """Every aggregate with its hosts."""
    return Reply({"aggregates": [AGGREGATE.render(one, req.microversion) for one in await cloud.aggregates.all()]})


@api.route("POST", "/os-aggregates", policy="os_compute_api:os-aggregates:create", body_key="aggregate")
async def create_aggregate(cloud: Cloud, req: Request, body: AggregateCreate) -> Reply:
    """A new aggregate."""
    made = await cloud.aggregates.create(body.name, body.availability_zone)
    return Reply({"aggregate": MADE.render(made, req.microversion)})


@api.route("GET", "/os-aggregates/{aggregate_id}", policy="os_compute_api:os-aggregates:show")
async def show_aggregate(cloud: Cloud, req: Request, aggregate_id: str) -> Reply:
    """One aggregate."""
    return _reply(req, await cloud.aggregates.get(_id(aggregate_id)))


@api.route("PUT", "/os-aggregates/{aggregate_id}", policy="os_compute_api:os-aggregates:update", body_key="aggregate")
async def update_aggregate(cloud: Cloud, req: Request, aggregate_id: str, body: AggregateUpdate) -> Reply:
    """Change its name or its zone."""
    name = None if isinstance(body.name, UnsetType) else body.name
    zone = None if isinstance(body.availability_zone, UnsetType) else body.availability_zone
    if name is None and zone is None:
        raise BadRequest("Invalid input for aggregate: give name or availability_zone.")
    return _reply(req, await cloud.aggregates.update(_id(aggregate_id), name, zone))


@api.route("DELETE", "/os-aggregates/{aggregate_id}", policy="os_compute_api:os-aggregates:delete")
async def delete_aggregate(cloud: Cloud, req: Request, aggregate_id: str) -> Reply:
    """Remove one that has no hosts."""
    await cloud.aggregates.delete(_id(aggregate_id))
    return Reply()


@api.route("POST", "/os-aggregates/{aggregate_id}/action")
async def act_on_aggregate(cloud: Cloud, req: Request, aggregate_id: str, body: AggregateAction) -> Reply:
    """Put a host in, take one out, or set metadata."""
    given: dict[str, Any] = {
        name: value
        for name in ("add_host", "remove_host", "set_metadata")
        if not isinstance(value := getattr(body, name), UnsetType)
    }
    if len(given) != 1:
        raise BadRequest("Give one action: add_host, remove_host or set_metadata.")
    [(action, what)] = given.items()
    cloud.parts.policy.authorize(req.ctx, f"os_compute_api:os-aggregates:{action}")
    key = _id(aggregate_id)
    if action == "set_metadata":
        return _reply(req, await cloud.aggregates.set_metadata(key, what.metadata))
    change = cloud.aggregates.add_host if action == "add_host" else cloud.aggregates.remove_host
    return _reply(req, await change(key, what.host))
