"""What the first bytes of a disk image say, and whether that is what its owner declared. Pure; guesses nothing.

An image is data from a stranger. The formats that describe a disk can also point elsewhere: a qcow2 file may name a
backing file or an external data file, a VMDK descriptor may name extents. A hypervisor that follows such a name reads
files of the host to the guest. So an image is taken only if its header is one of the declared format, and
points nowhere. Nor is it enough that the *declared* format is harmless: a file that is declared ``raw`` and begins
as a qcow2 file is refused, lest some tool further on guesses.

The same rules hold where bytes come into the cloud and where a host takes them up again. They look at headers only: a
damaged table further in makes a broken disk for that guest, not a danger for others.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

HEAD: Final = 128 * 1024
"""Bytes from the front that are looked at. Headers that reach further are refused."""

TAIL: Final = 512
"""Bytes from the end that are looked at."""

MAX_VIRTUAL_SIZE: Final = 1 << 56
"""64 PiB. No format here is asked for a larger disk by anybody honest."""

_AS_IT_IS: Final = frozenset({"raw", "ami", "ari", "aki", "iso"})

# Where each format shows itself. LUKS is not among them: an encrypted disk is a raw disk.
_SIGNATURES: Final = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"WithoutFreeSpace", "ploop"),
    (0, b"WithouFreSpacExt", "ploop"),
)
_ISO_AT: Final = 0x8001
_ISO_WORDS: Final = (b"CD001", b"BEA01", b"NSR02", b"NSR03")


class UnusableDisk(ValueError):
    """The bytes are not what they were declared to be, or not safe to use. Its text is a whole sentence."""


@dataclass(frozen=True)
class DiskFacts:
    """What a header tells."""

    disk_format: str
    virtual_size: int | None
    """Bytes of the disk that a guest sees; None where the format does not tell."""


class Inspector:
    """Looks at an image as its bytes come by, keeping the first `HEAD` and the last `TAIL` of them."""

    def __init__(self, disk_format: str, *, max_virtual_size: int | None = None) -> None:
        """
        Args:
            max_virtual_size: larger disks are refused.
        """
        self._declared = disk_format
        self._max_virtual_size = MAX_VIRTUAL_SIZE if max_virtual_size is None else max_virtual_size
        self._head = bytearray()
        self._tail = b""
        self._looked = False
        self.size = 0

    def feed(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            UnusableDisk: as soon as the header is complete and wrong, so that nobody sends the rest for nothing.
        """
        self.size += len(data)
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
        self._tail = data[-TAIL:] if len(data) >= TAIL else (self._tail + data)[-TAIL:]
        if not self._looked and len(self._head) == HEAD:
            self._looked = True
            self._check(None)

    def finish(self) -> DiskFacts:
        """All bytes have come.

        Raises:
            UnusableDisk
        """
        return self._check(self.size)

    def _check(self, size: int | None) -> DiskFacts:
        facts = inspect(self._declared, bytes(self._head), size=size, tail=self._tail)
        if facts.virtual_size is not None and facts.virtual_size > self._max_virtual_size:
            raise UnusableDisk(
                f"Its disk has {facts.virtual_size} bytes; at most {self._max_virtual_size} are allowed here."
            )
        return facts


def inspect(disk_format: str, head: bytes, *, size: int | None, tail: bytes = b"") -> DiskFacts:
    """Whether an image that begins with `head` is a sound `disk_format`, and what it says of itself.

    Args:
        head: the first `HEAD` bytes, or all if there are fewer.
        size: of the whole image in bytes; None while more is to come, which leaves out what only the end can show.
        tail: the last `TAIL` bytes; not used while more is to come.

    Raises:
        UnusableDisk: it is not; or no rules for `disk_format` are known.
    """
    if disk_format in _AS_IT_IS:
        return _as_it_is(disk_format, head, size)
    checks = {"qcow2": _qcow2, "vmdk": _vmdk, "vhd": _vhd, "vhdx": _vhdx, "vdi": _vdi, "ploop": _ploop}
    check = checks.get(disk_format)
    if check is None:
        raise UnusableDisk(f"Images of the format {disk_format!r} are not known here.")
    virtual_size = check(head, size, tail)
    if virtual_size is not None and not 0 < virtual_size <= MAX_VIRTUAL_SIZE:
        raise UnusableDisk(f"Its header says that the disk has {virtual_size} bytes, which makes no sense.")
    return DiskFacts(disk_format, virtual_size)


def signature(head: bytes) -> str | None:
    """The format whose signature `head` bears, if any; for refusals and messages, never to choose a format."""
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def _as_it_is(disk_format: str, head: bytes, size: int | None) -> DiskFacts:
    found = signature(head)
    if found is not None:
        raise UnusableDisk(f"It is declared {disk_format}, but has the header of {found}. Declare what it is.")
    is_complete = size is not None or len(head) >= HEAD
    if disk_format == "iso" and is_complete and head[_ISO_AT : _ISO_AT + 5] not in _ISO_WORDS:
        raise UnusableDisk("It is declared iso, but has no volume descriptor of an ISO 9660 or UDF file system.")
    return DiskFacts(disk_format, size)


def _expect(head: bytes, magic: bytes, name: str, at: int = 0) -> None:
    if head[at : at + len(magic)] != magic:
        found = signature(head)
        raise UnusableDisk(
            f"It is declared {name}, but has "
            + (f"the header of {found}. Declare what it is." if found else f"no header of {name}.")
        )


# ---- qcow2 ------------------------------------------------------------------------------------------

_QCOW2_V2: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_QCOW2_V3: Final = struct.Struct(">QQQII")
_INCOMPATIBLE: Final = {
    0: "was not closed properly (run qemu-img check -r all on it)",
    1: "is marked as corrupt",
    2: "keeps its data in another file",
}
_COMPRESSION_TYPE, _EXTENDED_L2 = 3, 4
_MAX_L1_BYTES: Final = 32 * 1024**2
_MAX_REFCOUNT_TABLE_BYTES: Final = 8 * 1024**2
_MAX_SNAPSHOTS: Final = 65536
_EXTENSION_END, _EXTENSION_LUKS, _EXTENSION_DATA_FILE = 0, 0x0537BE77, 0x44415441


def _qcow2(head: bytes, size: int | None, _: bytes) -> int:
    _expect(head, b"QFI\xfb", "qcow2")
    if len(head) < _QCOW2_V2.size:
        raise UnusableDisk("Its qcow2 header is cut off.")
    (
        _magic,
        version,
        backing_at,
        backing_length,
        cluster_bits,
        virtual_size,
        encryption,
        l1_entries,
        l1_at,
        refcounts_at,
        refcounts_clusters,
        snapshots,
        _snapshots_at,
    ) = _QCOW2_V2.unpack_from(head)
    if version not in (2, 3):
        raise UnusableDisk(f"It is version {version} of qcow; only versions 2 and 3 are taken.")
    if backing_at or backing_length:
        raise UnusableDisk("It has a backing file. Flatten it first (qemu-img convert).")
    if encryption:
        raise UnusableDisk("It is encrypted by qcow2, and nobody here has the key.")
    if not 9 <= cluster_bits <= 21:
        raise UnusableDisk(f"Its clusters of 2^{cluster_bits} bytes are outside what qcow2 allows.")
    cluster = 1 << cluster_bits
    header_length, is_extended = _QCOW2_V2.size, False
    if version == 3:
        header_length, is_extended = _qcow2_v3(head, cluster_bits)
    _qcow2_extensions(head, header_length, cluster)
    l2_entry = 16 if is_extended else 8
    per_l1_entry = cluster * (cluster // l2_entry)
    if l1_entries * 8 > _MAX_L1_BYTES or l1_entries < -(-virtual_size // per_l1_entry):
        raise UnusableDisk(f"Its table of {l1_entries} entries does not fit a disk of {virtual_size} bytes.")
    if refcounts_clusters * cluster > _MAX_REFCOUNT_TABLE_BYTES or snapshots > _MAX_SNAPSHOTS:
        raise UnusableDisk("Its tables are larger than QEMU allows.")
    tables = ((l1_at, l1_entries * 8), (refcounts_at, refcounts_clusters * cluster))
    for at, length in tables:
        if at % cluster or (length and at < cluster):
            raise UnusableDisk("A table in its header stands where none can be.")
        if size is not None and at + length > size:
            raise UnusableDisk("It is cut off: a table in its header lies beyond its end.")
    return int(virtual_size)


def _qcow2_v3(head: bytes, cluster_bits: int) -> tuple[int, bool]:
    if len(head) < _QCOW2_V2.size + _QCOW2_V3.size:
        raise UnusableDisk("Its qcow2 header is cut off.")
    incompatible, _, _, refcount_order, header_length = _QCOW2_V3.unpack_from(head, _QCOW2_V2.size)
    for bit, what in _INCOMPATIBLE.items():
        if incompatible >> bit & 1:
            raise UnusableDisk(f"It {what}.")
    if incompatible >> (_EXTENDED_L2 + 1):
        raise UnusableDisk(f"It needs features of qcow2 that are not known here (incompatible {incompatible:#x}).")
    if refcount_order > 6:
        raise UnusableDisk(f"Its reference counts of 2^{refcount_order} bits are outside what qcow2 allows.")
    least = _QCOW2_V2.size + _QCOW2_V3.size
    if not least <= header_length <= min(1 << cluster_bits, len(head)) or header_length % 8:
        raise UnusableDisk(f"Its header says that it is {header_length} bytes long.")
    compression = head[least] if header_length > least else 0
    if bool(incompatible >> _COMPRESSION_TYPE & 1) != bool(compression) or compression > 1:
        raise UnusableDisk(f"Its compression (type {compression}) is not known here.")
    is_extended = bool(incompatible >> _EXTENDED_L2 & 1)
    if is_extended and cluster_bits < 14:
        raise UnusableDisk("Its clusters are too small for subclusters.")
    return header_length, is_extended


def _qcow2_extensions(head: bytes, at: int, cluster: int) -> None:
    end = min(cluster, len(head))
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _EXTENSION_END:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise UnusableDisk("It keeps its data in another file.")
        if kind == _EXTENSION_LUKS:
            raise UnusableDisk("It is encrypted by qcow2, and nobody here has the key.")
        at += 8 + (length + 7) // 8 * 8
    raise UnusableDisk("The extensions of its qcow2 header have no end.")


# ---- vmdk -------------------------------------------------------------------------------------------

_VMDK: Final = struct.Struct("<4sIIQQQQIQQQ")
_SECTOR: Final = 512
_VMDK_KINDS: Final = frozenset({"monolithicsparse", "streamoptimized"})
_VMDK_TYPE: Final = re.compile(rb'^\s*createType\s*=\s*"?([A-Za-z0-9]*)"?\s*$', re.M | re.I)
_VMDK_PARENT: Final = re.compile(rb'parentCID\s*=\s*"?([^"\s]*)', re.I)
_VMDK_EXTENT: Final = re.compile(rb"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)(.*)$", re.M | re.I)


def _vmdk(head: bytes, _size: int | None, _tail: bytes) -> int:
    if signature(head) == "vmdk" and head[:4] != b"KDMV":
        raise UnusableDisk("It is a VMDK that describes other files. Make one file of it (subformat monolithicSparse).")
    _expect(head, b"KDMV", "vmdk")
    if len(head) < _VMDK.size:
        raise UnusableDisk("Its VMDK header is cut off.")
    _, version, _, capacity, _, descriptor_at, descriptor_sectors, *_ = _VMDK.unpack_from(head)
    if version not in (1, 2, 3):
        raise UnusableDisk(f"It is version {version} of VMDK; only versions 1 to 3 are taken.")
    start, length = descriptor_at * _SECTOR, descriptor_sectors * _SECTOR
    if not start or not length or start + length > len(head):
        raise UnusableDisk("It has no VMDK descriptor within its first bytes.")
    _vmdk_descriptor(head[start : start + length].partition(b"\0")[0])
    return int(capacity * _SECTOR)


def _vmdk_descriptor(text: bytes) -> None:
    kinds = [kind.decode().lower() for kind in _VMDK_TYPE.findall(text)]
    if len(kinds) != 1 or kinds[0] not in _VMDK_KINDS:
        raise UnusableDisk(
            f"It is a VMDK of the type {', '.join(kinds) or 'unknown'}; monolithicSparse and streamOptimized are taken."
        )
    has_parent = any(parent.lower() != b"ffffffff" for parent in _VMDK_PARENT.findall(text))
    if has_parent or b"parentfilenamehint" in text.lower():
        raise UnusableDisk("It is a VMDK with a parent. Flatten it first (qemu-img convert).")
    extents = _VMDK_EXTENT.findall(text)
    if len(extents) != 1 or extents[0][0].upper() != b"SPARSE" or b"/" in extents[0][1] or b"\\" in extents[0][1]:
        raise UnusableDisk("It is a VMDK that points at other files.")


# ---- vhd, vhdx, vdi, ploop --------------------------------------------------------------------------

_VHD_KINDS: Final = {2: "fixed", 3: "dynamic"}


def _vhd(head: bytes, size: int | None, tail: bytes) -> int | None:
    footer = head[:_SECTOR]
    if footer[:8] != b"conectix":
        # A fixed VHD is the disk itself and then the footer.
        if signature(head) is not None:
            _expect(head, b"conectix", "vhd")
        if size is None:
            return None
        footer = tail
        _expect(footer, b"conectix", "vhd")
    if len(footer) < _SECTOR:
        raise UnusableDisk("Its VHD footer is cut off.")
    (virtual_size,) = struct.unpack_from(">Q", footer, 48)
    (kind,) = struct.unpack_from(">I", footer, 60)
    if kind not in _VHD_KINDS:
        raise UnusableDisk(f"It is a VHD of type {kind}; fixed and dynamic ones are taken, differencing ones are not.")
    return int(virtual_size)


def _vhdx(head: bytes, _size: int | None, _tail: bytes) -> None:
    # Its size and its parent stand in metadata megabytes further in; no host here takes VHDX without converting it.
    _expect(head, b"vhdxfile", "vhdx")


def _vdi(head: bytes, _size: int | None, _tail: bytes) -> int:
    _expect(head, b"\x7f\x10\xda\xbe", "vdi", at=0x40)
    if len(head) < 0x178:
        raise UnusableDisk("Its VDI header is cut off.")
    version, _, kind = struct.unpack_from("<III", head, 0x44)
    if version != 0x00010001:
        raise UnusableDisk(f"It is version {version >> 16}.{version & 0xFFFF} of VDI; only version 1.1 is taken.")
    if kind not in (1, 2):
        raise UnusableDisk(f"It is a VDI of type {kind}; dynamic and fixed ones are taken, differencing ones are not.")
    (virtual_size,) = struct.unpack_from("<Q", head, 0x170)
    return int(virtual_size)


def _ploop(head: bytes, _size: int | None, _tail: bytes) -> None:
    if signature(head) != "ploop":
        _expect(head, b"WithoutFreeSpace", "ploop")
