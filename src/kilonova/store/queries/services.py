"""Services: who is alive, who is disabled."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import Conflict, NotFound
from kilonova.model.service import Service, ServiceChange
from kilonova.store.queries import service_events
from kilonova.store.tables.hosts import services
from kilonova.store.transactions import Tx

_c = services.c


def _service(row: Any) -> Service:
    return Service(
        id=row.id,
        uuid=row.uuid,
        service=row.service,
        host=row.host,
        is_up=row.is_up and not row.forced_down,
        state_since=row.state_since,
        disabled=row.disabled,
        disabled_reason=row.disabled_reason,
        forced_down=row.forced_down,
        last_seen_at=row.last_seen_at,
        updated_at=row.updated_at,
    )


_BACK = "It reports again."


def register(
    tx: Tx, *, service: str, host: str, agent_id: str, uuid: str, at: datetime, owner_is_dead: bool = False
) -> bool:
    """A process says that it is `service` on `host`; whether the service came up by it.

    Args:
        owner_is_dead: the caller knows that the process that owned the name is gone.

    Raises:
        Conflict: another process that is alive owns that name.
    """
    row = tx.execute(sa.select(services).where(_c.service == service, _c.host == host)).first()
    if row is None:
        tx.execute(
            sa.insert(services).values(
                uuid=uuid,
                service=service,
                host=host,
                agent_id=agent_id,
                is_up=True,
                state_since=at,
                disabled=False,
                forced_down=False,
                last_seen_at=at,
                created_at=at,
                updated_at=at,
            )
        )
        service_events.add(tx, [(service, host)], ServiceChange.UP, "It reported for the first time.", at=at)
        return True
    if row.agent_id != agent_id and row.is_up and not owner_is_dead:
        raise Conflict(
            f"Another {service} service runs on {host} since {row.state_since:%Y-%m-%d %H:%M:%S}. "
            "Stop it, or give this one another host name."
        )
    tx.execute(
        sa.update(services)
        .where(_c.id == row.id)
        .values(
            agent_id=agent_id,
            is_up=True,
            state_since=row.state_since if row.is_up else at,
            last_seen_at=at,
        )
    )
    if not row.is_up:
        service_events.add(tx, [(service, host)], ServiceChange.UP, _BACK, at=at)
    return not row.is_up


def known(tx: Tx) -> dict[tuple[str, str], tuple[str, bool]]:
    """Every (service, host) with its owner and whether it is up."""
    rows = tx.execute(sa.select(_c.service, _c.host, _c.agent_id, _c.is_up))
    return {(row.service, row.host): (row.agent_id, row.is_up) for row in rows}


Name = tuple[str, str]
"""(service, host)."""

_OF_NAME = (_c.service == sa.bindparam("s"), _c.host == sa.bindparam("h"))
_SEEN = sa.update(services).where(*_OF_NAME).values(last_seen_at=sa.bindparam("t", type_=_c.last_seen_at.type))


def seen(tx: Tx, when: Mapping[Name, datetime], *, at: datetime) -> tuple[list[Name], list[Name]]:
    """Record many heartbeats at once: name to the time of the last, by the clock of the conductor that heard it.

    The stamp is written even if it is older than the one before: another conductor's clock may be ahead, and a stamp
    that moves is the sign of life.

    Returns:
        Those that had been marked down and are up again from now on, and those that there are no longer.
    """
    if not when:
        return [], []
    tx.execute(_SEEN, [{"s": service, "h": host, "t": heard} for (service, host), heard in sorted(when.items())])
    state = {(row.service, row.host): row.is_up for row in tx.execute(sa.select(_c.service, _c.host, _c.is_up))}
    back = [name for name in sorted(when) if state.get(name) is False]
    if back:
        tx.execute(
            sa.update(services).where(*_OF_NAME).values(is_up=True, state_since=at),
            [{"s": service, "h": host} for service, host in back],
        )
        service_events.add(tx, back, ServiceChange.UP, _BACK, at=at)
    return back, [name for name in sorted(when) if name not in state]


def mark_silent(tx: Tx, silent: Mapping[Name, datetime], *, at: datetime) -> list[Name]:
    """Mark services down whose last sign of life is still the given one; which these are."""
    # Another conductor may hear of one at this very moment: the condition is asked once more.
    down = [
        (service, host)
        for (service, host), stamp in sorted(silent.items())
        if tx.execute(
            sa.update(services)
            .where(_c.service == service, _c.host == host, _c.is_up, _c.last_seen_at == stamp)
            .values(is_up=False, state_since=at)
        ).rowcount
    ]
    for name in down:
        cause = f"Nothing was heard of it since {silent[name]:%Y-%m-%d %H:%M:%S} UTC."
        service_events.add(tx, [name], ServiceChange.DOWN, cause, at=at)
    return down


def silent(tx: Tx, *, before: datetime) -> dict[Name, datetime]:
    """Services that count as up and were last seen before `before`: name to that time."""
    rows = tx.execute(sa.select(_c.service, _c.host, _c.last_seen_at).where(_c.is_up, _c.last_seen_at < before))
    return {(row.service, row.host): row.last_seen_at for row in rows}


def list_all(tx: Tx, *, service: str | None = None, host: str | None = None) -> list[Service]:
    """Services by id."""
    wanted = {name: value for name, value in (("service", service), ("host", host)) if value is not None}
    return [_service(row) for row in tx.execute(_all_with(tuple(wanted)), wanted)]


@lru_cache(maxsize=4)
def _all_with(names: tuple[str, ...]) -> sa.Select[Any]:
    same = (_c[name] == sa.bindparam(name, type_=_c[name].type) for name in names)
    return sa.select(services).where(*same).order_by(_c.id)


def get(tx: Tx, uuid: str) -> Service:
    """One service.

    Raises:
        NotFound
    """
    row = tx.execute(sa.select(services).where(_c.uuid == uuid)).first()
    if row is None:
        raise NotFound(kind="Service", id=uuid)
    return _service(row)


def change(tx: Tx, uuid: str, *, at: datetime, **values: Any) -> Service:
    """Set `disabled`, `disabled_reason`, `forced_down`.

    Raises:
        NotFound
    """
    before = get(tx, uuid)
    if values.get("forced_down", before.forced_down) != before.forced_down:
        values["state_since"] = at
    tx.execute(sa.update(services).where(_c.uuid == uuid).values(updated_at=at, **values))
    after = get(tx, uuid)
    for event, cause in _told(before, after):
        service_events.add(tx, [(after.service, after.host)], event, cause, at=at)
    return after


def _told(before: Service, after: Service) -> Iterator[tuple[ServiceChange, str]]:
    if (before.disabled, before.disabled_reason) != (after.disabled, after.disabled_reason):
        event = ServiceChange.DISABLED if after.disabled else ServiceChange.ENABLED
        yield event, after.disabled_reason or "An administrator asked for it."
    if before.forced_down != after.forced_down:
        event = ServiceChange.FORCED_DOWN if after.forced_down else ServiceChange.NOT_FORCED_DOWN
        yield event, "An administrator asked for it."


def delete(tx: Tx, uuid: str, *, at: datetime) -> None:
    """Forget a service.

    Raises:
        NotFound
    """
    gone = get(tx, uuid)
    service_events.add(tx, [(gone.service, gone.host)], ServiceChange.DELETED, "An administrator asked for it.", at=at)
    tx.execute(sa.delete(services).where(_c.uuid == uuid))
