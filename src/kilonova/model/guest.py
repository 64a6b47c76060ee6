"""What an agent needs to know to make one server run: plain, complete, versioned, without the database."""

from datetime import datetime

import msgspec

from kilonova.model.states import PowerState


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """An image's bytes and how to prove that they are right."""

    id: str
    disk_format: str
    """As declared by its owner: ``qcow2`` or ``raw``. Never guessed from the bytes."""
    size: int
    """Bytes."""
    hash_algo: str = "sha512"
    hash_value: str
    url: str
    """Where to GET the bytes, without credentials."""
    ticket: str = ""
    """Short-lived signed permission to read this one image, sent as ``X-Kilonova-Ticket``. Secret."""
    min_disk_gib: int = 0
    properties: dict[str, str] = {}


class FixedIP(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a port."""

    address: str
    prefix_length: int
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    subnet_id: str


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One network card: a port, plugged. `tap` and `bridge` are at most 15 characters (Linux's limit)."""

    port_id: str
    network_id: str
    network_name: str
    mac: str
    tap: str
    bridge: str
    mtu: int = 1500
    fixed_ips: tuple[FixedIP, ...] = ()
    port_security: bool = True
    allowed_address_pairs: tuple[str, ...] = ()
    """Addresses and blocks for which it may speak from its own `mac`."""


class CellPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One NUMA cell of a guest, and what of its host it lies on."""

    host_cell: int
    cpus: tuple[int, ...]
    """The guest's CPUs in this cell."""
    memory_mib: int
    pins: tuple[tuple[int, int], ...] = ()
    """Pairs (CPU of the guest, CPU of the host that it has for itself)."""
    shared_cpus: tuple[int, ...] = ()
    """Host CPUs that the others float over."""
    page_kib: int = 0
    """Size of the huge pages that its memory lies on, in KiB; 0: ordinary memory."""


class GuestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the guest's system shall have from its first boot on."""

    path: str
    contents: str
    """Base64."""


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One guest as its host shall run it.

    Attributes:
        memory_mib: RAM in MiB.
        root_gib: size of the root disk in GiB; 0 means as large as the image.
        user_data: base64, as the user sent it; empty when there is none.
        meta_data: the OpenStack ``meta_data.json`` of the config drive, ready to be written.
        network_data: the OpenStack ``network_data.json``.
        admin_password: empty unless the user asked to have one injected. Secret.
    """

    version: str = "1.3"
    server_id: str
    name: str
    """The hypervisor's name of the guest, such as ``instance-0000002a``."""
    display_name: str = ""
    project_id: str
    user_id: str = ""
    hostname: str
    vcpus: int
    memory_mib: int
    root_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    image: ImageRef | None = None
    nics: tuple[Nic, ...] = ()
    config_drive: bool = True
    user_data: str = ""
    meta_data: dict[str, object] = {}
    network_data: dict[str, object] = {}
    admin_password: str = ""
    extra_specs: dict[str, str] = {}
    flavor_name: str = ""
    """Since 1.1; for people who look at the host. Empty from an older conductor."""
    power_on: bool = True
    """False: define the guest but leave it off (it was stopped when its host lost it)."""
    cells: tuple[CellPlan, ...] = ()
    """Since 1.2. Empty: the guest runs anywhere on its host."""
    pci_devices: tuple[str, ...] = ()
    """Since 1.2: addresses of host devices that are the guest's own, such as ``0000:3b:00.0``."""
    build: str = ""
    """Since 1.3: which making of the guest this is. Empty from an older conductor."""
    replaces: bool = False
    """Since 1.3: a guest of another build that is there makes room for this one, its disks too."""
    files: tuple[GuestFile, ...] = ()
    """Since 1.3; `meta_data` names them in the same order."""


class GuestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the conductor says of a server that belongs on a host; the agent compares it with its hypervisor."""

    server_id: str
    epoch: int
    """The highest that any task has had for the server."""
    as_of: datetime
    """When the record last changed: comes back with what the agent observes, and tells whether it is still so."""
    vm_state: str
    task_state: str | None
    power_state: PowerState
    vcpus: int
    memory_mib: int
    root_gib: int


class PowerObservation(msgspec.Struct, frozen=True, kw_only=True):
    """A server that its hypervisor shows otherwise than the conductor's record of `as_of` says."""

    server_id: str
    as_of: datetime
    power_state: PowerState
    """NOSTATE: the guest is gone."""


class GuestState(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as the hypervisor shows it."""

    server_id: str
    power_state: PowerState
    vcpus: int = 0
    memory_mib: int = 0
    root_gib: int = 0
