"""NUMA: what a guest asks for, whether it fits a host, and what of the host it takes. Pure; units in names.

A guest asks by extra specs of its flavor or, under the same names with ``_`` for ``:``, by properties of its
image: ``hw:numa_nodes``, ``hw:numa_cpus.N``, ``hw:numa_mem.N``, ``hw:cpu_policy``, ``hw:cpu_thread_policy``,
``hw:cpu_dedicated_mask``, ``hw:mem_page_size``. Each guest cell goes to a host cell of its own.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from kilonova.model.host import NumaCell, Pages

SMALL_PAGE_KIB = 4


class Asking(Protocol):
    """The part of a request that speaks of NUMA."""

    @property
    def vcpus(self) -> int: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def extra_specs(self) -> dict[str, str]: ...
    @property
    def image_properties(self) -> dict[str, Any]: ...


class GuestCell(msgspec.Struct, frozen=True, kw_only=True):
    """One NUMA cell of a guest. `pinned` of its `vcpus` each get a host CPU of their own."""

    vcpus: int
    pinned: int
    memory_mib: int
    cpus: tuple[int, ...] = ()
    """Which of the guest's CPUs these are."""
    own: tuple[int, ...] = ()
    """Of `cpus`, those that are pinned."""


class GuestTopology(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest asks for."""

    cells: tuple[GuestCell, ...]
    threads: str = "prefer"
    """``prefer`` siblings, ``require`` them, or ``isolate``: leave the other threads of each core empty."""
    pages: str = ""
    """``small``, ``large``, ``any``, a size in KiB, or empty for no demand."""


class MalformedTopology(ValueError):
    """The extra specs or properties contradict each other or cannot be read; the message says how."""


def asked(spec: Asking, name: str) -> str:
    """A ``hw:`` extra spec or the image property that means the same; empty if there is neither."""
    return str(spec.extra_specs.get(f"hw:{name}") or spec.image_properties.get(f"hw_{name}") or "").strip()


def dedicated_cpus(spec: Asking) -> int:
    """How many of a request's CPUs want a host CPU of their own."""
    match asked(spec, "cpu_policy"):
        case "dedicated":
            return spec.vcpus
        case "mixed":
            try:
                return len(_cpu_set(asked(spec, "cpu_dedicated_mask"), spec.vcpus))
            except MalformedTopology:
                return 0
    return 0


def guest_topology(spec: Asking) -> GuestTopology | None:
    """What a request asks for; None if it does not care.

    Raises:
        MalformedTopology
    """
    policy, pages = asked(spec, "cpu_policy"), asked(spec, "mem_page_size")
    nodes, threads = asked(spec, "numa_nodes"), asked(spec, "cpu_thread_policy") or "prefer"
    if policy not in ("", "shared", "dedicated", "mixed"):
        raise MalformedTopology(f"hw:cpu_policy '{policy}' is none of shared, dedicated, mixed")
    if threads not in ("prefer", "require", "isolate"):
        raise MalformedTopology(f"hw:cpu_thread_policy '{threads}' is none of prefer, require, isolate")
    if not nodes and not pages and policy in ("", "shared"):
        return None
    own = set(range(spec.vcpus)) if policy == "dedicated" else set()
    if policy == "mixed":
        own = _cpu_set(asked(spec, "cpu_dedicated_mask"), spec.vcpus)
    count = _whole(nodes or "1", "hw:numa_nodes")
    if count < 1 or count > spec.vcpus:
        raise MalformedTopology(f"hw:numa_nodes is {count}, with {spec.vcpus} vCPUs")
    cpu_sets, memories = _cpus_of_cells(spec, count), _memory_of_cells(spec, count)
    cells = tuple(
        GuestCell(
            vcpus=len(cpus),
            pinned=len(cpus & own),
            memory_mib=memory,
            cpus=tuple(sorted(cpus)),
            own=tuple(sorted(cpus & own)),
        )
        for cpus, memory in zip(cpu_sets, memories, strict=True)
    )
    return GuestTopology(cells=cells, threads=threads, pages=_page_demand(pages))


def _cpus_of_cells(spec: Asking, count: int) -> list[set[int]]:
    texts = [asked(spec, f"numa_cpus.{number}") for number in range(count)]
    if not any(texts):
        if spec.vcpus % count:
            raise MalformedTopology(f"{spec.vcpus} vCPUs cannot be split evenly over {count} NUMA nodes")
        share = spec.vcpus // count
        return [set(range(number * share, (number + 1) * share)) for number in range(count)]
    sets = [_cpu_set(text, spec.vcpus) for text in texts]
    if sum(map(len, sets)) != spec.vcpus or set().union(*sets) != set(range(spec.vcpus)):
        raise MalformedTopology("hw:numa_cpus.N do not name each vCPU once")
    return sets


def _memory_of_cells(spec: Asking, count: int) -> list[int]:
    texts = [asked(spec, f"numa_mem.{number}") for number in range(count)]
    if not any(texts):
        if spec.memory_mib % count:
            raise MalformedTopology(f"{spec.memory_mib} MiB cannot be split evenly over {count} NUMA nodes")
        return [spec.memory_mib // count] * count
    amounts = [_whole(text, f"hw:numa_mem.{number}") for number, text in enumerate(texts)]
    if sum(amounts) != spec.memory_mib:
        raise MalformedTopology(f"hw:numa_mem.N sum up to {sum(amounts)} MiB, not to {spec.memory_mib}")
    return amounts


def _cpu_set(text: str, vcpus: int) -> set[int]:
    """``0-3,^2,7`` as numbers."""
    found: set[int] = set()
    removed: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\^?)(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            raise MalformedTopology(f"'{text}' is no list of CPUs")
        first, last = int(match[2]), int(match[3] or match[2])
        (removed if match[1] else found).update(range(first, last + 1))
    if not found and removed:
        found = set(range(vcpus))
    found -= removed
    if not found or max(found) >= vcpus:
        raise MalformedTopology(f"'{text}' names no CPU of the {vcpus} there are, or others")
    return found


def _whole(text: str, name: str) -> int:
    if not text.isdecimal():
        raise MalformedTopology(f"{name} is '{text}', which is no whole number")
    return int(text)


def _page_demand(text: str) -> str:
    if text in ("", "small", "large", "any"):
        return text
    match = re.fullmatch(r"(\d+)\s*(|[KMG]i?B?)", text, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise MalformedTopology(f"hw:mem_page_size '{text}' is neither a size nor one of small, large, any")
    factor = {"": 1, "K": 1, "M": 1024, "G": 1024 * 1024}[match[2][:1].upper()]
    return str(int(match[1]) * factor)


# ---- fitting ---------------------------------------------------------------------------------------------------


def placements(
    host: Sequence[NumaCell], guest: GuestTopology, *, cpu_ratio: float = 1.0, memory_ratio: float = 1.0
) -> Iterator[tuple[frozenset[int], tuple[NumaCell, ...]]]:
    """Every way in which the guest fits: the ids of the cells it would use, and the host's cells afterwards."""
    for chosen in itertools.permutations(host, len(guest.cells)):
        taken = _take_all(chosen, guest, cpu_ratio, memory_ratio)
        if taken is not None:
            yield frozenset(taken), tuple(taken.get(cell.id, cell) for cell in host)


def _take_all(
    chosen: Sequence[NumaCell], guest: GuestTopology, cpu_ratio: float, memory_ratio: float
) -> dict[int, NumaCell] | None:
    taken = {}
    for cell, wants in zip(chosen, guest.cells, strict=True):
        after = _take(cell, wants, guest, cpu_ratio, memory_ratio)
        if after is None:
            return None
        taken[cell.id] = after
    return taken


def _take(
    cell: NumaCell, wants: GuestCell, guest: GuestTopology, cpu_ratio: float, memory_ratio: float
) -> NumaCell | None:
    floating = wants.vcpus - wants.pinned
    if floating and (floating > len(cell.cpus) or cell.vcpus_used + floating > len(cell.cpus) * cpu_ratio):
        return None
    pins = _pins(cell, wants.pinned, guest.threads)
    if pins is None:
        return None
    pages = _pages(cell, wants.memory_mib, guest.pages, memory_ratio)
    if pages is None:
        return None
    return msgspec.structs.replace(
        cell,
        vcpus_used=cell.vcpus_used + floating,
        pinned_cpus=tuple(sorted({*cell.pinned_cpus, *pins})),
        memory_used_mib=cell.memory_used_mib + wants.memory_mib,
        pages=pages,
    )


def _pins(cell: NumaCell, count: int, threads: str) -> set[int] | None:
    """CPUs to take for `count` pinned ones; with ``isolate`` also the threads that stay empty beside them."""
    if not count:
        return set()
    free = set(cell.dedicated_cpus) - set(cell.pinned_cpus)
    cores = [set(core) & free for core in cell.siblings if len(core) > 1]
    alone = [{cpu} for cpu in sorted(free - set().union(*map(set, cell.siblings)))]
    if threads == "isolate":
        whole = [set(core) for core in cell.siblings if len(core) > 1 and set(core) <= free]
        whole += [{cpu} for core in cell.siblings if len(core) == 1 for cpu in core if cpu in free] + alone
        return set().union(*whole[:count]) if len(whole) >= count else None
    if threads == "require":
        return _fill([core for core in cores if len(core) > 1], count, whole_only=True)
    singles = [{cpu} for core in cell.siblings if len(core) == 1 for cpu in core if cpu in free]
    # Broken cores last for many, first for few: whole cores stay whole as long as they can.
    return _fill(sorted(cores, key=len, reverse=True) + singles + alone, count, whole_only=False)


def _fill(cores: Sequence[set[int]], count: int, *, whole_only: bool) -> set[int] | None:
    """`count` CPUs from `cores`, core by core; with `whole_only`, no core is used by a single thread of it."""
    pins: set[int] = set()
    for core in cores:
        left = count - len(pins)
        if left <= 0:
            break
        if whole_only and (left == 1 or len(core) < 2):
            continue
        some = sorted(core)[:left]
        pins.update(some)
    return pins if len(pins) == count else None


def _pages(cell: NumaCell, memory_mib: int, demand: str, memory_ratio: float) -> tuple[Pages, ...] | None:
    """The cell's pages after the memory was taken; None if it is not there."""
    if memory_mib > cell.memory_mib:
        return None
    if not demand or (demand in ("small", "any") and not cell.pages):
        # No demand: what counts is memory as a whole, which may be over-committed.
        fits = cell.memory_used_mib + memory_mib <= cell.memory_mib * memory_ratio
        return cell.pages if fits else None
    for pages in _meeting(cell, demand):
        needed, rest = divmod(memory_mib * 1024, pages.size_kib)
        if not rest and pages.used + needed <= pages.total:
            taken = msgspec.structs.replace(pages, used=pages.used + needed)
            return tuple(taken if each is pages else each for each in cell.pages)
    return None


def _meeting(cell: NumaCell, demand: str) -> Iterator[Pages]:
    """Pages of the cell whose size meets the demand, largest first."""
    for pages in sorted(cell.pages, key=lambda pages: pages.size_kib, reverse=True):
        kind = "large" if pages.size_kib > SMALL_PAGE_KIB else "small"
        if demand in ("any", kind, str(pages.size_kib)):
            yield pages
