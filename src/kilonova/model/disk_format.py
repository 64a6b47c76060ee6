"""Looking at the first bytes of a disk image: is it what its owner says, and is it safe to open?

A format is declared, never guessed; the bytes are looked at only to refuse. A qcow2 header can name other files
(a backing file, an external data file) that the host would open on the guest's behalf: such images are refused.
Sources of the rules: the qcow2 specification (QEMU, docs/interop/qcow2), and the magic numbers of each format.
"""

import struct

from kilonova.model.errors import BadRequest

HEADER_BYTES = 64 * 1024
"""How much of the beginning `inspect` needs to see."""

DISK_FORMATS = frozenset({"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop", "ami", "ari", "aki"})

_MAGIC = {
    "qcow2": b"QFI\xfb",
    "vmdk": b"KDMV",
    "vhdx": b"vhdxfile",
    "vhd": b"conectix",
}
_DATA_FILE = 1 << 2
_KNOWN_INCOMPATIBLE = 0b11111  # dirty, corrupt, external data file, compression type, extended L2


def inspect(header: bytes, disk_format: str) -> int | None:
    """Check that `header` (the image's first bytes) fits `disk_format`; the virtual size in bytes, if it says one.

    Raises:
        BadRequest: it is something else than declared, or asks the host to open other files.
    """
    for name, magic in _MAGIC.items():
        if name != disk_format and header.startswith(magic) and disk_format in ("raw", *_MAGIC):
            raise BadRequest(f"The image was declared as {disk_format}, but its bytes begin as {name} does.")
    if disk_format == "qcow2":
        return _qcow2(header)
    if disk_format in _MAGIC and not header.startswith(_MAGIC[disk_format]):
        raise BadRequest(f"The image was declared as {disk_format}, but its bytes do not begin as that does.")
    return None


def _qcow2(header: bytes) -> int:
    if len(header) < 72 or not header.startswith(_MAGIC["qcow2"]):
        raise BadRequest("The image was declared as qcow2, but its bytes do not begin as that does.")
    version, backing_offset, backing_size, cluster_bits, size = struct.unpack(">IQIIQ", header[4:32])
    if version not in (2, 3):
        raise BadRequest(f"qcow2 version {version} is not supported.")
    if backing_offset or backing_size:
        raise BadRequest("The qcow2 image names a backing file; flatten it first (qemu-img convert).")
    if not 9 <= cluster_bits <= 21 or size > 1 << 50:
        raise BadRequest("The qcow2 header is not sane.")
    if version == 3:
        if len(header) < 104:
            raise BadRequest("The qcow2 header is cut off.")
        (incompatible,) = struct.unpack(">Q", header[72:80])
        if incompatible & _DATA_FILE:
            raise BadRequest("The qcow2 image names an external data file; flatten it first (qemu-img convert).")
        if incompatible & ~_KNOWN_INCOMPATIBLE:
            raise BadRequest("The qcow2 image has features that this cloud does not know.")
    return int(size)
