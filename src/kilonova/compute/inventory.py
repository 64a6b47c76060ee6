"""What an agent adds to the report of its hypervisor: CPUs that are given away one by one, own resources and traits."""

import re
from collections.abc import Sequence

import msgspec

from kilonova.base.config import ConfigError
from kilonova.model.host import Amount, HostReport, NumaCell

_RESOURCE = re.compile(r"(CUSTOM_[A-Z0-9_]{1,248})=(\d{1,12})")
_TRAIT = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")


class InventoryError(ConfigError):
    """An option cannot be read, or does not fit this host; the message says which and how it is written."""


def cpu_set(text: str) -> frozenset[int]:
    """CPUs from ``2-7,^5,12``.

    Raises:
        InventoryError
    """
    found: set[int] = set()
    removed: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\^?)(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            raise InventoryError(f"[compute] '{text}' is no list of CPUs such as 2-7,^5,12.")
        (removed if match[1] else found).update(range(int(match[2]), int(match[3] or match[2]) + 1))
    return frozenset(found - removed)


def with_dedicated(report: HostReport, dedicated: frozenset[int]) -> HostReport:
    """The report with `dedicated` CPUs set apart: they are PCPU, and no longer VCPU.

    Raises:
        InventoryError: a CPU is not there, or the hypervisor does not say which CPUs there are.
    """
    if not dedicated:
        return report
    cells = tuple(_set_apart(cell, dedicated) for cell in report.numa)
    apart = sum(len(cell.dedicated_cpus) for cell in cells)
    if apart != len(dedicated):
        raise InventoryError("[compute] cpu_dedicated_set names CPUs that this host does not have.")
    return msgspec.structs.replace(
        report,
        numa=cells,
        vcpus=report.vcpus - apart,
        more={**report.more, "PCPU": Amount(total=apart)},
    )


def _set_apart(cell: NumaCell, dedicated: frozenset[int]) -> NumaCell:
    return msgspec.structs.replace(
        cell,
        cpus=tuple(cpu for cpu in cell.cpus if cpu not in dedicated),
        dedicated_cpus=tuple(cpu for cpu in cell.cpus if cpu in dedicated),
    )


def custom_resources(texts: Sequence[str]) -> dict[str, Amount]:
    """``CUSTOM_LICENSE=5`` read.

    Raises:
        InventoryError
    """
    found = {}
    for text in texts:
        match = _RESOURCE.fullmatch(text.strip())
        if match is None:
            raise InventoryError(f"[compute] resources: '{text}' is not of the form CUSTOM_LICENSE=5.")
        found[match[1]] = Amount(total=int(match[2]))
    return found


def custom_traits(texts: Sequence[str]) -> tuple[str, ...]:
    """``CUSTOM_FAST_DISK``, checked.

    Raises:
        InventoryError
    """
    for text in texts:
        if _TRAIT.fullmatch(text.strip()) is None:
            raise InventoryError(f"[compute] traits: '{text}' is not of the form CUSTOM_FAST_DISK.")
    return tuple(text.strip() for text in texts)


def completed(
    report: HostReport, *, dedicated: frozenset[int], resources: dict[str, Amount], traits: Sequence[str]
) -> HostReport:
    """The hypervisor's report with what the operator says of this host."""
    apart = with_dedicated(report, dedicated)
    return msgspec.structs.replace(
        apart,
        more={**apart.more, **resources},
        traits=tuple(sorted({*apart.traits, *traits})),
    )
