"""Hosts that measure what the weights need."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from kilonova.scheduler.options import MetricsOptions
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class MetricsFilter:
    """Pass hosts that report every metric named in ``[metrics] weight_setting``."""

    options: MetricsOptions = field(default_factory=MetricsOptions)
    name: str = "MetricsFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None if self.options.weight_setting else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        mask = hosts.everywhere(True)
        for name in self.options.ratios():
            mask &= ~np.isnan(hosts.metric(name))
        return mask

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("reports all metrics that this cloud weighs hosts by")
