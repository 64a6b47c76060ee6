"""What operators see of hosts and services, and what users see of zones and limits."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec.structs

from kilonova.cloud.parts import Parts
from kilonova.model.errors import Conflict, NotFound
from kilonova.model.service import Hypervisor, Service, ServiceEvent
from kilonova.store.queries import aggregates, hosts, quotas, service_events, services
from kilonova.store.transactions import Tx


@dataclass(frozen=True)
class Zone:
    """An availability zone: usable when one of its hosts is up and enabled."""

    name: str
    is_available: bool
    services: tuple[Service, ...]


class Hosts:
    """Use cases of hosts, services and zones."""

    def __init__(self, parts: Parts, *, default_zone: str = "nova", internal_zone: str = "internal") -> None:
        self._parts = parts
        self._store = parts.store
        self._default_zone = default_zone
        self._internal_zone = internal_zone

    async def services(self, *, service: str | None = None, host: str | None = None) -> list[Service]:
        """Services with their zones, by id."""
        return await self._store.read(
            _services, service, host, default=self._default_zone, internal=self._internal_zone
        )

    async def change_service(self, uuid: str, **changes: Any) -> Service:
        """Set `disabled` with `disabled_reason`, or `forced_down`. Schedulers learn it at once.

        Raises:
            NotFound
        """
        changed = await self._store.run(_change_service, uuid, changes, at=self._parts.clock.now())
        self._parts.bell.ring("scheduler")
        return changed

    async def delete_service(self, uuid: str) -> None:
        """Forget a service that is gone for good.

        Raises:
            NotFound
            Conflict: servers live there.
        """
        await self._store.run(_delete_service, uuid, at=self._parts.clock.now())

    async def service_events(
        self, *, service: str | None, host: str | None, before_id: int | None, limit: int
    ) -> list[ServiceEvent]:
        """What became of services, newest first."""
        return await self._store.read(
            service_events.newest, service=service, host=host, before_id=before_id, limit=limit
        )

    async def hypervisors(self, *, name_like: str | None = None, uuid: str | None = None) -> list[Hypervisor]:
        """Hosts with their reports and what of them is taken.

        Raises:
            NotFound: no host has that uuid.
        """
        found = await self._store.read(hosts.hypervisors, name_like=name_like, uuid=uuid)
        if uuid is not None and not found:
            raise NotFound(kind="Compute host", id=uuid)
        return found

    async def zones(self, *, with_internal: bool) -> list[Zone]:
        """Availability zones; with the services that no user's server lives on, if asked."""
        by_zone: dict[str, list[Service]] = {}
        for service in await self.services():
            by_zone.setdefault(service.availability_zone or "", []).append(service)
        return [
            Zone(name, any(s.is_up and not s.disabled for s in members), tuple(members))
            for name, members in sorted(by_zone.items())
            if with_internal or name != self._internal_zone
        ]

    async def quota(self, owner: str) -> dict[str, tuple[int, int]]:
        """Resource to (limit, used) of a project or a user."""
        return await self._store.read(_quota, owner)


def _services(tx: Tx, service: str | None, host: str | None, *, default: str, internal: str) -> list[Service]:
    zones = aggregates.zone_of_hosts(tx)
    return [
        msgspec.structs.replace(s, availability_zone=zones.get(s.host, default) if s.service == "compute" else internal)
        for s in services.list_all(tx, service=service, host=host)
    ]


def _change_service(tx: Tx, uuid: str, changes: dict[str, Any], *, at: Any) -> Service:
    changed = services.change(tx, uuid, at=at, **changes)
    hosts.touch_by_name(tx, [changed.host])
    return changed


def _delete_service(tx: Tx, uuid: str, *, at: datetime) -> None:
    gone = services.get(tx, uuid)
    if gone.service == "compute":
        if aggregates.hosts_with_servers(tx, [gone.host]):
            raise Conflict(
                f"Unable to delete compute service that is hosting instances: {gone.host}. Delete them first."
            )
        hosts.retire(tx, gone.host)
        aggregates.forget_host(tx, gone.host)
    services.delete(tx, uuid, at=at)


def _quota(tx: Tx, owner: str) -> dict[str, tuple[int, int]]:
    used = quotas.used(tx, owner)
    return {resource: (limit, used.get(resource, 0)) for resource, limit in quotas.limits(tx, owner).items()}
