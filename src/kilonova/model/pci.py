"""PCI devices for guests: aliases, requests, and whether a host can serve them, with NUMA or without. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kilonova.model.host import NumaCell, PciPool
from kilonova.model.numa import GuestTopology, placements
from kilonova.model.request_spec import PciRequest

_NUMA_POLICIES = ("required", "legacy", "preferred", "socket")


class MalformedAlias(ValueError):
    """An alias, or a flavor's use of one, cannot be understood; the message says how."""


def aliases(texts: Sequence[str]) -> dict[str, PciRequest]:
    """Alias name to a request for one such device, from the operator's JSON objects (``[pci] alias``).

    Several objects with one name are alternatives.

    Raises:
        MalformedAlias
    """
    found: dict[str, PciRequest] = {}
    for text in texts:
        try:
            given = json.loads(text)
        except ValueError as error:
            raise MalformedAlias(f"[pci] alias {text!r} is not JSON: {error}") from None
        for one in given if isinstance(given, list) else [given]:
            if not isinstance(one, dict) or not one.get("name"):
                raise MalformedAlias(f"[pci] alias {one!r} is no object with a name")
            name, policy = str(one["name"]), str(one.get("numa_policy", "legacy"))
            if policy not in _NUMA_POLICIES:
                raise MalformedAlias(f"[pci] alias {name}: numa_policy is none of {', '.join(_NUMA_POLICIES)}")
            spec = _spec(one)
            before = found[name].specs if name in found else ()
            found[name] = PciRequest(count=1, specs=(*before, spec), numa_policy=policy)
    return found


def _spec(alias: Mapping[str, Any]) -> dict[str, str]:
    ignored = ("name", "numa_policy", "capability_type", "device_type")
    spec = {key: str(value).lower() for key, value in alias.items() if key not in ignored}
    if "device_type" in alias:
        spec["dev_type"] = str(alias["device_type"])
    return spec


def requests_of_flavor(extra_specs: Mapping[str, str], known: Mapping[str, PciRequest]) -> tuple[PciRequest, ...]:
    """What ``pci_passthrough:alias`` (``gpu:2,nic:1``) asks for.

    Raises:
        MalformedAlias: an alias is unknown, or a count is none.
    """
    found = []
    for part in filter(None, (piece.strip() for piece in extra_specs.get("pci_passthrough:alias", "").split(","))):
        name, _, count = part.partition(":")
        if name not in known:
            raise MalformedAlias(f"PCI alias '{name}' is not known")
        if not count.strip().isdecimal() or not int(count):
            raise MalformedAlias(f"pci_passthrough:alias '{part}' has no count")
        found.append(msgspec.structs.replace(known[name], count=int(count)))
    return tuple(found)


def take(
    pools: Sequence[PciPool], requests: Sequence[PciRequest], *, cells: frozenset[int] | None = None
) -> tuple[PciPool, ...] | None:
    """The pools after all requests were served; None if they cannot be.

    Args:
        cells: NUMA cells that the guest uses. A ``required`` device must be in one of them; a ``legacy`` one
            in one of them or in none that is known.
    """
    free = [pool.free for pool in pools]
    given: list[Counter[int]] = [Counter() for _ in requests]
    # Devices near the guest first; then small pools, so that large ones stay large.
    order = sorted(range(len(pools)), key=lambda n: (cells is not None and pools[n].numa_node not in cells, free[n]))
    suiting = [[n for n in order if _matches(pools[n], request, cells)] for request in requests]

    def serve(request: int, seen: set[int]) -> bool:
        """Give a request one more device, if need be one that another request can replace."""
        for pool in suiting[request]:
            if free[pool]:
                free[pool] -= 1
                given[request][pool] += 1
                return True
        for pool in suiting[request]:
            if pool not in seen:
                seen.add(pool)
                for other, of_other in enumerate(given):
                    if of_other[pool] and other != request and serve(other, seen):
                        of_other[pool] -= 1
                        given[request][pool] += 1
                        return True
        return False

    # Requests with the fewest devices to choose from go first: then they seldom have to be helped.
    for request in sorted(range(len(requests)), key=lambda r: sum(pools[n].free for n in suiting[r])):
        for _ in range(requests[request].count):
            if not serve(request, set()):
                return None
    return tuple(
        pool if pool.free == left else msgspec.structs.replace(pool, free=left)
        for pool, left in zip(pools, free, strict=True)
    )


def place(
    cells: Sequence[NumaCell],
    pools: Sequence[PciPool],
    guest: GuestTopology | None,
    requests: Sequence[PciRequest],
    *,
    cpu_ratio: float = 1.0,
    memory_ratio: float = 1.0,
) -> tuple[tuple[NumaCell, ...], tuple[PciPool, ...]] | None:
    """The host's NUMA cells and device pools after a guest with these demands; None if it does not fit."""
    if guest is None:
        left = take(pools, requests)
        return None if left is None else (tuple(cells), left)
    for used, after in placements(cells, guest, cpu_ratio=cpu_ratio, memory_ratio=memory_ratio):
        left = take(pools, requests, cells=used)
        if left is not None:
            return after, left
    return None


def _matches(pool: PciPool, request: PciRequest, cells: frozenset[int] | None) -> bool:
    if cells is not None and request.numa_policy != "preferred" and pool.numa_node not in cells:
        near = request.numa_policy == "legacy" and pool.numa_node is None
        if not near:
            return False
    return any(_is(pool, spec) for spec in request.specs)


def _is(pool: PciPool, spec: Mapping[str, str]) -> bool:
    facts = {
        **{key: value.lower() for key, value in pool.tags.items()},
        "vendor_id": pool.vendor_id.lower(),
        "product_id": pool.product_id.lower(),
        "dev_type": pool.dev_type,
    }
    return all(facts.get(key) == value for key, value in spec.items())
