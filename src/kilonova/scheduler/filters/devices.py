"""PCI devices and NUMA: does the host have what the guest wants, where it wants it?"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import msgspec

from kilonova.model.numa import GuestTopology, MalformedTopology, guest_topology
from kilonova.model.pci import MalformedAlias, place, requests_of_flavor, take
from kilonova.model.request_spec import PciRequest
from kilonova.scheduler.options import PciOptions
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall
from kilonova.scheduler.table import Devices
from kilonova.scheduler.words import count

_ALIAS = "pci_passthrough:alias"


@dataclass(frozen=True)
class PciPassthroughFilter:
    """Pass hosts that have all PCI devices free that the flavor (``pci_passthrough:alias``) and the ports want.

    A flavor with an alias that ``[pci] alias`` does not have passes no host.
    """

    options: PciOptions = field(default_factory=PciOptions)
    name: str = "PciPassthroughFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        if not spec.pci_requests and _ALIAS not in spec.extra_specs:
            return NOT_ASKED
        return _encoded(spec)

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        try:
            wanted = self._wanted(spec)
        except MalformedAlias as error:
            hosts.complain(f"flavor '{spec.flavor_name}': {error}")
            return hosts.everywhere(False)
        if not wanted:
            return hosts.everywhere(True)
        return hosts.by_devices((self, _encoded(spec)), lambda devices: take(devices.pools, wanted) is not None)

    def _wanted(self, spec: RequestSpec) -> tuple[PciRequest, ...]:
        return (*spec.pci_requests, *requests_of_flavor(spec.extra_specs, self.options.aliases()))

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        try:
            wanted = sum(request.count for request in self._wanted(spec))
        except MalformedAlias as error:
            return Shortfall("can serve the flavor's PCI aliases", str(error))
        return Shortfall(f"has the {count(wanted, 'PCI device')} free that the server wants")


@dataclass(frozen=True)
class NUMATopologyFilter:
    """Pass hosts on whose NUMA cells the guest's cells fit: CPUs (its own, if pinned), memory, pages, devices.

    Only guests that ask for NUMA nodes, pinned CPUs or page sizes are looked at. A host that reports no cells
    cannot take them.
    """

    options: PciOptions = field(default_factory=PciOptions)
    name: str = "NUMATopologyFilter"
    reads: Group = Group.USAGE | Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        try:
            topology = guest_topology(spec)
        except MalformedTopology as error:
            return str(error)
        return NOT_ASKED if topology is None else (topology, _encoded(spec))

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        try:
            topology = guest_topology(spec)
            wanted = (*spec.pci_requests, *requests_of_flavor(spec.extra_specs, self.options.aliases()))
        except (MalformedTopology, MalformedAlias) as error:
            hosts.complain(f"flavor '{spec.flavor_name}' or image {spec.image_id}: {error}")
            return hosts.everywhere(False)
        if topology is None:
            return hosts.everywhere(True)
        return hosts.by_devices((self, topology, _encoded(spec)), lambda devices: _fits(devices, topology, wanted))

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        try:
            topology = guest_topology(spec)
        except MalformedTopology as error:
            return Shortfall("can have the NUMA topology asked for", str(error))
        cells = count(len(topology.cells), "NUMA cell") if topology is not None else "NUMA cells"
        pinned = sum(cell.pinned for cell in topology.cells) if topology is not None else 0
        what = f" with {count(pinned, 'CPU')} of the server's own" if pinned else ""
        pages = f" and pages of kind {topology.pages}" if topology is not None and topology.pages else ""
        return Shortfall(f"has {cells}{what}{pages} free as the server wants them")


def _fits(devices: Devices, topology: GuestTopology, wanted: tuple[PciRequest, ...]) -> bool:
    after = place(
        devices.cells,
        devices.pools,
        topology,
        wanted,
        cpu_ratio=devices.cpu_ratio,
        memory_ratio=devices.memory_ratio,
    )
    return after is not None


def _encoded(spec: RequestSpec) -> bytes:
    """The part of a request that speaks of devices, as something that can be a key."""
    if not spec.pci_requests and _ALIAS not in spec.extra_specs:
        return b""
    return msgspec.msgpack.encode((spec.pci_requests, spec.extra_specs.get(_ALIAS, "")), order="deterministic")
