"""``/readyz`` says whether this process can do its work, and if not, why; ``/metrics`` is for Prometheus."""

from kilonova.api.http.errors import JSON_ERRORS
from kilonova.api.http.routing import Api, Reply, Request
from kilonova.base.metrics import CONTENT_TYPE, exposition
from kilonova.cloud.cloud import Cloud

readiness_api = Api("readiness", root="/readyz", errors=JSON_ERRORS)
metrics_api = Api("metrics", root="/metrics", errors=JSON_ERRORS)


@readiness_api.route("GET", "", public=True)
async def ready(cloud: Cloud, req: Request) -> Reply:
    """200 when everything that this process runs is up; else 503 with what is not, and why."""
    waiting = cloud.readiness.waiting
    return Reply({"ready": not waiting, "waiting_for": waiting}, status=503 if waiting else 200)


@metrics_api.route("GET", "", public=True)
async def metrics(cloud: Cloud, req: Request) -> Reply:
    """Counters and timings of this process."""
    return Reply(exposition(cloud.readiness.registry), content_type=CONTENT_TYPE)
