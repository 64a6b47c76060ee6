"""How servers look in the Compute API: the table of fields, each with the microversion that brought it."""

import hashlib
from dataclasses import dataclass
from typing import Any

from kilonova.api.compute.shared import links, timestamp, timestamp_us
from kilonova.api.http.routing import Request
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.servers import Detailed
from kilonova.model.network import Port
from kilonova.model.server import Server
from kilonova.model.states import PowerState, VMState, api_status

_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "HARD_REBOOT", "REBOOT", "REBUILD", "RESIZE"})


@dataclass(frozen=True)
class Shown:
    """One server, ready to be shown to one caller."""

    server: Server
    ports: list[Port]
    zone: str
    host_status: str
    security_groups: list[str]
    req: Request

    @classmethod
    def of(cls, detailed: Detailed, req: Request) -> "Shown":
        """`detailed` as the caller of `req` sees it."""
        return cls(detailed.server, detailed.ports, detailed.zone, detailed.host_status, detailed.security_groups, req)

    @property
    def status(self) -> str:
        return api_status(self.server.vm_state, self.server.task_state)


def _host_id(server: Server) -> str:
    """The host under a name that tells a project only whether two of its servers share one."""
    return hashlib.sha224(f"{server.project_id}{server.host}".encode()).hexdigest() if server.host else ""


def _image(s: Shown) -> Any:
    if not s.server.image_id:
        return ""
    bookmark = s.req.url("images", s.server.image_id).replace("/v2.1/", "/", 1)
    return {"id": s.server.image_id, "links": [{"rel": "bookmark", "href": bookmark}]}


def _flavor_link(s: Shown) -> dict[str, Any]:
    flavor = s.server.flavor
    return {"id": flavor.id, "links": links(s.req, "flavors", flavor.id)[1:]}


def _flavor_embedded(s: Shown) -> dict[str, Any]:
    flavor = s.server.flavor
    return {
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.root_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "original_name": flavor.name,
        "extra_specs": flavor.extra_specs,
    }


def addresses(ports: list[Port]) -> dict[str, list[dict[str, Any]]]:
    """Network name to the addresses that a server has there."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        for fixed in port.fixed_ips:
            found.setdefault(port.network_name, []).append(
                {
                    "version": 4,
                    "addr": fixed.address,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": port.mac,
                }
            )
    return found


def plain_addresses(ports: list[Port]) -> dict[str, list[dict[str, Any]]]:
    """As `addresses`, without the extended attributes."""
    return {
        network: [{"version": a["version"], "addr": a["addr"]} for a in found]
        for network, found in addresses(ports).items()
    }


BRIEF = View(
    Field("id", lambda s: s.server.id),
    Field("name", lambda s: s.server.name),
    Field("links", lambda s: links(s.req, "servers", s.server.id)),
)

DETAIL = View(
    Field("id", lambda s: s.server.id),
    Field("name", lambda s: s.server.name),
    Field("status", lambda s: s.status),
    Field("tenant_id", lambda s: s.server.project_id),
    Field("user_id", lambda s: s.server.user_id),
    Field("metadata", lambda s: s.server.metadata),
    Field("hostId", lambda s: _host_id(s.server)),
    Field("image", _image),
    Field("flavor", _flavor_link, until="2.46"),
    Field("flavor", _flavor_embedded, since="2.47"),
    Field("created", lambda s: timestamp(s.server.created_at)),
    Field("updated", lambda s: timestamp(s.server.updated_at)),
    Field("addresses", lambda s: addresses(s.ports)),
    Field("accessIPv4", lambda s: s.server.access_ipv4),
    Field("accessIPv6", lambda s: s.server.access_ipv6),
    Field("links", lambda s: links(s.req, "servers", s.server.id)),
    Field("OS-DCF:diskConfig", lambda s: s.server.disk_config),
    Field("OS-EXT-AZ:availability_zone", lambda s: s.zone),
    Field("config_drive", lambda s: "True" if s.server.config_drive else ""),
    Field("key_name", lambda s: s.server.key_name),
    Field("OS-SRV-USG:launched_at", lambda s: timestamp_us(s.server.launched_at)),
    Field("OS-SRV-USG:terminated_at", lambda s: timestamp_us(s.server.terminated_at)),
    Field("OS-EXT-STS:task_state", lambda s: s.server.task_state),
    Field("OS-EXT-STS:vm_state", lambda s: s.server.vm_state),
    Field("OS-EXT-STS:power_state", lambda s: int(s.server.power_state)),
    Field("os-extended-volumes:volumes_attached", lambda s: []),
    Field("locked", lambda s: s.server.locked, since="2.9"),
    Field("description", lambda s: s.server.description, since="2.19"),
    Field("tags", lambda s: s.server.tags, since="2.26"),
    Field("trusted_image_certificates", lambda s: None, since="2.63"),
    Field("server_groups", lambda s: [], since="2.71"),
    Field("locked_reason", lambda s: None, since="2.73"),
    Field("pinned_availability_zone", lambda s: s.server.availability_zone, since="2.96"),
)

ADMIN = View(
    Field("OS-EXT-SRV-ATTR:host", lambda s: s.server.host),
    Field("OS-EXT-SRV-ATTR:hypervisor_hostname", lambda s: s.server.host),
    Field("OS-EXT-SRV-ATTR:instance_name", lambda s: s.server.guest_name),
    Field("OS-EXT-SRV-ATTR:reservation_id", lambda s: s.server.reservation_id, since="2.3"),
    Field("OS-EXT-SRV-ATTR:launch_index", lambda s: s.server.launch_index, since="2.3"),
    Field("OS-EXT-SRV-ATTR:kernel_id", lambda s: "", since="2.3"),
    Field("OS-EXT-SRV-ATTR:ramdisk_id", lambda s: "", since="2.3"),
    Field("OS-EXT-SRV-ATTR:root_device_name", lambda s: "/dev/vda", since="2.3"),
    Field("OS-EXT-SRV-ATTR:user_data", lambda s: s.server.user_data, since="2.3"),
    Field("OS-EXT-SRV-ATTR:hostname", lambda s: s.server.hostname, since="2.3", until="2.89"),
    Field("host_status", lambda s: s.host_status, since="2.16"),
)

EVERYONE_SINCE_2_90 = View(Field("OS-EXT-SRV-ATTR:hostname", lambda s: s.server.hostname, since="2.90"))


def detail(shown: Shown, *, with_admin_fields: bool) -> dict[str, Any]:
    """The whole view of one server."""
    version = shown.req.microversion
    view = DETAIL.render(shown, version) | EVERYONE_SINCE_2_90.render(shown, version)
    if with_admin_fields:
        view |= ADMIN.render(shown, version)
    if shown.security_groups:  # as in Nova, a server whose ports are in none has no such field
        view["security_groups"] = [{"name": name} for name in shown.security_groups]
    if shown.status in _WITH_PROGRESS:
        view["progress"] = shown.server.progress
    fault = shown.server.fault
    if shown.server.vm_state is VMState.ERROR and fault is not None:
        view["fault"] = {"code": fault.code, "created": timestamp(fault.created_at), "message": fault.message}
        if with_admin_fields:
            view["fault"]["details"] = fault.details
    return view


def sees_admin_fields(cloud: Cloud, req: Request) -> bool:
    """Whether the caller may see where servers are and what they are called there."""
    target = {"project_id": req.ctx.project_id}
    return cloud.parts.policy.allows(req.ctx, "os_compute_api:os-extended-server-attributes", target)


def power_state(text: str) -> PowerState | None:
    """The power state that a query means by a number; None if there is no such state."""
    return PowerState(int(text)) if text.isdigit() and int(text) in PowerState._value2member_map_ else None
