"""What operators can do with host aggregates.

A host is in one availability zone at most, and a zone's name does not change under servers that were told it. What
would break either is refused.
"""

from collections.abc import Mapping
from datetime import datetime

from kilonova.cloud.parts import Parts
from kilonova.model.aggregate import ZONE_KEY, Aggregate
from kilonova.model.errors import BadRequest, Conflict
from kilonova.store.queries import aggregates, hosts
from kilonova.store.transactions import Tx


class Aggregates:
    """Use cases of aggregates; who may is said by the routes' policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def all(self) -> list[Aggregate]:
        """Every aggregate."""
        return await self._store.read(aggregates.list_all)

    async def get(self, aggregate_id: int) -> Aggregate:
        """One of them.

        Raises:
            NotFound
        """
        return await self._store.read(aggregates.get, aggregate_id)

    async def create(self, name: str, zone: str | None) -> Aggregate:
        """A new one without hosts.

        Raises:
            AlreadyExists
        """
        metadata = {} if zone is None else {ZONE_KEY: zone}
        return await self._changed(_create, self._parts.ids.uuid(), name, metadata, self._parts.clock.now())

    async def update(self, aggregate_id: int, name: str | None, zone: str | None) -> Aggregate:
        """Rename it, or its zone; None leaves either as it is.

        Raises:
            NotFound, AlreadyExists
            BadRequest: a host would be in two zones, or has servers that know the old one.
        """
        return await self._changed(_update, aggregate_id, name, zone, self._parts.clock.now())

    async def set_metadata(self, aggregate_id: int, items: Mapping[str, str | None]) -> Aggregate:
        """Set metadata; None removes a key.

        Raises:
            NotFound
            BadRequest: as for `update`.
        """
        return await self._changed(_set_metadata, aggregate_id, items, self._parts.clock.now())

    async def delete(self, aggregate_id: int) -> None:
        """Remove it.

        Raises:
            NotFound
            BadRequest: it has hosts.
        """
        await self._store.run(_delete, aggregate_id)
        self._parts.bell.ring("scheduler")

    async def add_host(self, aggregate_id: int, host: str) -> Aggregate:
        """Put a host into it.

        Raises:
            NotFound: no such aggregate, or no such host.
            AlreadyExists
            Conflict: the host is in another zone already, or has servers that would change theirs.
        """
        return await self._changed(_add_host, aggregate_id, host)

    async def remove_host(self, aggregate_id: int, host: str) -> Aggregate:
        """Take a host out of it.

        Raises:
            NotFound
            Conflict: the host has servers that would change their zone.
        """
        return await self._changed(_remove_host, aggregate_id, host)

    async def _changed(self, work: object, *args: object) -> Aggregate:
        aggregate: Aggregate = await self._store.run(work, *args)  # type: ignore[arg-type]
        self._parts.bell.ring("scheduler")
        return aggregate


def _create(tx: Tx, uuid: str, name: str, metadata: Mapping[str, str], at: datetime) -> Aggregate:
    return aggregates.get(tx, aggregates.insert(tx, uuid=uuid, name=name, metadata=metadata, at=at))


def _update(tx: Tx, aggregate_id: int, name: str | None, zone: str | None, at: datetime) -> Aggregate:
    aggregate = aggregates.get(tx, aggregate_id)
    if zone is not None:
        _check_zone(tx, aggregate, zone)
        aggregates.update(tx, aggregate_id, at=at, metadata={**aggregate.metadata, ZONE_KEY: zone})
    if name is not None:
        aggregates.update(tx, aggregate_id, at=at, name=name)
    return aggregates.get(tx, aggregate_id)


def _set_metadata(tx: Tx, aggregate_id: int, items: Mapping[str, str | None], at: datetime) -> Aggregate:
    aggregate = aggregates.get(tx, aggregate_id)
    if ZONE_KEY in items:
        _check_zone(tx, aggregate, items[ZONE_KEY])
    merged = {**aggregate.metadata, **items}
    metadata = {key: value for key, value in merged.items() if value is not None}
    aggregates.update(tx, aggregate_id, at=at, metadata=metadata)
    return aggregates.get(tx, aggregate_id)


def _check_zone(tx: Tx, aggregate: Aggregate, zone: str | None) -> None:
    """Raise BadRequest if the aggregate's hosts cannot change to `zone` (None: to the default)."""
    if zone == aggregate.availability_zone:
        return
    if zone is not None and (not zone or ":" in zone or len(zone) > 255):
        raise BadRequest(f"Invalid availability_zone '{zone}': 1 to 255 characters, without a colon.")
    if zone is not None:
        for other in aggregates.list_all(tx):
            shared = sorted(set(other.hosts) & set(aggregate.hosts))
            if other.id != aggregate.id and shared and other.availability_zone not in (None, zone):
                raise BadRequest(
                    f"Host {shared[0]} is in zone {other.availability_zone} by aggregate {other.name}: it cannot be in "
                    f"{zone} as well."
                )
    busy = aggregates.hosts_with_servers(tx, aggregate.hosts)
    if busy:
        raise BadRequest(f"Host {busy[0]} has servers: its zone cannot be changed. Move or delete them first.")


def _delete(tx: Tx, aggregate_id: int) -> None:
    aggregate = aggregates.get(tx, aggregate_id)
    if aggregate.hosts:
        raise BadRequest(f"Aggregate {aggregate_id} has hosts. Take them out first.")
    aggregates.delete(tx, aggregate_id)


def _add_host(tx: Tx, aggregate_id: int, host: str) -> Aggregate:
    aggregate = aggregates.get(tx, aggregate_id)
    hosts.id_of(tx, host)
    zone, current = aggregate.availability_zone, aggregates.zone_of_hosts(tx).get(host)
    if zone is not None and current not in (None, zone):
        raise Conflict(f"Cannot add host {host} to aggregate {aggregate_id}: it is in zone {current} already.")
    if zone is not None and current is None and aggregates.hosts_with_servers(tx, [host]):
        raise Conflict(
            f"Cannot add host {host} to aggregate {aggregate_id}: its servers would change their zone to {zone}. "
            "Move or delete them first."
        )
    aggregates.add_host(tx, aggregate_id, host)
    return aggregates.get(tx, aggregate_id)


def _remove_host(tx: Tx, aggregate_id: int, host: str) -> Aggregate:
    aggregate = aggregates.get(tx, aggregate_id)
    aggregates.remove_host(tx, aggregate_id, host)
    left = aggregates.zone_of_hosts(tx).get(host)
    if aggregate.availability_zone not in (None, left) and aggregates.hosts_with_servers(tx, [host]):
        raise Conflict(
            f"Cannot remove host {host} from aggregate {aggregate_id}: its servers would leave their zone. "
            "Move or delete them first."
        )
    return aggregates.get(tx, aggregate_id)
