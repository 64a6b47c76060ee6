"""Which CPUs, memory and devices of its host a guest runs on: from what it holds of the host. Pure.

A claim says what a server took of each host cell; the guest's own cells and CPUs are matched to it here. The answer
depends on nothing else, so it is the same whenever it is asked.
"""

import itertools
from collections.abc import Mapping, Sequence

from kilonova.model.devices import Held, HeldCell
from kilonova.model.guest import CellPlan
from kilonova.model.host import NumaCell
from kilonova.model.numa import SMALL_PAGE_KIB, GuestCell, GuestTopology


class LayoutError(ValueError):
    """What the server holds is not what it asks for; the message says how they differ."""


def lay_out(guest: GuestTopology, held: Held, host: Sequence[NumaCell]) -> tuple[CellPlan, ...]:
    """One plan for each of the guest's cells, in their order.

    Raises:
        LayoutError
    """
    cells = {cell.id: cell for cell in host}
    for chosen in itertools.permutations(held.cells, len(guest.cells)):
        if all(_is_for(piece, wants) for piece, wants in zip(chosen, guest.cells, strict=True)):
            return tuple(
                _plan(piece, wants, cells, guest.threads) for piece, wants in zip(chosen, guest.cells, strict=True)
            )
    raise LayoutError(
        f"The server holds {len(held.cells)} NUMA cells that do not match the {len(guest.cells)} it wants."
    )


def _is_for(piece: HeldCell, wants: GuestCell) -> bool:
    return (
        piece.vcpus == wants.vcpus - wants.pinned
        and piece.memory_mib == wants.memory_mib
        and len(piece.pins) >= wants.pinned
        and bool(piece.pins) == bool(wants.pinned)
    )


def _plan(piece: HeldCell, wants: GuestCell, cells: Mapping[int, NumaCell], threads: str) -> CellPlan:
    cell = cells.get(piece.id)
    if cell is None:
        raise LayoutError(f"The host has no NUMA cell {piece.id} any more.")
    own = _own_cpus(piece, cell, threads)
    if len(own) < len(wants.own):
        raise LayoutError(f"The server holds {len(own)} CPUs of cell {piece.id}, and wants {len(wants.own)}.")
    sizes = [int(size) for size, count in piece.pages.items() if count and int(size) > SMALL_PAGE_KIB]
    return CellPlan(
        host_cell=piece.id,
        cpus=wants.cpus,
        memory_mib=wants.memory_mib,
        pins=tuple(zip(wants.own, own, strict=False)),
        shared_cpus=cell.cpus,
        page_kib=max(sizes, default=0),
    )


def _own_cpus(piece: HeldCell, cell: NumaCell, threads: str) -> tuple[int, ...]:
    if threads != "isolate":
        return piece.pins
    # One thread of each core works; the others were taken to stay empty.
    cores = [set(core) & set(piece.pins) for core in cell.siblings]
    alone = set(piece.pins).difference(*cores)
    return tuple(sorted([*(min(core) for core in cores if core), *alone]))
