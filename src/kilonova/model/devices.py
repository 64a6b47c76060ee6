"""What of a host is given out piece by piece: NUMA cells with their CPUs and pages, and PCI devices. Pure.

Amounts (how many CPUs, how much memory) are claimed by a conditional write on a number. Which CPUs, which pages and
which devices cannot be: so each host that has any keeps one document of them, which a claim reads, changes and
writes back under its version.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kilonova.model.host import NumaCell, PciDevice, PciPool
from kilonova.model.numa import GuestTopology
from kilonova.model.pci import place
from kilonova.model.request_spec import PciRequest


class HeldCell(msgspec.Struct, frozen=True, kw_only=True):
    """What a server holds of one NUMA cell."""

    id: int
    vcpus: int = 0
    """On floating CPUs."""
    memory_mib: int = 0
    pins: tuple[int, ...] = ()
    """Host CPUs of its own; with ``isolate`` also those that stay empty beside them."""
    pages: dict[str, int] = {}
    """Page size in KiB to pages."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a server holds."""

    cells: tuple[HeldCell, ...] = ()
    devices: tuple[str, ...] = ()
    """Addresses of PCI devices."""


class HostDevices(msgspec.Struct, frozen=True, kw_only=True):
    """A host's cells and devices, and who has which."""

    cells: tuple[NumaCell, ...] = ()
    devices: tuple[PciDevice, ...] = ()
    holders: dict[str, str] = {}
    """Address of a device to the server that has it."""

    @property
    def pools(self) -> tuple[PciPool, ...]:
        """Equal devices together, with how many are free."""
        return tuple(
            PciPool(
                vendor_id=first.vendor_id,
                product_id=first.product_id,
                dev_type=first.dev_type,
                numa_node=first.numa_node,
                tags=first.tags,
                free=sum(device.address not in self.holders for device in group),
            )
            for first, *rest in self._groups()
            for group in [(first, *rest)]
        )

    def _groups(self) -> Iterable[Sequence[PciDevice]]:
        groups: dict[Any, list[PciDevice]] = {}
        for device in self.devices:
            key = (
                device.vendor_id,
                device.product_id,
                device.dev_type,
                device.numa_node,
                tuple(sorted(device.tags.items())),
            )
            groups.setdefault(key, []).append(device)
        return groups.values()

    def take(
        self,
        server_id: str,
        guest: GuestTopology | None,
        requests: Sequence[PciRequest],
        *,
        cpu_ratio: float,
        memory_ratio: float,
    ) -> "tuple[HostDevices, Held] | None":
        """Give a server what it wants; the host afterwards and what the server holds. None if it does not fit."""
        before = self.pools
        after = place(self.cells, before, guest, requests, cpu_ratio=cpu_ratio, memory_ratio=memory_ratio)
        if after is None:
            return None
        cells, pools = after
        given: list[str] = []
        for group, old, new in zip(self._groups(), before, pools, strict=True):
            free = [device.address for device in group if device.address not in self.holders]
            given += free[: old.free - new.free]
        held = Held(
            cells=tuple(_difference(old, new) for old, new in zip(self.cells, cells, strict=True) if old != new),
            devices=tuple(given),
        )
        holders = {**self.holders, **dict.fromkeys(given, server_id)}
        return HostDevices(cells=cells, devices=self.devices, holders=holders), held

    def give_back(self, server_id: str, held: Held) -> "HostDevices":
        """The host after a server gave back what it held."""
        of_cell = {cell.id: cell for cell in held.cells}
        return HostDevices(
            cells=tuple(_without(cell, of_cell[cell.id]) if cell.id in of_cell else cell for cell in self.cells),
            devices=self.devices,
            holders={address: who for address, who in self.holders.items() if who != server_id},
        )

    def reported(self, cells: Sequence[NumaCell], devices: Sequence[PciDevice]) -> "HostDevices":
        """The host as its agent says it is now. What is held stays held."""
        known = {cell.id: cell for cell in self.cells}
        there = {device.address for device in devices}
        held = [device for device in self.devices if device.address in self.holders and device.address not in there]
        said = {cell.id for cell in cells}
        used = [_closed(cell) for cell in self.cells if cell.id not in said and _is_used(cell)]
        return HostDevices(
            cells=(*(_with_use(cell, known.get(cell.id)) for cell in cells), *used),
            devices=(*devices, *held),
            holders=self.holders,
        )


def _difference(old: NumaCell, new: NumaCell) -> HeldCell:
    before = {pages.size_kib: pages.used for pages in old.pages}
    return HeldCell(
        id=new.id,
        vcpus=new.vcpus_used - old.vcpus_used,
        memory_mib=new.memory_used_mib - old.memory_used_mib,
        pins=tuple(sorted(set(new.pinned_cpus) - set(old.pinned_cpus))),
        pages={
            str(pages.size_kib): pages.used - before[pages.size_kib]
            for pages in new.pages
            if pages.used != before[pages.size_kib]
        },
    )


def _without(cell: NumaCell, held: HeldCell) -> NumaCell:
    return msgspec.structs.replace(
        cell,
        vcpus_used=max(0, cell.vcpus_used - held.vcpus),
        memory_used_mib=max(0, cell.memory_used_mib - held.memory_mib),
        pinned_cpus=tuple(cpu for cpu in cell.pinned_cpus if cpu not in held.pins),
        pages=tuple(
            msgspec.structs.replace(pages, used=max(0, pages.used - held.pages.get(str(pages.size_kib), 0)))
            for pages in cell.pages
        ),
    )


def _is_used(cell: NumaCell) -> bool:
    return bool(cell.vcpus_used or cell.memory_used_mib or cell.pinned_cpus or any(page.used for page in cell.pages))


def _closed(cell: NumaCell) -> NumaCell:
    """A cell that is not there any more, of which something is held: nothing more can be taken of it."""
    return msgspec.structs.replace(cell, cpus=(), dedicated_cpus=(), memory_mib=0)


def _with_use(cell: NumaCell, known: NumaCell | None) -> NumaCell:
    if known is None:
        return cell
    used: Mapping[int, int] = {pages.size_kib: pages.used for pages in known.pages}
    return msgspec.structs.replace(
        cell,
        vcpus_used=known.vcpus_used,
        memory_used_mib=known.memory_used_mib,
        pinned_cpus=known.pinned_cpus,
        pages=tuple(msgspec.structs.replace(pages, used=used.get(pages.size_kib, 0)) for pages in cell.pages),
    )
