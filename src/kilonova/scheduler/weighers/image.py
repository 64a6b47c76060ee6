"""Prefer hosts by the images of the servers that they have."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from kilonova.model.host import HostState
from kilonova.scheduler.options import ratios
from kilonova.scheduler.plugin import NOT_ASKED, Column, Group, HostTable, RequestSpec


@dataclass(frozen=True)
class ImagePropertiesWeigher:
    """Score a host by how many of its servers' images share properties with this one's; off by default.

    `image_props_weight_setting` (``os_distro=2,hw_machine_type=0``) says which properties count how much; without
    it, each counts once.
    """

    image_props_weight_setting: tuple[str, ...] = ()
    name: str = "ImagePropertiesWeigher"
    multiplier_option: str = "image_props_weight_multiplier"
    reads: Group = Group.USAGE

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        return self._wanted(spec) or NOT_ASKED

    def _wanted(self, spec: RequestSpec) -> tuple[tuple[str, float], ...]:
        """``key=value`` of the image's properties that count, and how much."""
        setting = ratios(self.image_props_weight_setting)
        return tuple(
            (f"{key}={value}", setting.get(key, 0.0) if setting else 1.0)
            for key, value in spec.image_properties.items()
        )

    def weigh(self, hosts: HostTable, spec: RequestSpec) -> Column:
        wanted = self._wanted(spec)
        if not wanted:
            return np.zeros(hosts.size)

        def shared(state: HostState) -> float:
            return sum(state.server_image_properties.get(text, 0) * ratio for text, ratio in wanted)

        return hosts.by_servers((self.name, wanted), shared, np.float64)
