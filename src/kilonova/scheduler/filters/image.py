"""What an image's properties say about the host that it runs on."""

import operator
import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from kilonova.model.host import HostState
from kilonova.scheduler.plugin import NOT_ASKED, Group, HostTable, Mask, RequestSpec, Shortfall

_NAMES = {
    "arch": ("hw_architecture", "architecture"),
    "type": ("img_hv_type", "hypervisor_type"),
    "mode": ("hw_vm_mode", "vm_mode"),
    "version": ("img_hv_requested_version", "hypervisor_version_requires"),
}
"""Today's name of a property, and the one that old images carry."""

_ARCH = {"i386": "i686", "i486": "i686", "i586": "i686", "x86_32": "i686", "amd64": "x86_64", "arm64": "aarch64"}
_TYPE = {"xapi": "xen", "powervm": "phyp"}
_MODE = {"pv": "xen", "hv": "hvm", "baremetal": "hvm"}

_PREDICATE = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)*)\s*")
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class ImagePropertiesFilter:
    """Pass hosts that can run an image of this architecture, hypervisor type and mode.

    One of the host's supported instances must have all of what the image asks for; a host that reports
    none passes only images that ask for nothing. `img_hv_requested_version` (``>=6.0,<8``) counts together
    with the others, as in the classic system, not by itself; one that cannot be read passes no host. Images that
    name no architecture have `image_properties_default_architecture`, if that is set.
    """

    image_properties_default_architecture: str = ""
    name: str = "ImagePropertiesFilter"
    reads: Group = Group.FACTS

    def key(self, hosts: HostTable, spec: RequestSpec) -> Hashable:
        asked = self._wanted(spec)
        return asked if any(asked[:3]) else NOT_ASKED

    def mask(self, hosts: HostTable, spec: RequestSpec) -> Mask:
        arch, kind, mode, version = asked = self._wanted(spec)
        if not (arch or kind or mode):
            return hosts.everywhere(True)
        if version and _predicates(version) is None:
            hosts.complain(f"image {spec.image_id}: img_hv_requested_version '{version}' cannot be read")

        def can_run(profile: HostState) -> bool:
            asks = {part for part in (arch, kind, mode) if part}
            fits = any(asks <= set(canonical(*triple)) for triple in profile.supported_instances)
            return fits and _version_fits(profile.hypervisor_version, version)

        return hosts.by_profile((self.name, asked), can_run)

    def missing(self, hosts: HostTable, spec: RequestSpec, among: Mask) -> Shortfall:
        arch, kind, mode, version = self._wanted(spec)
        asks = [
            f"architecture {arch}" if arch else "",
            f"hypervisor type {kind}" if kind else "",
            f"mode {mode}" if mode else "",
            f"hypervisor version {version}" if version else "",
        ]
        return Shortfall(f"can run an image with {', '.join(part for part in asks if part)}")

    def _wanted(self, spec: RequestSpec) -> tuple[str, str, str, str]:
        """Architecture, hypervisor type, mode and version that the image asks for; empty where it does not care."""
        given = {what: _first(spec.image_properties, names) for what, names in _NAMES.items()}
        arch = given["arch"] or self.image_properties_default_architecture
        return (*canonical(arch, given["type"], given["mode"]), given["version"])


def _first(properties: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((str(properties[name]).strip() for name in names if properties.get(name)), "")


def canonical(arch: str, kind: str, mode: str) -> tuple[str, str, str]:
    """The three as hosts report them: lower case, one name a thing."""
    arch, kind, mode = arch.lower(), kind.lower(), mode.lower()
    return _ARCH.get(arch, arch), _TYPE.get(kind, kind), _MODE.get(mode, mode)


def _predicates(text: str) -> list[tuple[str, tuple[int, ...]]] | None:
    """``>=6.0,<8`` as pairs; None if it cannot be read."""
    found = []
    for part in text.split(","):
        match = _PREDICATE.fullmatch(part)
        if match is None:
            return None
        found.append((match[1], tuple(int(number) for number in match[2].split("."))))
    return found


def _version_fits(version: int, requirement: str) -> bool:
    """Whether `version` (1_000_000 * major + 1_000 * minor + micro) fulfils `requirement`."""
    if not version or not requirement:
        return True
    predicates = _predicates(requirement)
    if predicates is None:
        return False
    has = (version // 1_000_000, version // 1_000 % 1_000, version % 1_000)
    return all(_COMPARE[sign](_padded(has), _padded(asked)) for sign, asked in predicates)


def _padded(version: tuple[int, ...]) -> tuple[int, ...]:
    return version + (0,) * (4 - len(version))
