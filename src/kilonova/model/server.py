"""Servers, as the cloud knows them."""

from datetime import datetime
from typing import Any

import msgspec

from kilonova.model.flavor import Flavor
from kilonova.model.states import PowerState, TaskState, VMState


class RequestedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One card that the user asked for: a network, or a port made before; perhaps with an address."""

    network_id: str | None = None
    port_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


class ServerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for a server besides its columns; kept as it was for rebuilds and moves."""

    version: str = "1.0"
    networks: list[RequestedNetwork] = []
    availability_zone: str | None = None
    force_host: str | None = None
    requested_host: str | None = None
    scheduler_hints: dict[str, Any] = {}
    image_properties: dict[str, Any] = {}
    security_groups: list[str] = []
    personality: list[dict[str, str]] = []


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a server is in ERROR. `details` names step, host and cause, for administrators."""

    code: int
    message: str
    details: str
    created_at: datetime


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server (instance). `flavor` is as it was when the server was made."""

    number: int
    id: str
    project_id: str
    user_id: str
    name: str
    hostname: str
    description: str | None
    vm_state: VMState
    task_state: TaskState | None
    power_state: PowerState
    host: str | None
    availability_zone: str | None
    image_id: str
    flavor: Flavor
    key_name: str | None
    key_data: str | None
    user_data: str | None
    config_drive: bool
    metadata: dict[str, str]
    tags: list[str]
    order: ServerOrder
    reservation_id: str
    launch_index: int
    access_ipv4: str
    access_ipv6: str
    disk_config: str
    locked: bool
    progress: int
    created_at: datetime
    updated_at: datetime
    launched_at: datetime | None
    terminated_at: datetime | None
    deleted_at: datetime | None
    fault: Fault | None = None

    @property
    def guest_name(self) -> str:
        """The hypervisor's name of the guest."""
        return f"instance-{self.number:08x}"


class ServerAction(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was asked of a server. The steps of task `task_id` are its events."""

    id: int
    server_id: str
    action: str
    request_id: str
    user_id: str
    project_id: str
    task_id: str | None
    message: str | None
    started_at: datetime
    updated_at: datetime


class ServerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers a list shows. Absent (None): any.

    `name`, `ip` are regular expressions as in the Compute API; `deleted` shows only deleted ones.
    """

    project_id: str | None = None
    user_id: str | None = None
    name: str | None = None
    status: tuple[VMState, ...] | None = None
    vm_state: str | None = None
    task_state: str | None = None
    power_state: int | None = None
    host: str | None = None
    image_id: str | None = None
    flavor_id: str | None = None
    availability_zone: str | None = None
    key_name: str | None = None
    reservation_id: str | None = None
    ids: tuple[str, ...] | None = None
    ip: str | None = None
    changed_since: datetime | None = None
    changed_before: datetime | None = None
    tags_all: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    not_tags_all: tuple[str, ...] = ()
    not_tags_any: tuple[str, ...] = ()
    locked: bool | None = None
    deleted: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Where a list begins, how long it is, and its order: pairs (key, "asc" or "desc")."""

    limit: int = 1000
    marker: str | None = None
    sort: tuple[tuple[str, str], ...] = (("created_at", "desc"),)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One stored answer of the scheduler. `explanation` is a `request_spec.Explanation`."""

    server_id: str
    request_id: str
    attempt: int
    host: str | None
    explanation: dict[str, Any]
    created_at: datetime
