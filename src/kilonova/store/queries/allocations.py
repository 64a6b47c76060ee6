"""Taking and giving back the capacity of hosts. Nothing else writes `inventories.used`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from kilonova.model.errors import ClaimLost
from kilonova.model.numa import GuestTopology
from kilonova.model.request_spec import PciRequest, ServerGroup
from kilonova.store.queries import devices, groups, hosts
from kilonova.store.tables.hosts import allocations, inventories
from kilonova.store.transactions import Tx


@dataclass(frozen=True, kw_only=True)
class FineNeeds:
    """What a server wants besides amounts."""

    group: ServerGroup | None = None
    """Whose rule must be kept."""
    topology: GuestTopology | None = None
    pci: Sequence[PciRequest] = ()


NOTHING_FINE = FineNeeds()

_inv = inventories.c
_al = allocations.c

_AMOUNT = sa.bindparam("amount", type_=sa.BigInteger)
_OF_HOST = sa.update(inventories).where(
    _inv.host_id == sa.bindparam("host"), _inv.resource_class == sa.bindparam("what")
)
_TAKE = _OF_HOST.where(_inv.used + _AMOUNT <= (_inv.total - _inv.reserved) * _inv.allocation_ratio).values(
    used=_inv.used + _AMOUNT
)
_RETURN = _OF_HOST.values(used=_inv.used - _AMOUNT)
_HELD = sa.select(_al.host_id, _al.resource_class, _al.used).where(_al.server_id == sa.bindparam("server"))
_HELD_LOCKED = _HELD.with_for_update()  # SQLite, which has one writer at a time, leaves it out
_ALLOCATE = sa.insert(allocations)
_FORGET = sa.delete(allocations).where(_al.server_id == sa.bindparam("server"), _al.host_id == sa.bindparam("host"))


class Claimed(NamedTuple):
    """Where a server has its room."""

    host_id: int
    host: str
    races_lost: dict[str, str]
    """Candidates that were better, and what somebody else had taken there in between."""


def claim_first(
    tx: Tx,
    *,
    server_id: str,
    candidates: Sequence[tuple[int, str]],
    amounts: Mapping[str, int],
    fine: FineNeeds = NOTHING_FINE,
) -> Claimed:
    """Claim on the first of `candidates` (pairs of host id and name) that still has room.

    A server that already holds a claim keeps it: claiming twice has the effect of once.

    Args:
        fine: what cannot be counted in amounts: a group's rule, NUMA cells, devices. All is taken together, or nothing.

    Raises:
        ClaimLost: none of them has room any more.
    """
    held = {row.host_id for row in tx.execute(_HELD, {"server": server_id})}
    for host_id, name in candidates:
        if host_id in held:
            return Claimed(host_id, name, {})
    if held:
        release(tx, server_id=server_id)
    races_lost: dict[str, str] = {}
    for host_id, name in candidates:
        lost = _try_claim(tx, server_id=server_id, host_id=host_id, amounts=amounts)
        if lost is None:
            lost = _try_fine(tx, server_id=server_id, host_id=host_id, fine=fine)
        if lost is None:
            hosts.touch(tx, [host_id])
            return Claimed(host_id, name, races_lost)
        races_lost[name] = lost
    raise ClaimLost(resource_class=next(reversed(races_lost.values()), ""))


def _try_fine(tx: Tx, *, server_id: str, host_id: int, fine: FineNeeds) -> str | None:
    """Take what cannot be counted, or give back all; what does not fit, or None."""
    lost = None
    if not devices.claim(tx, server_id=server_id, host_id=host_id, guest=fine.topology, requests=fine.pci):
        lost = "the NUMA cells or devices asked for"
    elif fine.group is not None and not groups.claim(tx, fine.group, server_id=server_id, host_id=host_id):
        lost = f"another server of group {fine.group.id}"
    if lost is not None:
        devices.release(tx, server_id)
        _drop(tx, server_id)
    return lost


def _try_claim(tx: Tx, *, server_id: str, host_id: int, amounts: Mapping[str, int]) -> str | None:
    """Take all amounts of one host or none; the resource class that does not fit, or None.

    One conditional UPDATE per resource class decides the race, in class order so that two claims cannot
    lock each other out.
    """
    taken: dict[str, int] = {}
    for resource_class, amount in sorted(amounts.items()):
        took = tx.execute(_TAKE, {"host": host_id, "what": resource_class, "amount": amount})
        if took.rowcount == 0:
            _give_back(tx, host_id, taken)
            return resource_class
        taken[resource_class] = amount
    if taken:
        tx.execute(
            _ALLOCATE,
            [
                {"server_id": server_id, "host_id": host_id, "resource_class": name, "used": amount}
                for name, amount in taken.items()
            ],
        )
    return None


def _give_back(tx: Tx, host_id: int, amounts: Mapping[str, int]) -> None:
    for resource_class, amount in sorted(amounts.items()):
        tx.execute(_RETURN, {"host": host_id, "what": resource_class, "amount": amount})


def release(tx: Tx, *, server_id: str) -> None:
    """Give back all that a server holds. Holding nothing is not an error."""
    groups.release(tx, server_id)
    devices.release(tx, server_id)
    touched = _drop(tx, server_id)
    if touched:
        hosts.touch(tx, touched)


def _drop(tx: Tx, server_id: str) -> list[int]:
    """Give back a server's amounts; the hosts where it held some."""
    by_host: dict[int, dict[str, int]] = {}
    # Locked, so that what is given back is what is removed: who drops the same at the same moment finds nothing.
    for row in tx.execute(_HELD_LOCKED, {"server": server_id}):
        by_host.setdefault(row.host_id, {})[row.resource_class] = row.used
    for host_id, amounts in sorted(by_host.items()):
        tx.execute(_FORGET, {"server": server_id, "host": host_id})
        _give_back(tx, host_id, amounts)
    return sorted(by_host)


def of_server(tx: Tx, server_id: str) -> dict[int, dict[str, int]]:
    """What a server holds: host id to resource class to amount."""
    held: dict[int, dict[str, int]] = {}
    for row in tx.execute(sa.select(allocations).where(_al.server_id == server_id)):
        held.setdefault(row.host_id, {})[row.resource_class] = row.used
    return held


def hosts_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, int]:
    """Server to the id of the host on which it holds a claim, of those servers that hold one."""
    found: dict[str, int] = {}
    for start in range(0, len(server_ids), 500):  # databases limit the length of a list
        some = server_ids[start : start + 500]
        query = sa.select(_al.server_id, _al.host_id).where(_al.server_id.in_(some)).distinct()
        found.update((row.server_id, row.host_id) for row in tx.execute(query))
    return found


def drift(tx: Tx) -> list[tuple[int, str, int, int]]:
    """Where `inventories.used` is not the sum of the allocations: (host id, class, used, sum). Always empty."""
    total = sa.func.coalesce(sa.func.sum(_al.used), 0)
    rows = tx.execute(
        sa.select(_inv.host_id, _inv.resource_class, _inv.used, total.label("held"))
        .select_from(
            inventories.outerjoin(
                allocations,
                sa.and_(_al.host_id == _inv.host_id, _al.resource_class == _inv.resource_class),
            )
        )
        .group_by(_inv.host_id, _inv.resource_class, _inv.used)
        .having(_inv.used != total)
    )
    return [(row.host_id, row.resource_class, row.used, int(row.held)) for row in rows]
