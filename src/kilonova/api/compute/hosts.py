"""``/os-services``, ``/os-hypervisors``, ``/os-availability-zone`` and ``/limits`` of the Compute API v2.1."""

from typing import Annotated, Any, Literal

import orjson
from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import timestamp_us
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.hosts import Zone
from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.service import Hypervisor, Service, ServiceEvent

# ---- services -------------------------------------------------------------------------------------------------


def _binary(service: Service) -> str:
    return f"nova-{service.service}"


SERVICE = View(
    Field("id", lambda s: s.id, until="2.52"),
    Field("id", lambda s: s.uuid, since="2.53"),
    Field("binary", _binary),
    Field("host", lambda s: s.host),
    Field("zone", lambda s: s.availability_zone),
    Field("status", lambda s: "disabled" if s.disabled else "enabled"),
    Field("state", lambda s: "up" if s.is_up else "down"),
    Field("updated_at", lambda s: timestamp_us(s.last_seen_at)),
    Field("disabled_reason", lambda s: s.disabled_reason),
    Field("forced_down", lambda s: s.forced_down, since="2.11"),
)


class ServiceQuery(Struct, kw_only=True):
    """Query of ``GET /os-services``."""

    host: str | None = None
    binary: str | None = None
    state_since: Literal["true", "false"] = "false"
    """Of our own: ``true`` adds to each service since when it is up or down. Not without being asked: clients that
    check answers against the Compute API's schema refuse what it does not name."""


class ServiceEventsQuery(Struct, kw_only=True):
    """Query of ``GET /kilonova-service-events``."""

    host: str | None = None
    binary: str | None = None
    marker: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ServiceUpdate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``PUT /os-services/{id}`` (2.53)."""

    status: str | UnsetType = UNSET
    disabled_reason: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType = UNSET
    forced_down: bool | UnsetType = UNSET


class ServiceToggle(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``PUT /os-services/enable`` and its like, before 2.53."""

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    binary: Annotated[str, Meta(min_length=1, max_length=255)]
    disabled_reason: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    forced_down: bool | None = None


@api.route("GET", "/os-services", policy="os_compute_api:os-services:list")
async def list_services(cloud: Cloud, req: Request, query: ServiceQuery) -> Reply:
    """Every service of the cloud, with its state."""
    name = query.binary.removeprefix("nova-") if query.binary else None
    found = await cloud.hosts.services(service=name, host=query.host)
    views = [SERVICE.render(service, req.microversion) for service in found]
    if query.state_since == "true":
        for view, service in zip(views, found, strict=True):
            view["state_since"] = timestamp_us(service.state_since)
    return Reply({"services": views})


@api.route("GET", "/kilonova-service-events", policy="kilonova:service-events:list")
async def list_service_events(cloud: Cloud, req: Request, query: ServiceEventsQuery) -> Reply:
    """When services came, went and were switched off, and why; newest first. `marker` is the last id of the page
    before."""
    found = await cloud.hosts.service_events(
        service=query.binary.removeprefix("nova-") if query.binary else None,
        host=query.host,
        before_id=query.marker,
        limit=query.limit,
    )
    return Reply({"service_events": [_service_event(event) for event in found]})


def _service_event(event: ServiceEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "binary": f"nova-{event.service}",
        "host": event.host,
        "event": event.event.value,
        "cause": event.cause,
        "at": timestamp_us(event.at),
    }


@api.route("PUT", "/os-services/{service_id}", policy="os_compute_api:os-services:update", since="2.53")
async def update_service(cloud: Cloud, req: Request, service_id: str, body: ServiceUpdate) -> Reply:
    """Enable, disable with a reason, or force down."""
    changes: dict[str, Any] = {}
    if not isinstance(body.status, UnsetType):
        if body.status not in ("enabled", "disabled"):
            raise BadRequest(f"Invalid input for field/attribute status. Value: {body.status}.")
        changes |= {"disabled": body.status == "disabled", "disabled_reason": None}
    if not isinstance(body.disabled_reason, UnsetType):
        if body.status != "disabled":
            raise BadRequest("Specifying disabled_reason requires that status is disabled.")
        changes["disabled_reason"] = body.disabled_reason
    if not isinstance(body.forced_down, UnsetType):
        changes["forced_down"] = body.forced_down
    if not changes:
        raise BadRequest("No updates were requested: give status, disabled_reason or forced_down.")
    changed = await cloud.hosts.change_service(service_id, **changes)
    [service] = await cloud.hosts.services(service=changed.service, host=changed.host)
    return Reply({"service": SERVICE.render(service, req.microversion)})


@api.route("PUT", "/os-services/{verb}", policy="os_compute_api:os-services:update", until="2.52")
async def toggle_service(cloud: Cloud, req: Request, verb: str, body: ServiceToggle) -> Reply:
    """The older form: the verb stands in the path, the service in the body."""
    changes: dict[str, Any]
    if verb == "enable":
        changes = {"disabled": False, "disabled_reason": None}
    elif verb == "disable":
        changes = {"disabled": True, "disabled_reason": None}
    elif verb == "disable-log-reason" and body.disabled_reason:
        changes = {"disabled": True, "disabled_reason": body.disabled_reason}
    elif verb == "force-down" and body.forced_down is not None:
        changes = {"forced_down": body.forced_down}
    else:
        raise NotFound(kind="Action", id=verb)
    found = await cloud.hosts.services(service=body.binary.removeprefix("nova-"), host=body.host)
    if not found:
        raise NotFound(kind="Host binary", id=f"{body.binary} on {body.host}")
    changed = await cloud.hosts.change_service(found[0].uuid, **changes)
    view: dict[str, Any] = {"host": changed.host, "binary": _binary(changed)}
    if "disabled" in changes:
        view["status"] = "disabled" if changed.disabled else "enabled"
    if changed.disabled_reason:
        view["disabled_reason"] = changed.disabled_reason
    if "forced_down" in changes:
        view["forced_down"] = changed.forced_down
    return Reply({"service": view})


@api.route("DELETE", "/os-services/{service_id}", policy="os_compute_api:os-services:delete", status=204)
async def delete_service(cloud: Cloud, req: Request, service_id: str) -> Reply:
    """Forget a service that is gone for good."""
    await cloud.hosts.delete_service(service_id)
    return Reply()


# ---- hypervisors ----------------------------------------------------------------------------------------------


def _used(h: Hypervisor, resource_class: str) -> int:
    line = h.inventories.get(resource_class)
    return line.used if line else 0


def _total(h: Hypervisor, resource_class: str) -> int:
    line = h.inventories.get(resource_class)
    return line.total if line else 0


def _free(h: Hypervisor, resource_class: str) -> int:
    line = h.inventories.get(resource_class)
    return line.total - line.reserved - line.used if line else 0


def _servers(h: Hypervisor) -> str:
    return "up" if h.service.is_up else "down"


HYPERVISOR = View(
    Field("id", lambda h: h.id, until="2.52"),
    Field("id", lambda h: h.uuid, since="2.53"),
    Field("hypervisor_hostname", lambda h: h.report.hypervisor_hostname),
    Field("state", _servers),
    Field("status", lambda h: "disabled" if h.service.disabled else "enabled"),
)

HYPERVISOR_DETAIL = View(
    Field("hypervisor_type", lambda h: h.report.hypervisor_type),
    Field("hypervisor_version", lambda h: h.report.hypervisor_version),
    Field("host_ip", lambda h: h.report.host_ip),
    Field("vcpus", lambda h: _total(h, "VCPU"), until="2.87"),
    Field("vcpus_used", lambda h: _used(h, "VCPU"), until="2.87"),
    Field("memory_mb", lambda h: _total(h, "MEMORY_MB"), until="2.87"),
    Field("memory_mb_used", lambda h: _used(h, "MEMORY_MB"), until="2.87"),
    Field("free_ram_mb", lambda h: _free(h, "MEMORY_MB"), until="2.87"),
    Field("local_gb", lambda h: _total(h, "DISK_GB"), until="2.87"),
    Field("local_gb_used", lambda h: _used(h, "DISK_GB"), until="2.87"),
    Field("free_disk_gb", lambda h: _free(h, "DISK_GB"), until="2.87"),
    Field("disk_available_least", lambda h: _free(h, "DISK_GB"), until="2.87"),
    Field("running_vms", lambda h: h.servers, until="2.87"),
    Field("current_workload", lambda h: 0, until="2.87"),
    Field("cpu_info", lambda h: orjson.dumps(_cpu_info(h)).decode(), until="2.27"),
    Field("cpu_info", lambda h: _cpu_info(h), since="2.28", until="2.87"),
    Field("uptime", lambda h: h.report.uptime or None, since="2.88"),
)


def _cpu_info(h: Hypervisor) -> dict[str, Any]:
    """The agent's CPU facts, and which kind of execution was chosen, and why."""
    return {**h.report.cpu_info, "virtualization": h.report.virtualization}


class HypervisorQuery(Struct, kw_only=True):
    """Query of the hypervisor lists."""

    limit: str | None = None
    marker: str | None = None
    pattern: str | None = field(name="hypervisor_hostname_pattern", default=None)
    with_servers: str | None = None


def _hypervisor(h: Hypervisor, req: Request, *, in_detail: bool) -> dict[str, Any]:
    view = HYPERVISOR.render(h, req.microversion)
    if in_detail:
        view |= HYPERVISOR_DETAIL.render(h, req.microversion)
        service_id = h.service.uuid if req.microversion >= (2, 53) else h.service.id
        view["service"] = {"host": h.name, "id": service_id, "disabled_reason": h.service.disabled_reason}
        view["virtualization"] = h.report.virtualization
    return view


async def _hypervisors(cloud: Cloud, req: Request, query: HypervisorQuery, *, in_detail: bool) -> Reply:
    limit = page_size(query.limit)
    found = await cloud.hosts.hypervisors(name_like=query.pattern)
    if query.pattern is not None and not found:
        raise NotFound(kind="Hypervisor matching", id=query.pattern)
    if query.marker is not None:
        places = [n for n, h in enumerate(found) if query.marker in (h.uuid, str(h.id))]
        if not places:
            raise BadRequest(f"marker [{query.marker}] not found")
        found = found[places[0] + 1 :]
    found = found[:limit]
    body: dict[str, Any] = {"hypervisors": [_hypervisor(h, req, in_detail=in_detail) for h in found]}
    further = next_links(req, limit, [h.uuid for h in found])
    if further:
        body["hypervisors_links"] = further
    return Reply(body)


@api.route("GET", "/os-hypervisors", policy="os_compute_api:os-hypervisors:list")
async def list_hypervisors(cloud: Cloud, req: Request, query: HypervisorQuery) -> Reply:
    """Hosts that run servers."""
    return await _hypervisors(cloud, req, query, in_detail=False)


@api.route("GET", "/os-hypervisors/detail", policy="os_compute_api:os-hypervisors:list-detail")
async def list_hypervisors_detail(cloud: Cloud, req: Request, query: HypervisorQuery) -> Reply:
    """Hosts with what they have, what of it is taken, and how their guests run."""
    return await _hypervisors(cloud, req, query, in_detail=True)


@api.route("GET", "/os-hypervisors/statistics", policy="os_compute_api:os-hypervisors:statistics", until="2.87")
async def hypervisor_statistics(cloud: Cloud, req: Request) -> Reply:
    """Sums over all hosts."""
    found = await cloud.hosts.hypervisors()
    names = [f.name for f in HYPERVISOR_DETAIL.fields if f.name not in _NOT_SUMMED and f.until is not None]
    rendered = [_hypervisor(h, req, in_detail=True) for h in found]
    sums = {name: sum(view[name] for view in rendered if name in view) for name in dict.fromkeys(names)}
    return Reply({"hypervisor_statistics": {"count": len(found), **sums}})


_NOT_SUMMED = frozenset({"hypervisor_type", "hypervisor_version", "host_ip", "cpu_info", "uptime"})


@api.route("GET", "/os-hypervisors/{hypervisor_id}", policy="os_compute_api:os-hypervisors:show")
async def show_hypervisor(cloud: Cloud, req: Request, hypervisor_id: str) -> Reply:
    """One host."""
    found = [h for h in await cloud.hosts.hypervisors() if hypervisor_id in (h.uuid, str(h.id))]
    if not found:
        raise NotFound(kind="Compute host", id=hypervisor_id)
    return Reply({"hypervisor": _hypervisor(found[0], req, in_detail=True)})


# ---- zones ------------------------------------------------------------------------------------------------------


def _zone(zone: Zone, hosts: dict[str, Any] | None) -> dict[str, Any]:
    return {"zoneName": zone.name, "zoneState": {"available": zone.is_available}, "hosts": hosts}


@api.route("GET", "/os-availability-zone", policy="os_compute_api:os-availability-zone:list")
async def list_zones(cloud: Cloud, req: Request) -> Reply:
    """Zones that a server can be put into."""
    zones = await cloud.hosts.zones(with_internal=False)
    return Reply({"availabilityZoneInfo": [_zone(zone, None) for zone in zones]})


@api.route("GET", "/os-availability-zone/detail", policy="os_compute_api:os-availability-zone:detail")
async def list_zones_detail(cloud: Cloud, req: Request) -> Reply:
    """All zones with their hosts and services."""
    zones = await cloud.hosts.zones(with_internal=True)
    return Reply({"availabilityZoneInfo": [_zone(zone, _zone_hosts(zone)) for zone in zones]})


def _zone_hosts(zone: Zone) -> dict[str, Any]:
    hosts: dict[str, Any] = {}
    for service in zone.services:
        hosts.setdefault(service.host, {})[_binary(service)] = {
            "available": service.is_up,
            "active": not service.disabled,
            "updated_at": timestamp_us(service.last_seen_at),
        }
    return hosts


# ---- limits -----------------------------------------------------------------------------------------------------


class LimitsQuery(Struct, kw_only=True):
    """Query of ``GET /limits``."""

    tenant_id: str | None = None
    reserved: str | None = None


_LIMITS = {
    "maxTotalInstances": "instances",
    "maxTotalCores": "cores",
    "maxTotalRAMSize": "ram",
    "maxServerMeta": "metadata_items",
    "maxTotalKeypairs": "key_pairs",
    "maxServerGroups": "server_groups",
    "maxServerGroupMembers": "server_group_members",
}
_USED = {
    "totalInstancesUsed": "instances",
    "totalCoresUsed": "cores",
    "totalRAMUsed": "ram",
    "totalServerGroupsUsed": "server_groups",
}


@api.route("GET", "/limits", policy="os_compute_api:limits")
async def show_limits(cloud: Cloud, req: Request, query: LimitsQuery) -> Reply:
    """What a project may have, and has."""
    project_id = query.tenant_id or req.ctx.project_id
    if project_id != req.ctx.project_id:
        cloud.parts.policy.authorize(req.ctx, "os_compute_api:limits:other_project", {"project_id": project_id})
    quota = await cloud.hosts.quota(project_id)
    absolute = {name: quota[resource][0] for name, resource in _LIMITS.items()}
    absolute |= {name: quota[resource][1] for name, resource in _USED.items()}
    absolute["maxImageMeta"] = quota["metadata_items"][0]
    return Reply({"limits": {"rate": [], "absolute": absolute}})
