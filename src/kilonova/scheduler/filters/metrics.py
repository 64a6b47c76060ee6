"""Hosts that measure what the weights need."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from kilonova.scheduler.options import MetricsOptions
from kilonova.scheduler.plugin import NOT_ASKED, AtLeast, Column, Group, HostTable, Mask, RequestSpec, Shortfall


@dataclass(frozen=True)
class MetricsFilter(AtLeast):
    """Pass hosts that report every metric named in ``[metrics] weight_setting``."""

    options: MetricsOptions = field(default_factory=MetricsOptions)
    name: str = "MetricsFilter"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return None if self.options.weight_setting else NOT_ASKED

    def level(self, hosts: HostTable) -> Column:
        """How many of the metrics each host reports."""
        reported = np.zeros(hosts.size)
        for name in self.options.ratios():
            reported += ~np.isnan(hosts.metric(name))
        return reported

    def need(self, spec: RequestSpec) -> float:
        return len(self.options.ratios())

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        return Shortfall("reports all metrics that this cloud weighs hosts by")
