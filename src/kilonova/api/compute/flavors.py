"""``/flavors`` of the Compute API v2.1, with extra specs and access lists."""

import re
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import Name, boolean, links, whole
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Since
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest, NotFound
from kilonova.model.flavor import Flavor

Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
NotNegative = Annotated[int, Meta(ge=0, le=2**31 - 1)]
FlavorId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^(?! )[a-zA-Z0-9. _-]+(?<! )$")]
Description = Annotated[str, Meta(max_length=65535)]


class FlavorCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /flavors``. Memory and swap in MiB, disks in GiB."""

    name: Name
    ram: Positive | str
    vcpus: Positive | str
    disk: NotNegative | str
    id: FlavorId | int | None = None
    ephemeral: NotNegative | str = field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    swap: NotNegative | str = 0
    rxtx_factor: float | str = 1.0
    is_public: bool | str = field(name="os-flavor-access:is_public", default=True)
    description: Annotated[Description | None, Since("2.55")] = None


class FlavorUpdate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``PUT /flavors/{id}``."""

    description: Description | None


class FlavorQuery(Struct, kw_only=True):
    """Query of ``GET /flavors``."""

    limit: str | None = None
    marker: str | None = None
    sort_key: str = "flavorid"
    sort_dir: str = "asc"
    is_public: str | None = None
    min_ram: str | None = field(name="minRam", default=None)
    min_disk: str | None = field(name="minDisk", default=None)


DETAIL = View(
    Field("id", lambda f: f.id),
    Field("name", lambda f: f.name),
    Field("ram", lambda f: f.memory_mib),
    Field("disk", lambda f: f.root_gib),
    Field("swap", lambda f: f.swap_mib or "", until="2.74"),
    Field("swap", lambda f: f.swap_mib, since="2.75"),
    Field("OS-FLV-EXT-DATA:ephemeral", lambda f: f.ephemeral_gib),
    Field("OS-FLV-DISABLED:disabled", lambda f: f.disabled),
    Field("vcpus", lambda f: f.vcpus),
    Field("os-flavor-access:is_public", lambda f: f.is_public),
    Field("rxtx_factor", lambda f: f.rxtx_factor),
    Field("description", lambda f: f.description, since="2.55"),
    Field("extra_specs", lambda f: f.extra_specs, since="2.61"),
)

BRIEF = View(
    Field("id", lambda f: f.id),
    Field("name", lambda f: f.name),
    Field("description", lambda f: f.description, since="2.55"),
)


def _render(view: View, flavor: Flavor, req: Request) -> dict[str, Any]:
    return {**view.render(flavor, req.microversion), "links": links(req, "flavors", flavor.id)}


async def _page(cloud: Cloud, req: Request, query: FlavorQuery, view: View) -> Reply:
    limit = page_size(query.limit)
    if query.sort_dir not in ("asc", "desc"):
        raise BadRequest("Invalid input for query parameters sort_dir: use 'asc' or 'desc'.")
    everyone = (query.is_public or "").strip().lower() == "none"
    found = await cloud.flavors.page(
        req.ctx,
        is_public=None if everyone else (True if query.is_public is None else boolean("is_public", query.is_public)),
        min_ram=whole("minRam", query.min_ram),
        min_disk=whole("minDisk", query.min_disk),
        limit=limit,
        marker=query.marker,
        sort_key=query.sort_key,
        descends=query.sort_dir == "desc",
    )
    body: dict[str, Any] = {"flavors": [_render(view, flavor, req) for flavor in found]}
    further = next_links(req, limit, [flavor.id for flavor in found])
    if further:
        body["flavors_links"] = further
    return Reply(body)


@api.route("GET", "/flavors", policy=None)
async def list_flavors(cloud: Cloud, req: Request, query: FlavorQuery) -> Reply:
    """Names and ids of flavors."""
    return await _page(cloud, req, query, BRIEF)


@api.route("GET", "/flavors/detail", policy=None)
async def list_flavors_detail(cloud: Cloud, req: Request, query: FlavorQuery) -> Reply:
    """Flavors with their sizes."""
    return await _page(cloud, req, query, DETAIL)


@api.route("GET", "/flavors/{flavor_id}", policy=None)
async def show_flavor(cloud: Cloud, req: Request, flavor_id: str) -> Reply:
    """One flavor."""
    return Reply({"flavor": _render(DETAIL, await cloud.flavors.get(req.ctx, flavor_id), req)})


@api.route("POST", "/flavors", policy="os_compute_api:os-flavor-manage:create", body_key="flavor", status=200)
async def create_flavor(cloud: Cloud, req: Request, body: FlavorCreate) -> Reply:
    """Add a flavor."""
    wanted_id = None if body.id in (None, "auto") else str(body.id)
    made = await cloud.flavors.create(
        Flavor(
            id=wanted_id or "",
            name=body.name,
            description=body.description,
            vcpus=_number("vcpus", body.vcpus, least=1),
            memory_mib=_number("ram", body.ram, least=1),
            root_gib=_number("disk", body.disk),
            ephemeral_gib=_number("OS-FLV-EXT-DATA:ephemeral", body.ephemeral),
            swap_mib=_number("swap", body.swap),
            rxtx_factor=_factor(body.rxtx_factor),
            is_public=body.is_public
            if isinstance(body.is_public, bool)
            else bool(boolean("os-flavor-access:is_public", body.is_public)),
        )
    )
    return Reply({"flavor": _render(DETAIL, made, req)})


@api.route(
    "PUT", "/flavors/{flavor_id}", policy="os_compute_api:os-flavor-manage:update", body_key="flavor", since="2.55"
)
async def update_flavor(cloud: Cloud, req: Request, flavor_id: str, body: FlavorUpdate) -> Reply:
    """Change a flavor's description."""
    changed = await cloud.flavors.update(flavor_id, description=body.description)
    return Reply({"flavor": _render(DETAIL, changed, req)})


@api.route("DELETE", "/flavors/{flavor_id}", policy="os_compute_api:os-flavor-manage:delete", status=202)
async def delete_flavor(cloud: Cloud, req: Request, flavor_id: str) -> Reply:
    """Remove a flavor."""
    await cloud.flavors.delete(flavor_id)
    return Reply()


def _number(name: str, value: int | str, *, least: int = 0) -> int:
    """A number, also as a string of digits, as the Compute API allows."""
    if isinstance(value, str):
        if value == "" and name == "swap":
            return 0
        if not re.fullmatch(r"[0-9]{1,10}", value):
            raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. It must be a whole number.")
        value = int(value)
    if not least <= value <= 2**31 - 1:
        raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. It must be {least} or more.")
    return value


def _factor(value: float | str) -> float:
    try:
        factor = float(value)
    except ValueError:
        raise BadRequest(
            f"Invalid input for field/attribute rxtx_factor. Value: {value}. It must be a number."
        ) from None
    if not 0 < factor < 3.4e38:
        raise BadRequest(f"Invalid input for field/attribute rxtx_factor. Value: {value}. It must be above 0.")
    return factor


# ---- extra specs --------------------------------------------------------------------------------------------

SpecKey = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-_:. ]{1,255}$")]
Specs = dict[SpecKey, Annotated[str, Meta(max_length=255)] | int | float]


class SpecsBody(Struct, forbid_unknown_fields=True):
    """Body of ``POST /flavors/{id}/os-extra_specs``."""

    extra_specs: Specs


@api.route("GET", "/flavors/{flavor_id}/os-extra_specs", policy="os_compute_api:os-flavor-extra-specs:index")
async def list_extra_specs(cloud: Cloud, req: Request, flavor_id: str) -> Reply:
    """A flavor's extra specs."""
    return Reply({"extra_specs": (await cloud.flavors.get(req.ctx, flavor_id)).extra_specs})


@api.route("POST", "/flavors/{flavor_id}/os-extra_specs", policy="os_compute_api:os-flavor-extra-specs:create")
async def create_extra_specs(cloud: Cloud, req: Request, flavor_id: str, body: SpecsBody) -> Reply:
    """Add extra specs."""
    specs = {key: str(value) for key, value in body.extra_specs.items()}
    await cloud.flavors.set_extra_specs(flavor_id, specs)
    return Reply({"extra_specs": specs})


@api.route("GET", "/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:show")
async def show_extra_spec(cloud: Cloud, req: Request, flavor_id: str, key: str) -> Reply:
    """One extra spec."""
    specs = (await cloud.flavors.get(req.ctx, flavor_id)).extra_specs
    if key not in specs:
        raise NotFound(kind="Flavor extra spec", id=key)
    return Reply({key: specs[key]})


@api.route("PUT", "/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:update")
async def update_extra_spec(cloud: Cloud, req: Request, flavor_id: str, key: str, body: Specs) -> Reply:
    """Set one extra spec."""
    if list(body) != [key]:
        raise BadRequest("The body must have exactly the key that stands in the URL.")
    await cloud.flavors.set_extra_specs(flavor_id, {key: str(body[key])})
    return Reply({key: str(body[key])})


@api.route("DELETE", "/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:delete")
async def delete_extra_spec(cloud: Cloud, req: Request, flavor_id: str, key: str) -> Reply:
    """Remove one extra spec."""
    await cloud.flavors.delete_extra_spec(flavor_id, key)
    return Reply(status=200)


# ---- access -------------------------------------------------------------------------------------------------


class Tenant(Struct, forbid_unknown_fields=True):
    """A project, by the name that it had."""

    tenant: Annotated[str, Meta(min_length=1, max_length=64)]


class FlavorAction(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /flavors/{id}/action``: one of the two."""

    add: Tenant | UnsetType = field(name="addTenantAccess", default=UNSET)
    remove: Tenant | UnsetType = field(name="removeTenantAccess", default=UNSET)


def _access(flavor_id: str, projects: list[str]) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavor_id, "tenant_id": project} for project in projects]}


@api.route("GET", "/flavors/{flavor_id}/os-flavor-access", policy="os_compute_api:os-flavor-access")
async def list_access(cloud: Cloud, req: Request, flavor_id: str) -> Reply:
    """Projects that may use a private flavor."""
    return Reply(_access(flavor_id, await cloud.flavors.access(flavor_id)))


@api.route("POST", "/flavors/{flavor_id}/action", policy="os_compute_api:os-flavor-access:add_tenant_access")
async def act_on_flavor(cloud: Cloud, req: Request, flavor_id: str, body: FlavorAction) -> Reply:
    """Give a project a private flavor, or take it away."""
    if not isinstance(body.add, UnsetType) and isinstance(body.remove, UnsetType):
        projects = await cloud.flavors.grant(flavor_id, body.add.tenant)
    elif not isinstance(body.remove, UnsetType) and isinstance(body.add, UnsetType):
        projects = await cloud.flavors.revoke(flavor_id, body.remove.tenant)
    else:
        raise BadRequest("The body must have exactly one of addTenantAccess and removeTenantAccess.")
    return Reply(_access(flavor_id, projects))
