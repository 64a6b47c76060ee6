"""Version documents: how a client finds its way from the service catalogue alone.

Every service answers at its unversioned root with the list of its versions and at its versioned root with one
of them, each in its own historic form; none of it needs a token.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kilonova.api.http.errors import JSON_ERRORS
from kilonova.api.http.request import Reply, Request
from kilonova.api.http.routing import Api, Extension
from kilonova.model.errors import NotFound

Document = Callable[[Api, str], tuple[int, dict[str, Any]]]
"""From an API and the URL of its root (no slash at the end) to status and body."""


def _link(href: str, rel: str = "self") -> dict[str, str]:
    return {"rel": rel, "href": href}


def _nova_version(api: Api, url: str) -> dict[str, Any]:
    ranges = api.microversions
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(ranges.newest) if ranges else "",
        "min_version": str(ranges.oldest) if ranges else "",
        "updated": "2013-07-23T11:33:21Z",
        "links": [_link(f"{url}/")],
    }


def _nova_list(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    return 200, {"versions": [_nova_version(api, url)]}


def _nova_one(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    version = _nova_version(api, url)
    version["links"].append(
        {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}
    )
    version["media-types"] = [
        {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
    ]
    return 200, {"version": version}


def _keystone_version(url: str) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [_link(f"{url}/")],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _keystone_list(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    return 300, {"versions": {"values": [_keystone_version(url)]}}


def _keystone_one(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    return 200, {"version": _keystone_version(url)}


_GLANCE_VERSIONS = (
    ("v2.15", "CURRENT"),
    *((f"v2.{minor}", "SUPPORTED") for minor in (13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)),
)


def _glance_list(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    versions = [{"id": id, "status": status, "links": [_link(f"{url}/")]} for id, status in _GLANCE_VERSIONS]
    return 300, {"versions": versions}


def _glance_one(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    return 200, _glance_list(api, url)[1]


def _neutron_list(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [_link(f"{url}/")]}]}


def _neutron_resources(api: Api, url: str) -> tuple[int, dict[str, Any]]:
    """What the API has: the collections among its routes."""
    names = sorted({path for route in api.routes if "{" not in (path := route.path.strip("/")) and "/" not in path})
    return 200, {
        "resources": [
            {"name": name.removesuffix("s"), "collection": name, "links": [_link(f"{url}/{name}")]}
            for name in names
            if name not in ("", "extensions")
        ]
    }


_DOCUMENTS: dict[str, tuple[Document, Document]] = {
    "compute": (_nova_list, _nova_one),
    "identity": (_keystone_list, _keystone_one),
    "image": (_glance_list, _glance_one),
    "network": (_neutron_list, _neutron_resources),
}


def _answer(document: Document, api: Api) -> Callable[..., Any]:
    async def show(req: Request) -> Reply:
        status, body = document(api, req.base_url + api.root)
        return Reply(body, status=status)

    return show


def _extension(extension: Extension) -> dict[str, Any]:
    return {
        "alias": extension.alias,
        "name": extension.name,
        "description": extension.description,
        "updated": extension.updated,
        "links": [],
    }


def documents(api: Api) -> Sequence[Api]:
    """The routes of an API's version documents, as APIs of their own: at the unversioned root and the versioned."""
    found = _DOCUMENTS.get(api.name)
    if found is None or api.root == api.service_root:
        return ()
    unversioned, versioned = found
    outer = Api(f"{api.name}-versions", root=api.service_root, errors=api.errors)
    outer.route("GET", "", public=True)(_answer(unversioned, api))
    if api.name == "image":  # the list without the redirecting status
        outer.route("GET", "/versions", public=True)(_answer(versioned, api))
    inner = Api(f"{api.name}-version", root=api.root, errors=api.errors)
    inner.microversions, inner.request_id_header = api.microversions, api.request_id_header
    inner.route("GET", "", public=True)(_answer(versioned, api))
    return (outer, inner)


def everything(apis: Sequence[Api]) -> Api:
    """``/``: where each service lives; and ``/healthz``."""
    top = Api("root", root="", errors=JSON_ERRORS)

    @top.route("GET", "/", public=True)
    async def show_services(req: Request) -> Reply:
        services = [
            {"name": api.name, "links": [_link(f"{req.base_url}{api.service_root}/")], "root": req.base_url + api.root}
            for api in apis
            if api.root
        ]
        return Reply({"services": services})

    @top.route("GET", "/healthz", public=True)
    async def show_health() -> Reply:
        return Reply({"status": "ok"})

    return top


def extension_routes(api: Api) -> None:
    """Serve the list of an API's extensions on it, once."""
    if not api.extensions or any(route.path == "/extensions" for route in api.routes):
        return

    @api.route("GET", "/extensions")
    async def list_extensions() -> Reply:
        return Reply({"extensions": [_extension(extension) for extension in api.extensions]})

    @api.route("GET", "/extensions/{alias}")
    async def show_extension(alias: str) -> Reply:
        for extension in api.extensions:
            if extension.alias == alias:
                return Reply({"extension": _extension(extension)})
        raise NotFound(kind="Extension", id=alias)
