"""NUMA cells and PCI devices of hosts: reported, claimed and given back under a version."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from kilonova.model.devices import Held, HostDevices
from kilonova.model.errors import Unavailable
from kilonova.model.host import NumaCell, PciDevice
from kilonova.model.numa import GuestTopology
from kilonova.model.request_spec import PciRequest
from kilonova.store.tables.devices import device_claims, host_devices
from kilonova.store.tables.hosts import inventories
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows

_ATTEMPTS = 10
"""Others who change the same host's document at the same moment, before a claim gives way."""

_WRITE = (
    sa.update(host_devices)
    .where(host_devices.c.host_id == sa.bindparam("host"), host_devices.c.version == sa.bindparam("seen"))
    .values(version=host_devices.c.version + 1, document=sa.bindparam("changed", type_=sa.JSON()))
)
_FORGET = sa.delete(device_claims).where(device_claims.c.server_id == sa.bindparam("server"))


def of_hosts(tx: Tx, host_ids: Collection[int] | None) -> dict[int, HostDevices]:
    """The documents of some hosts (None: all), of those that have one."""
    query = sa.select(host_devices)
    if host_ids is not None:
        query = query.where(host_devices.c.host_id.in_(host_ids))
    return {row.host_id: msgspec.convert(row.document, HostDevices) for row in tx.execute(query)}


def held_by(tx: Tx, server_id: str) -> tuple[Held, tuple[NumaCell, ...]]:
    """What a server holds, and the cells of the host where it holds it."""
    row = select_rows(tx, device_claims, {"server_id": server_id}).first()
    if row is None:
        return Held(), ()
    return msgspec.convert(row.held, Held), of_hosts(tx, [row.host_id])[row.host_id].cells


def report(tx: Tx, host_id: int, cells: Sequence[NumaCell], devices: Sequence[PciDevice]) -> bool:
    """Write what a host has; whether that is news."""
    for _ in range(_ATTEMPTS):
        row = select_rows(tx, host_devices, {"host_id": host_id}).first()
        if row is None and not cells and not devices:
            return False
        if row is None:
            document = msgspec.to_builtins(HostDevices(cells=tuple(cells), devices=tuple(devices)))
            if insert_if_absent(tx, host_devices, {"host_id": host_id, "version": 1, "document": document}):
                return True
            continue
        known = msgspec.convert(row.document, HostDevices)
        now = known.reported(cells, devices)
        if now == known:
            return False
        if _write(tx, row, now):
            return True
    raise Unavailable("The host's devices change too often to be written.")


def claim(tx: Tx, *, server_id: str, host_id: int, guest: GuestTopology | None, requests: Sequence[PciRequest]) -> bool:
    """Take a server's cells and devices of one host; whether they were there. The server holds none yet."""
    if guest is None and not requests:
        return True
    ratios = {row.resource_class: row.allocation_ratio for row in select_rows(tx, inventories, {"host_id": host_id})}
    for _ in range(_ATTEMPTS):
        row = select_rows(tx, host_devices, {"host_id": host_id}).first()
        if row is None:
            return False
        taken = msgspec.convert(row.document, HostDevices).take(
            server_id,
            guest,
            requests,
            cpu_ratio=ratios.get("VCPU", 1.0),
            memory_ratio=ratios.get("MEMORY_MB", 1.0),
        )
        if taken is None:
            return False
        after, held = taken
        if _write(tx, row, after):
            claim_row = {"server_id": server_id, "host_id": host_id, "held": msgspec.to_builtins(held)}
            insert_row(tx, device_claims, claim_row)
            return True
    return False


def release(tx: Tx, server_id: str) -> None:
    """Give back what a server holds. Holding nothing is not an error."""
    claim_row = select_rows(tx, device_claims, {"server_id": server_id}).first()
    if claim_row is None:
        return
    if tx.execute(_FORGET, {"server": server_id}).rowcount == 0:
        return  # somebody else gives it back at this moment
    held = msgspec.convert(claim_row.held, Held)
    for _ in range(_ATTEMPTS):
        row = select_rows(tx, host_devices, {"host_id": claim_row.host_id}).first()
        if row is None or _write(tx, row, msgspec.convert(row.document, HostDevices).give_back(server_id, held)):
            return
    raise Unavailable("The host's devices change too often to be given back now.")


def _write(tx: Tx, seen: Any, now: HostDevices) -> bool:
    changed = {"host": seen.host_id, "seen": seen.version, "changed": msgspec.to_builtins(now)}
    return tx.execute(_WRITE, changed).rowcount > 0
