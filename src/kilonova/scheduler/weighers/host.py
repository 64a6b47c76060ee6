"""Prefer hosts by what they are: their cell, their hypervisor, their devices, their measurements."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from kilonova.model.host import HostState
from kilonova.scheduler.options import MetricsOptions
from kilonova.scheduler.plugin import NOT_ASKED, Column, Group, HostTable, RequestSpec
from kilonova.scheduler.table import Devices

MANY_DEVICES = 100
"""From so many free devices on, more make no difference."""


@dataclass(frozen=True)
class CrossCellWeigher:
    """When a server moves: 1 for hosts in the cell that it comes from, -1 for others."""

    name: str = "CrossCellWeigher"
    multiplier_option: str = "cross_cell_move_weight_multiplier"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return spec.source_cell or NOT_ASKED

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        if not spec.source_cell:
            return np.zeros(hosts.size)

        def near(profile: HostState) -> float:
            return 1.0 if profile.cell == spec.source_cell else -1.0

        return hosts.by_profile((self.name, spec.source_cell), near, np.float64)


@dataclass(frozen=True)
class HypervisorVersionWeigher:
    """Score a host by the version of its hypervisor: new ones first."""

    name: str = "HypervisorVersionWeigher"
    multiplier_option: str = "hypervisor_version_weight_multiplier"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        return hosts.hypervisor_version.astype(float)


@dataclass(frozen=True)
class PCIWeigher:
    """Score a host the higher, the fewer free PCI devices it has: hosts with devices are kept for who wants them."""

    name: str = "PCIWeigher"
    multiplier_option: str = "pci_weight_multiplier"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        def score(devices: Devices) -> float:
            free = sum(pool.free for pool in devices.pools)
            return float(MANY_DEVICES - min(free, MANY_DEVICES - 1))

        return hosts.by_devices(self.name, score, np.float64)


@dataclass(frozen=True)
class MetricsWeigher:
    """Score a host by its metrics times their ratios in ``[metrics] weight_setting``.

    A host that lacks one of them scores ``weight_of_unavailable``. (With ``required`` set, enable MetricsFilter,
    which removes such hosts.)
    """

    options: MetricsOptions = field(default_factory=MetricsOptions)
    name: str = "MetricsWeigher"
    multiplier_option: str = "metrics_weight_multiplier"
    reads: Group = Group.USAGE

    @property
    def multiplier(self) -> float:
        return self.options.weight_multiplier

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None if self.options.weight_setting else NOT_ASKED

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        score = np.zeros(hosts.size)
        for name, ratio in self.options.ratios().items():
            if ratio:
                score += hosts.metric(name) * ratio
        return np.where(np.isnan(score), self.options.weight_of_unavailable, score)
