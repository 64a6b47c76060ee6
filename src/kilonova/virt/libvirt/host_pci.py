"""Which of a host's PCI devices guests may have: those that Linux shows and that `[pci] device_spec` names.

The format of the option is OpenStack's; files and their meaning are Linux' (Documentation/ABI, sysfs-bus-pci).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from kilonova.base.config import ConfigError
from kilonova.base.log import get_logger
from kilonova.model.host import PciDevice

log = get_logger(__name__)

SYSFS = Path("/sys/bus/pci/devices")

_ADDRESS = re.compile(r"[0-9a-fA-F*]{1,4}(:[0-9a-fA-F*]{1,2}(:[0-9a-fA-F*]{1,2})?)?(\.[0-7*])?|\*")
_ID = re.compile(r"(0x)?([0-9a-fA-F]{4})")
_BRIDGE = "0x06"
"""Begin of the class code of bridges: a host cannot do without them."""


@dataclass(frozen=True)
class PciDeviceOptions:
    """``[pci]`` of kilonova.conf, on hosts."""

    section: ClassVar[str] = "pci"

    device_spec: str = ""
    """Devices of this host that guests may have: a JSON object, or a list of them, in one line. Keys: ``vendor_id``,
    ``product_id``, ``address`` (``0000:3b:00.0``, with ``*`` for any part); every other key is a tag for aliases to ask
    for, such as ``physical_network``. Example: ``[{"vendor_id": "10de", "product_id": "1db4"}]``."""

    def read(self) -> tuple["DeviceSpec", ...]:
        """`device_spec`, understood.

        Raises:
            DeviceSpecError
        """
        return device_specs(self.device_spec)


class DeviceSpecError(ConfigError):
    """`[pci] device_spec` cannot be read; the message says where and how it is written."""


@dataclass(frozen=True)
class DeviceSpec:
    """Devices that an operator gives away, and the tags that these get."""

    vendor_id: str = "*"
    product_id: str = "*"
    address: str = "*"
    tags: Mapping[str, str] = field(default_factory=dict)

    def names(self, address: str, vendor_id: str, product_id: str) -> bool:
        """Whether this names the device."""
        return (
            self.vendor_id in ("*", vendor_id)
            and self.product_id in ("*", product_id)
            and fnmatchcase(address, self.address)
        )


def device_specs(text: str) -> tuple[DeviceSpec, ...]:
    """What ``[pci] device_spec`` says.

    Raises:
        DeviceSpecError
    """
    if not text.strip():
        return ()
    try:
        given = json.loads(text)
    except ValueError as error:
        raise DeviceSpecError(f"[pci] device_spec is no JSON: {error}.") from None
    return tuple(_spec(one) for one in (given if isinstance(given, list) else [given]))


def _spec(given: Any) -> DeviceSpec:
    if not isinstance(given, dict) or not given:
        raise DeviceSpecError(f"[pci] device_spec: {given!r} is no object with keys such as vendor_id.")
    if "devname" in given:
        raise DeviceSpecError("[pci] device_spec: devname is not known here; say which device by its address.")
    tags = {
        key: str(value).lower() for key, value in given.items() if key not in ("vendor_id", "product_id", "address")
    }
    return DeviceSpec(
        vendor_id=_id(given, "vendor_id"), product_id=_id(given, "product_id"), address=_address(given), tags=tags
    )


def _id(given: Mapping[str, Any], key: str) -> str:
    value = str(given.get(key, "*"))
    match = _ID.fullmatch(value)
    if match is None and value != "*":
        raise DeviceSpecError(f"[pci] device_spec: {key} is {value!r}, not four hexadecimal digits such as 10de.")
    return match[2].lower() if match else "*"


def _address(given: Mapping[str, Any]) -> str:
    value = given.get("address", "*")
    if isinstance(value, dict):
        unknown = sorted(value.keys() - {"domain", "bus", "slot", "function"})
        if unknown:
            raise DeviceSpecError(f"[pci] device_spec: an address has no {unknown[0]}; domain, bus, slot, function.")
        value = ":".join(str(value.get(part, "*")) for part in ("domain", "bus", "slot"))
        value += f".{given['address'].get('function', '*')}"
    value = str(value)
    if _ADDRESS.fullmatch(value) is None:
        raise DeviceSpecError(f"[pci] device_spec: address {value!r} is not of the form 0000:3b:00.0 or *:3b:*.*.")
    if value == "*":
        return value
    rest, _, function = value.partition(".")
    parts = rest.split(":")
    domain, bus, slot = ["*"] * (3 - len(parts)) + parts if len(parts) < 3 else parts
    numbers = (_padded(domain, 4), _padded(bus, 2), _padded(slot, 2))
    return f"{':'.join(numbers)}.{function or '*'}"


def _padded(digits: str, width: int) -> str:
    return digits if "*" in digits else digits.lower().rjust(width, "0")


def devices(specs: Sequence[DeviceSpec], directory: Path = SYSFS) -> tuple[PciDevice, ...]:
    """The devices of this host that `specs` name, in the order of their addresses.

    Bridges are never among them, nor is a physical function whose virtual functions are switched on: it is in use.
    """
    if not specs:
        return ()
    try:
        found = sorted(directory.iterdir())
    except OSError as error:
        log.warning("PCI devices cannot be listed", directory=str(directory), cause=str(error))
        return ()
    return tuple(device for path in found if (device := _device(path, specs)) is not None)


def _device(path: Path, specs: Sequence[DeviceSpec]) -> PciDevice | None:
    vendor_id, product_id = _read(path / "vendor").removeprefix("0x"), _read(path / "device").removeprefix("0x")
    spec = next((spec for spec in specs if spec.names(path.name, vendor_id, product_id)), None)
    if spec is None or not vendor_id or _read(path / "class").startswith(_BRIDGE):
        return None
    kind = "type-PCI"
    if (path / "physfn").exists():
        kind = "type-VF"
    elif _number(path / "sriov_totalvfs") > 0:
        if _number(path / "sriov_numvfs") > 0:
            return None
        kind = "type-PF"
    node = _number(path / "numa_node", -1)
    return PciDevice(
        address=path.name,
        vendor_id=vendor_id,
        product_id=product_id,
        dev_type=kind,
        numa_node=node if node >= 0 else None,
        tags=dict(spec.tags),
    )


def _read(path: Path) -> str:
    """A file's one line; empty where there is none: devices come and go."""
    try:
        return path.read_text().strip().lower()
    except OSError:
        return ""


def _number(path: Path, default: int = 0) -> int:
    text = _read(path)
    return int(text) if text.lstrip("-").isdecimal() else default
