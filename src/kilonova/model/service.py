"""Services and hosts as operators see them."""

import enum
from datetime import datetime

import msgspec

from kilonova.model.host import HostReport


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service on one host. Up: it reported within ``service_down_time``, and nobody forced it down."""

    id: int
    uuid: str
    service: str
    host: str
    is_up: bool
    state_since: datetime
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    last_seen_at: datetime
    updated_at: datetime
    availability_zone: str | None = None


class ServiceChange(enum.StrEnum):
    """What can become of a service."""

    UP = "up"
    DOWN = "down"
    DISABLED = "disabled"
    ENABLED = "enabled"
    FORCED_DOWN = "forced_down"
    NOT_FORCED_DOWN = "not_forced_down"
    DELETED = "deleted"


class ServiceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one service, and why."""

    id: int
    service: str
    host: str
    event: ServiceChange
    cause: str
    at: datetime


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """One resource class of one host. ``used <= (total - reserved) * allocation_ratio`` always."""

    resource_class: str
    total: int
    reserved: int
    allocation_ratio: float
    used: int


class Hypervisor(msgspec.Struct, frozen=True, kw_only=True):
    """One host with its report, its service and what of it is taken."""

    id: int
    uuid: str
    name: str
    report: HostReport
    service: Service
    inventories: dict[str, Inventory]
    servers: int
    """How many servers live there."""
