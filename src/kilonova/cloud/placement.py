"""Why servers are where they are, and where others would go: for administrators."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.placing import named_by_hints, request_spec
from kilonova.model.request_spec import RequestSpec, ServerGroup, WhatIf
from kilonova.model.server import Decision, ServerOrder
from kilonova.rpcapi.scheduler import SchedulerAPI
from kilonova.store.queries import decisions, flavors, groups, images, servers
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class Question:
    """Servers that are only thought of."""

    flavor_id: str
    image_id: str = ""
    availability_zone: str | None = None
    requested_host: str | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    project_id: str = ""
    """Whose servers they would be; the caller's, if empty."""
    most: int = 100


class Placement:
    """Use cases of placement."""

    def __init__(self, parts: Parts, scheduler: SchedulerAPI) -> None:
        self._store = parts.store
        self._scheduler = scheduler

    async def decisions(self, server_id: str) -> list[Decision]:
        """The scheduler's answers for one server, oldest first. Also of a deleted one, as long as they are kept.

        Raises:
            NotFound: no such server.
        """
        return await self._store.read(_decisions, server_id)

    async def what_if(self, ctx: RequestContext, question: Question) -> WhatIf:
        """Where such servers would go now, and how many would. Nothing is claimed.

        Raises:
            BadRequest: it names something that is not there.
            Unavailable: no scheduler answers.
        """
        spec = await self._store.read(_spec, ctx, question)
        return await self._scheduler.what_if(spec, most=question.most)


def _decisions(tx: Tx, server_id: str) -> list[Decision]:
    servers.get(tx, server_id, deleted=True)
    return decisions.of_server(tx, server_id)


def _spec(tx: Tx, ctx: RequestContext, question: Question) -> RequestSpec:
    project_id = question.project_id or ctx.project_id
    try:
        flavor = flavors.get(tx, question.flavor_id, project_id=None)
        properties: dict[str, Any] = {}
        if question.image_id:
            image = images.get_usable(tx, question.image_id, project_id=project_id, is_admin=True)
            properties = {**image.properties, "disk_format": image.disk_format}
        group = _group(tx, question.hints)
    except NotFound as error:
        raise BadRequest(error.message) from None
    named = named_by_hints(question.hints)
    return request_spec(
        [],
        project_id=project_id,
        user_id=ctx.user_id,
        flavor=flavor,
        image_id=question.image_id,
        order=ServerOrder(
            availability_zone=question.availability_zone,
            requested_host=question.requested_host,
            scheduler_hints=dict(question.hints),
            image_properties=properties,
        ),
        group=group,
        hosts_of_servers=groups.hosts_of_servers(tx, named, project_id=project_id) if named else None,
    )


def _group(tx: Tx, hints: Mapping[str, Any]) -> ServerGroup | None:
    if "group" not in hints:
        return None
    return groups.for_scheduling(tx, str(hints["group"]))
