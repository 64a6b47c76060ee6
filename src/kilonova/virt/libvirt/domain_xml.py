"""The definition of a guest, as libvirt wants it: a pure function of the guest's specification.

Element names and values: libvirt's domain XML format.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from kilonova.model.guest import GuestSpec

NAMESPACE = "urn:kilonova:guest:1"
SPARE_PORTS = 6
"""PCIe root ports kept free for cards and disks that are plugged later."""


@dataclass(frozen=True)
class Machine:
    """What of the definition is this host's own choice."""

    virt_type: str
    """``kvm`` or ``qemu``."""
    owner: str
    """Marks a domain as this cloud's."""
    tb_cache_mib: int = 32
    """Translation buffer, for ``qemu``: it bounds a guest's memory on the host."""
    emulator: str = "/usr/bin/qemu-system-x86_64"


def domain_xml(spec: GuestSpec, directory: Path, machine: Machine) -> str:
    """The XML of one guest whose disks lie in `directory`."""
    domain = ET.Element("domain", type=machine.virt_type)
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.server_id)
    mark = ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{NAMESPACE}}}guest")
    mark.set("owner", machine.owner)
    mark.set("vcpus", str(spec.vcpus))
    mark.set("memory_mib", str(spec.memory_mib))
    mark.set("root_gib", str(spec.root_gib))
    mark.set("image", spec.image.id if spec.image else "")
    mark.set("build", spec.build)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus), placement="static")
    _placement(domain, spec)
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    ET.SubElement(system, "boot", dev="hd")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if machine.virt_type == "qemu":
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(machine.tb_cache_mib), unit="MiB")
    if machine.virt_type != "qemu" or spec.cells:
        _processor(domain, spec, machine)
    clock = ET.SubElement(domain, "clock", offset="utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(ET.SubElement(domain, "devices"), spec, directory, machine)
    return ET.tostring(domain, encoding="unicode")


def _placement(domain: ET.Element, spec: GuestSpec) -> None:
    """On which of the host's CPUs and memory the guest lies, if that was claimed for it."""
    if not spec.cells:
        return
    tune = ET.SubElement(domain, "cputune")
    for cell in spec.cells:
        pins = dict(cell.pins)
        for cpu in cell.cpus:
            on = (pins[cpu],) if cpu in pins else cell.shared_cpus
            if on:
                ET.SubElement(tune, "vcpupin", vcpu=str(cpu), cpuset=_list(on))
    nodes = _list(sorted({cell.host_cell for cell in spec.cells}))
    memory = ET.SubElement(domain, "numatune")
    ET.SubElement(memory, "memory", mode="strict", nodeset=nodes)
    for number, cell in enumerate(spec.cells):
        ET.SubElement(memory, "memnode", cellid=str(number), mode="strict", nodeset=str(cell.host_cell))
    if any(cell.page_kib for cell in spec.cells):
        pages = ET.SubElement(ET.SubElement(domain, "memoryBacking"), "hugepages")
        for number, cell in enumerate(spec.cells):
            if cell.page_kib:
                ET.SubElement(pages, "page", size=str(cell.page_kib), unit="KiB", nodeset=str(number))


def _processor(domain: ET.Element, spec: GuestSpec, machine: Machine) -> None:
    cpu = ET.SubElement(domain, "cpu", {} if machine.virt_type == "qemu" else {"mode": "host-model"})
    if spec.cells:
        cells = ET.SubElement(cpu, "numa")
        for number, cell in enumerate(spec.cells):
            ET.SubElement(cells, "cell", id=str(number), cpus=_list(cell.cpus), memory=str(cell.memory_mib), unit="MiB")


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _devices(devices: ET.Element, spec: GuestSpec, directory: Path, machine: Machine) -> None:
    _text(devices, "emulator", machine.emulator)
    _disk(devices, directory / "disk.qcow2", "qcow2", "vda")
    if (directory / "config.iso").exists() or spec.config_drive:
        _disk(devices, directory / "config.iso", "raw", "vdb", readonly=True)
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(SPARE_PORTS + len(spec.nics) + len(spec.pci_devices) + 4):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    for nic in spec.nics:
        card = ET.SubElement(devices, "interface", type="bridge")
        ET.SubElement(card, "mac", address=nic.mac)
        ET.SubElement(card, "source", bridge=nic.bridge)
        ET.SubElement(card, "target", dev=nic.tap)
        ET.SubElement(card, "model", type="virtio")
        ET.SubElement(card, "driver", name="qemu")
        ET.SubElement(card, "mtu", size=str(nic.mtu))
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=str(directory / "console.log"), append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")
    ET.SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga", vram="16384")
    _text(ET.SubElement(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="virtio")
    for address in spec.pci_devices:
        parent, _, function = address.rpartition(".")
        place, bus, slot = parent.split(":")
        device = ET.SubElement(devices, "hostdev", mode="subsystem", type="pci", managed="yes")
        numbers = {"domain": f"0x{place}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
        ET.SubElement(ET.SubElement(device, "source"), "address", numbers)


def _disk(devices: ET.Element, path: Path, kind: str, target: str, *, readonly: bool = False) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=kind, cache="none" if not readonly else "writeback")
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    if readonly:
        ET.SubElement(disk, "readonly")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, name, attributes)
    element.text = text
    return element
