"""Headers of disk images: what is taken, what is refused and why; with images that QEMU's own tool made."""

import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilonova.model.disk_format import HEAD, TAIL, DiskFacts, Inspector, UnusableDisk, inspect, signature

FORMATS = ["raw", "ami", "ari", "aki", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "ploop", "docker", ""]
MIB = 1024**2


def look(disk_format: str, data: bytes) -> DiskFacts:
    inspector = Inspector(disk_format)
    for at in range(0, len(data), 50_000):
        inspector.feed(data[at : at + 50_000])
    return inspector.finish()


def made(path: Path, disk_format: str, *options: str, size: str = "8M") -> bytes:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", disk_format, *options, str(path), size], check=True, cwd=path.parent
    )
    return path.read_bytes()


def refused(disk_format: str, data: bytes, *words: str) -> None:
    with pytest.raises(UnusableDisk) as caught:
        look(disk_format, data)
    for word in words:
        assert word in str(caught.value)


# ---- what is sound ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "compat=1.1,cluster_size=2M"),
        ("-o", "cluster_size=512"),
        ("-o", "lazy_refcounts=on"),
        ("-o", "compression_type=zstd"),
        ("-o", "extended_l2=on,cluster_size=128k"),
        ("-o", "refcount_bits=64"),
        ("-o", "preallocation=metadata"),
    ],
)
def test_every_plain_qcow2_is_taken(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = made(tmp_path / "disk", "qcow2", *options)
    assert look("qcow2", data) == DiskFacts("qcow2", 8 * MIB)


def test_qcow2_with_an_internal_snapshot_is_taken(tmp_path: Path) -> None:
    made(tmp_path / "disk", "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(tmp_path / "disk")], check=True)
    assert look("qcow2", (tmp_path / "disk").read_bytes()).virtual_size == 8 * MIB


@pytest.mark.parametrize(
    ("disk_format", "qemu_format", "options"),
    [
        ("vmdk", "vmdk", ("-o", "subformat=monolithicSparse")),
        ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
        ("vdi", "vdi", ()),
        ("vdi", "vdi", ("-o", "static=on")),
        ("vhd", "vpc", ("-o", "subformat=dynamic,force_size=on")),
        ("vhd", "vpc", ("-o", "subformat=fixed,force_size=on")),
    ],
)
def test_plain_disks_of_other_formats_are_taken(
    tmp_path: Path, disk_format: str, qemu_format: str, options: tuple[str, ...]
) -> None:
    assert look(disk_format, made(tmp_path / "disk", qemu_format, *options)).virtual_size == 8 * MIB


def test_vhdx_is_known_by_its_signature(tmp_path: Path) -> None:
    data = made(tmp_path / "disk", "vhdx")
    assert look("vhdx", data) == DiskFacts("vhdx", None)
    refused("vhdx", b"\0" * MIB, "no header of vhdx")


def test_raw_is_whatever_has_no_other_header() -> None:
    assert look("raw", b"\0" * 65536) == DiskFacts("raw", 65536)
    assert look("raw", b"") == DiskFacts("raw", 0)
    assert look("raw", b"LUKS\xba\xbe" + b"\0" * 600).virtual_size == 606


def test_iso_needs_a_volume_descriptor() -> None:
    disc = b"\0" * 0x8001 + b"CD001" + b"\0" * 60_000
    assert look("iso", disc).virtual_size == len(disc)
    refused("iso", b"\0" * MIB, "no volume descriptor")
    refused("iso", b"\0" * 600, "no volume descriptor")


# ---- what points elsewhere --------------------------------------------------------------------------


def test_qcow2_with_a_backing_file_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "base", "raw")
    refused("qcow2", made(tmp_path / "disk", "qcow2", "-b", "base", "-F", "raw"), "backing file")
    refused("qcow2", made(tmp_path / "old", "qcow2", "-o", "compat=0.10", "-b", "base", "-F", "raw"), "backing file")


def test_qcow2_whose_backing_name_has_no_length_is_refused(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "disk", "qcow2"))
    struct.pack_into(">QI", data, 8, 512, 0)
    refused("qcow2", bytes(data), "backing file")


def test_qcow2_with_an_external_data_file_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path / "disk", "qcow2", "-o", "data_file=elsewhere")
    refused("qcow2", data, "another file")
    # Without the bit that announces it, the name alone is reason enough.
    plain = bytearray(data)
    incompatible = struct.unpack_from(">Q", plain, 72)[0]
    struct.pack_into(">Q", plain, 72, incompatible & ~4)
    refused("qcow2", bytes(plain), "another file")


@pytest.mark.parametrize("method", ["aes", "luks"])
def test_encrypted_qcow2_is_refused(tmp_path: Path, method: str) -> None:
    options = f"encrypt.format={method},encrypt.key-secret=key" + (",encrypt.iter-time=10" if method == "luks" else "")
    refused("qcow2", _encrypted(tmp_path / "disk", options), "encrypted")


def _encrypted(path: Path, options: str) -> bytes:
    """qemu-img times its key derivation by CPU time, and gives up where that is too coarse to tell: not always."""
    for _ in range(20):
        try:
            return made(path, "qcow2", "--object", "secret,id=key,data=12345678", "-o", options)
        except subprocess.CalledProcessError as error:
            failure = error
    raise failure


def test_vmdk_that_names_other_files_is_refused(tmp_path: Path) -> None:
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        refused("vmdk", made(tmp_path / f"{subformat}.vmdk", "vmdk", "-o", f"subformat={subformat}"), "other files")
    data = made(tmp_path / "disk.vmdk", "vmdk")
    refused("vmdk", data.replace(b'"disk.vmdk"', b'"/c/shadow"'[:11]), "other files")
    refused("vmdk", data.replace(b'createType="monolithicSparse"', b'createType="monolithicFlat"  '), "type")
    refused("vmdk", data.replace(b"parentCID=ffffffff", b"parentCID=12345678"), "parent")


def test_differencing_vhd_and_vdi_are_refused(tmp_path: Path) -> None:
    vhd = bytearray(made(tmp_path / "vhd", "vpc"))
    struct.pack_into(">I", vhd, 60, 4)
    refused("vhd", bytes(vhd), "differencing")
    vdi = bytearray(made(tmp_path / "vdi", "vdi"))
    struct.pack_into("<I", vdi, 0x4C, 4)
    refused("vdi", bytes(vdi), "differencing")


# ---- what is not what it says -----------------------------------------------------------------------


@pytest.mark.parametrize("qemu_format", ["qcow2", "vmdk", "vpc", "vhdx", "vdi", "qed", "parallels"])
def test_a_disk_of_another_format_is_not_raw(tmp_path: Path, qemu_format: str) -> None:
    data = made(tmp_path / "disk", qemu_format)
    for declared in ("raw", "iso", "ami"):
        refused(declared, data, f"declared {declared}")


@pytest.mark.parametrize("declared", ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "ploop"])
def test_zeros_are_only_raw(declared: str) -> None:
    refused(declared, b"\0" * MIB)


def test_unknown_formats_are_refused() -> None:
    refused("docker", b"", "not known")


@pytest.mark.parametrize(
    ("offset", "form", "value", "word"),
    [
        (4, ">I", 1, "version"),
        (4, ">I", 4, "version"),
        (20, ">I", 8, "clusters"),
        (20, ">I", 22, "clusters"),
        (20, ">I", 0xFFFFFFFF, "clusters"),
        (24, ">Q", 0, "makes no sense"),
        (24, ">Q", (1 << 63) + 512, "does not fit"),
        (24, ">Q", 1 << 50, "does not fit"),
        (36, ">I", 0x7FFFFFFF, "does not fit"),
        (40, ">Q", 1 << 40, "cut off"),
        (40, ">Q", 77, "where none can be"),
        (40, ">Q", 0, "where none can be"),
        (48, ">Q", 1 << 40, "cut off"),
        (56, ">I", 0xFFFFFFFF, "larger"),
        (60, ">I", 0xFFFFFFFF, "larger"),
        (72, ">Q", 1, "closed"),
        (72, ">Q", 2, "corrupt"),
        (72, ">Q", 8, "compression"),
        (72, ">Q", 32, "features"),
        (72, ">Q", 1 << 63, "features"),
        (96, ">I", 7, "reference counts"),
        (100, ">I", 100, "header"),
        (100, ">I", 105, "header"),
        (100, ">I", 0xFFFFFFF8, "header"),
        (104, ">B", 1, "compression"),
    ],
)
def test_insane_qcow2_headers_are_refused(tmp_path: Path, offset: int, form: str, value: int, word: str) -> None:
    data = bytearray(made(tmp_path / "disk", "qcow2"))
    struct.pack_into(form, data, offset, value)
    refused("qcow2", bytes(data), word)


def test_cut_off_qcow2_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path / "disk", "qcow2")
    for length in (4, 71, 72, 90, 104, 111, 130, 600, 65536, len(data) // 2):
        refused("qcow2", data[:length])


def test_extensions_without_end_are_refused(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "disk", "qcow2", "-o", "cluster_size=2M"))
    at = 112
    while at + 8 < 2 * MIB:
        struct.pack_into(">II", data, at, 0x1234, 0)
        at += 8
    refused("qcow2", bytes(data), "no end")


def test_larger_disks_than_allowed_are_refused(tmp_path: Path) -> None:
    data = made(tmp_path / "disk", "qcow2", size="2T")
    assert look("qcow2", data).virtual_size == 2 * 1024**4
    inspector = Inspector("qcow2", max_virtual_size=1024**4)
    with pytest.raises(UnusableDisk, match="at most 1099511627776"):
        inspector.feed(data)


def test_a_wrong_header_is_seen_before_the_rest_comes() -> None:
    inspector = Inspector("qcow2")
    inspector.feed(b"\0" * (HEAD - 1))
    with pytest.raises(UnusableDisk):
        inspector.feed(b"\0")


# ---- anything at all --------------------------------------------------------------------------------

_MAGICS = st.sampled_from(
    [
        b"",
        b"QFI\xfb\0\0\0\2",
        b"QFI\xfb\0\0\0\3",
        b"KDMV\1\0\0\0",
        b"conectix",
        b"vhdxfile",
        b"\0" * 64 + b"\x7f\x10\xda\xbe",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FORMATS), _MAGICS, st.binary(max_size=1200), st.integers(0, 3))
def test_no_bytes_make_it_fail_otherwise(disk_format: str, magic: bytes, rest: bytes, repeat: int) -> None:
    data = (magic + rest) * (1 + repeat * 60)
    for size in (None, len(data)):
        try:
            facts = inspect(disk_format, data[:HEAD], size=size, tail=data[-TAIL:])
        except UnusableDisk as refusal:
            assert str(refusal).endswith(".")
        else:
            assert facts.virtual_size is None or facts.virtual_size >= 0
            assert signature(data) in (None, disk_format)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_qcow2_is_refused_or_points_nowhere(qcow2: bytes, data: st.DataObject) -> None:
    damaged = bytearray(qcow2)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
    try:
        look("qcow2", bytes(damaged))
    except UnusableDisk:
        return
    assert damaged[:4] == b"QFI\xfb"
    assert damaged[8:20] == bytes(12)


@pytest.fixture(scope="module")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory.mktemp("disk") / "disk", "qcow2")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=6))
def test_how_the_bytes_are_cut_does_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    inspector = Inspector("raw")
    try:
        for start, end in pairwise(edges):
            inspector.feed(data[start:end])
        facts = inspector.finish()
    except UnusableDisk:
        assert signature(data) is not None
    else:
        assert facts == inspect("raw", data, size=len(data))
        assert inspector._tail == data[-TAIL:]
