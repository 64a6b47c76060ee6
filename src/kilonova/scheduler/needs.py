"""What one server of a request takes away from the host that it goes to."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from kilonova.model.numa import GuestTopology, MalformedTopology, guest_topology
from kilonova.model.pci import MalformedAlias, requests_of_flavor
from kilonova.model.request_spec import PciRequest, RequestSpec


@dataclass(frozen=True)
class Needs:
    """Amounts, NUMA cells and devices."""

    amounts: Mapping[str, int]
    """Resource class to amount, as claimed."""
    topology: GuestTopology | None = None
    pci: tuple[PciRequest, ...] = ()
    group_id: str = ""


K = TypeVar("K")
V = TypeVar("V")

_NO_ALIASES: Mapping[str, PciRequest] = {}


def needs_of(spec: RequestSpec, aliases: Mapping[str, PciRequest] = _NO_ALIASES) -> Needs:
    """What a server of `spec` takes. Demands that cannot be read take nothing: their filter refuses them."""
    topology = None
    pci = spec.pci_requests
    if spec.extra_specs or spec.image_properties:
        with contextlib.suppress(MalformedTopology):
            topology = guest_topology(spec)
        with contextlib.suppress(MalformedAlias):
            pci = (*pci, *requests_of_flavor(spec.extra_specs, aliases))
    return Needs(
        amounts=spec.amounts(),
        topology=topology,
        pci=pci,
        group_id=spec.group.id if spec.group is not None else "",
    )


@dataclass(frozen=True)
class Pending:
    """A choice of ours that no claim has confirmed yet."""

    server_id: str
    row: int
    needs: Needs
    taken_at: float
    """On the monotonic clock."""


@dataclass
class Promises:
    """The pending choices: by server, by host, by server group."""

    by_server: dict[str, Pending] = field(default_factory=dict)
    _of_row: dict[int, dict[str, Pending]] = field(default_factory=dict)
    _of_group: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, pending: Pending) -> None:
        """Keep a choice. The server has no other."""
        self.by_server[pending.server_id] = pending
        self._of_row.setdefault(pending.row, {})[pending.server_id] = pending
        if pending.needs.group_id:
            self._of_group.setdefault(pending.needs.group_id, {})[pending.server_id] = pending.row

    def remove(self, server_id: str) -> Pending:
        """Forget a server's choice, and return it."""
        pending = self.by_server.pop(server_id)
        _discard(self._of_row, pending.row, server_id)
        if pending.needs.group_id:
            _discard(self._of_group, pending.needs.group_id, server_id)
        return pending

    def of_row(self, row: int) -> list[Pending]:
        """What is promised of one host, oldest first."""
        return list(self._of_row.get(row, {}).values())

    def of_group(self, group_id: str) -> Mapping[str, int]:
        """Server to row, of a group's members that are only promised yet."""
        return self._of_group.get(group_id, {})


def _discard(index: dict[K, dict[str, V]], key: K, server_id: str) -> None:
    del index[key][server_id]
    if not index[key]:
        del index[key]
