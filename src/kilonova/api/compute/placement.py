"""What Kilonova tells administrators besides: why servers are where they are, and where others would go.

``GET /servers/{id}/kilonova-decisions`` and ``POST /kilonova-what-if``: names of our own, so that they never meet
one of the Compute API's.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import timestamp_us
from kilonova.api.http.routing import Reply, Request
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.placement import Question
from kilonova.model.request_spec import WhatIf
from kilonova.model.server import Decision

Id = Annotated[str, Meta(min_length=1, max_length=255)]


class WhatIfBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /kilonova-what-if``, in the words of a server's creation."""

    flavor: Annotated[str, Meta(min_length=1, max_length=255)] = msgspec.field(name="flavorRef")
    image: Annotated[str, Meta(max_length=64)] = msgspec.field(name="imageRef", default="")
    availability_zone: Id | None = None
    host: Id | None = None
    scheduler_hints: dict[str, Any] = {}
    project_id: Annotated[str, Meta(max_length=64)] = ""
    most: Annotated[int, Meta(ge=1, le=1000)] = 100


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "request_id": decision.request_id,
        "attempt": decision.attempt,
        "host": decision.host,
        "created_at": timestamp_us(decision.created_at),
        "explanation": decision.explanation,
    }


def _what_if(found: WhatIf) -> dict[str, Any]:
    candidates = found.first.candidates
    return {
        "host": candidates[0].host if candidates else None,
        "candidates": [{"host": one.host, "weight": one.weight} for one in candidates],
        "explanation": msgspec.to_builtins(found.first.explanation),
        "fits": found.fits,
        "is_all": found.is_all,
        "hosts": found.hosts,
        "missing_for_more": found.last.missing if found.last else None,
    }


@api.route("GET", "/servers/{server_id}/kilonova-decisions", policy="kilonova:decisions:list")
async def list_decisions(cloud: Cloud, req: Request, server_id: str) -> Reply:
    """The scheduler's decisions about one server, oldest first."""
    return Reply({"decisions": [_decision(one) for one in await cloud.placement.decisions(server_id)]})


@api.route("POST", "/kilonova-what-if", policy="kilonova:what-if", body_key="what_if")
async def what_if(cloud: Cloud, req: Request, body: WhatIfBody) -> Reply:
    """Where such servers would go now, and how many of them; nothing is claimed."""
    question = Question(
        flavor_id=body.flavor,
        image_id=body.image,
        availability_zone=body.availability_zone,
        requested_host=body.host,
        hints=body.scheduler_hints,
        project_id=body.project_id,
        most=body.most,
    )
    return Reply({"what_if": _what_if(await cloud.placement.what_if(req.ctx, question))})
