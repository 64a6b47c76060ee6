"""Build the small guest image: a bootable qcow2 disk of some 25 MB, from Debian packages only.

The packages are downloaded and unpacked, not installed, and no disk is mounted, so it needs no root and
leaves this machine as it is. The result is named after everything that goes into it (this directory
and the packages' versions): a second run finds it there and ends at once.

    python3 guest/build.py                      -> build/guest/kilonova-guest.qcow2 (a link to the newest)

What the image holds, from the outside in: a boot sector and a partition table; a FAT partition with
syslinux, Debian's cloud kernel and a first RAM file system of busybox and the disk drivers; and the ext4
root, with busybox, dropbear (ssh), resize2fs and the scripts of guest/rootfs. See guest/README.md.
"""

import argparse
import hashlib
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
MIB: Final = 1 << 20
SECTOR: Final = 512

KERNEL_OF: Final = "linux-image-cloud-amd64"
"""An empty package that depends on the newest kernel made for virtual machines."""

PACKAGES: Final = (
    "busybox-static",
    "dropbear-bin",
    "e2fsprogs",
    "libc6",
    "libcom-err2",
    "libcrypt1",
    "libext2fs2",
    "libgmp10",
    "libtomcrypt1",
    "libtommath1",
    "zlib1g",
)

PROGRAMS: Final = ("usr/sbin/dropbear", "usr/bin/dropbearkey", "sbin/resize2fs")

LIBRARIES: Final = (
    "lib64/ld-linux-x86-64.so.2",
    "libc.so.6",
    "libcom_err.so.2",
    "libcrypt.so.1",
    "libe2p.so.2",
    "libext2fs.so.2",
    "libgmp.so.10",
    "libtomcrypt.so.1",
    "libtommath.so.1",
    "libz.so.1",
)

INITRD_MODULES: Final = {
    "virtio": ("virtio_pci", "virtio_rng", "virtio_blk"),
    "others": ("virtio_scsi", "sd_mod", "ata_piix"),
}
"""Kernel modules of the first RAM file system. ``others`` are tried when no virtio disk shows up."""

ROOT_MODULES: Final = {
    "network": ("virtio_net", "isofs", "nls_ascii", "nls_utf8"),
    "devices": ("button", "evdev", "virtio_balloon", "af_packet"),
    "optical": ("virtio_scsi", "ata_piix", "sr_mod", "vfat", "nls_cp437"),
}
"""Kernel modules of the root file system, in three groups loaded at different moments of the boot."""

KERNEL_ARGUMENTS: Final = (
    "console=tty0 console=ttyS0,115200 quiet panic=5 cryptomgr.notests no_timer_check mitigations=off"
)

BOOT_START: Final = 1 * MIB
BOOT_SIZE: Final = 23 * MIB
ROOT_SIZE: Final = 32 * MIB


class BuildError(Exception):
    """The image cannot be built; the message says why and what to do."""


@dataclass(frozen=True)
class Deb:
    """One package as apt would download it."""

    name: str
    version: str

    @property
    def file_start(self) -> str:
        """How apt begins the name of the downloaded file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_"


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "guest", metavar="DIR")
    parser.add_argument("--force", action="store_true", help="build even if it is there")
    options = parser.parse_args(argv)
    try:
        build(options.out.resolve(), force=options.force)
    except BuildError as problem:
        print(f"guest image: {problem}", file=sys.stderr)
        return 1
    return 0


def build(out: Path, *, force: bool = False) -> Path:
    """Make the image in `out` unless it is there, and return its path.

    Raises:
        BuildError: a tool or a package is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    link = out / "kilonova-guest.qcow2"
    debs = candidates()
    if not debs and link.exists():
        _say(f"apt knows none of the guest's packages; using the image that is there: {link.resolve()}")
        return link.resolve()
    if not debs:
        refresh_package_lists()
        debs = candidates()
    if not debs:
        raise BuildError(
            f"apt knows no {KERNEL_OF}. On Debian 12 with its own archive: apt-get update, then try again."
        )
    image = out / f"kilonova-guest-{key_of(debs)}.qcow2"
    if force or not image.exists():
        started = time.monotonic()
        _check_tools()
        _say(f"Building the guest image from {len(debs)} Debian packages ...")
        with tempfile.TemporaryDirectory(dir=out, prefix="work-") as work:
            _build_in(Path(work), download(debs, out / "packages"), image)
        _say(f"Guest image: {image} ({image.stat().st_size / 1e6:.0f} MB, {time.monotonic() - started:.1f} s)")
    link.unlink(missing_ok=True)
    link.symlink_to(image.name)
    return image


# --- What goes in -----------------------------------------------------------------------------------------


def candidates() -> list[Deb]:
    """The packages that apt would take now, the kernel last; empty if it does not know them all."""
    known = _show(*PACKAGES, KERNEL_OF)
    kernel = known.pop(KERNEL_OF, {}).get("Depends", "").split(" ")[0]
    if not kernel or set(known) != set(PACKAGES):
        return []
    known |= _show(kernel)
    return [Deb(name, known[name]["Version"]) for name in (*PACKAGES, kernel)] if kernel in known else []


def _show(*names: str) -> dict[str, dict[str, str]]:
    answer = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, check=False
    )
    found: dict[str, dict[str, str]] = {}
    for paragraph in answer.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields:
            found[fields["Package"]] = fields
    return found


def key_of(debs: Sequence[Deb]) -> str:
    """A name for exactly these packages and this directory's files."""
    digest = hashlib.sha256()
    for deb in debs:
        digest.update(f"{deb.name} {deb.version}\n".encode())
    for path in sorted(p for p in HERE.rglob("*") if p.is_file() and p.suffix not in {".md", ".pyc"}):
        digest.update(f"{path.relative_to(HERE)} {path.stat().st_mode & 0o111:o}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def refresh_package_lists() -> None:
    """Have apt fetch its lists, where it has none yet (a machine fresh from a container image)."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    _say("Fetching the package lists ...")
    subprocess.run([*sudo, "apt-get", "update"], check=False)


def download(debs: Sequence[Deb], into: Path) -> list[Path]:
    """Fetch the packages that are not in `into` yet."""
    into.mkdir(parents=True, exist_ok=True)
    lacking = [d for d in debs if not list(into.glob(d.file_start + "*.deb"))]
    if lacking:
        _say(f"  downloading {len(lacking)} packages (they are unpacked, not installed)")
        # As root apt would fetch as user _apt, who may not write here.
        as_root = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        command = ["apt-get", *as_root, "-qq", "download", *(f"{d.name}={d.version}" for d in lacking)]
        if subprocess.run(command, cwd=into, check=False).returncode != 0:
            refresh_package_lists()
            raise BuildError("the packages could not be downloaded (apt's words stand above). Try again.")
    return [next(into.glob(d.file_start + "*.deb")) for d in debs]


def _check_tools() -> None:
    tools = {
        "apt-get": "apt",
        "dpkg-deb": "dpkg",
        "depmod": "kmod",
        "mke2fs": "e2fsprogs",
        "debugfs": "e2fsprogs",
        "mformat": "mtools",
        "mcopy": "mtools",
        "syslinux": "syslinux",
        "qemu-img": "qemu-utils",
    }
    lacking = sorted({package for tool, package in tools.items() if shutil.which(tool, path=_PATH) is None})
    if lacking:
        raise BuildError(
            f"these Debian packages are missing: {' '.join(lacking)}. Run: python3 scripts/packages.py image"
        )
    if _output("dpkg", "--print-architecture").strip() != "amd64":
        raise BuildError("the guest image is for amd64 machines only")


# --- Putting it together ----------------------------------------------------------------------------------


def _build_in(work: Path, debs: Sequence[Path], image: Path) -> None:
    unpacked = work / "unpacked"
    for deb in debs:
        _run("dpkg-deb", "--extract", str(deb), str(unpacked))
    modules = Modules(unpacked)
    _say("  initial RAM file system")
    initrd = work / "initrd"
    initrd.write_bytes(initrd_of(unpacked, modules))
    _say("  root file system")
    root = work / "root"
    _fill_root(root, unpacked, modules)
    _say("  disk")
    disk = work / "disk.img"
    _make_disk(disk, root, kernel=next((unpacked / "boot").glob("vmlinuz-*")), initrd=initrd)
    made = work / "made.qcow2"
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(made))
    made.rename(image)


class Modules:
    """The unpacked kernel's modules and what each of them needs."""

    def __init__(self, unpacked: Path) -> None:
        self.release = next((unpacked / "lib/modules").iterdir()).name
        self.directory = unpacked / "lib/modules" / self.release
        _run("depmod", "--basedir", str(unpacked), self.release)
        self._needs: dict[str, list[Path]] = {}
        for line in (self.directory / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            self._needs[_name_of(Path(path))] = [Path(path), *map(Path, needs.split())]
        self._built_in = {_name_of(Path(p)) for p in (self.directory / "modules.builtin").read_text().split()}

    def in_order(self, names: Sequence[str]) -> list[Path]:
        """Files to load for `names`, relative to the modules' directory, what is needed by others first."""
        order: list[Path] = []
        for name in names:
            if name in self._built_in:
                continue
            if name not in self._needs:
                raise BuildError(f"kernel {self.release} has no module {name}")
            order.extend(path for path in reversed(self._needs[name]) if path not in order)
        return order


def _name_of(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def initrd_of(unpacked: Path, modules: Modules) -> bytes:
    """The first RAM file system, as a cpio archive that the kernel unpacks."""
    archive = Cpio()
    for directory in ("bin", "dev", "sys", "root", "modules"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    # The kernel opens the console before /dev is mounted.
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, (unpacked / "bin/busybox").read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, (HERE / "initrd/init").read_bytes())
    there: set[Path] = set()
    for group, names in INITRD_MODULES.items():
        order = modules.in_order(names)
        for path in order:
            if path not in there:
                archive.add(f"modules/{path.name}", stat.S_IFREG | 0o644, (modules.directory / path).read_bytes())
        there.update(order)
        archive.add(f"modules/{group}", stat.S_IFREG | 0o644, "".join(f"{p.name}\n" for p in order).encode())
    return archive.bytes()


class Cpio:
    """Writes the "newc" form of cpio: every file owned by root, no times, the same bytes every time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)) -> None:
        """Append one file, directory or device."""
        self._count += 1
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self._parts.extend((head, b"\0" * (-len(head) % 4), content, b"\0" * (-len(content) % 4)))

    def bytes(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _fill_root(root: Path, unpacked: Path, modules: Modules) -> None:
    shutil.copytree(HERE / "rootfs", root)
    for directory in (
        *("bin", "sbin", "usr/bin", "usr/sbin", "lib/x86_64-linux-gnu", "lib64", "lib/modules"),
        *("dev", "proc", "sys", "run", "tmp", "mnt", "root", "home/kilonova", "var/log", "var/lib/kilonova"),
        "etc/dropbear",
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    busybox = root / "bin/busybox"
    shutil.copy(unpacked / "bin/busybox", busybox)
    for applet in _output(str(busybox), "--list-full").split():
        place = root / applet
        if not place.exists() and not (root / "bin" / place.name).exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to("/bin/busybox")
    for program in PROGRAMS:
        shutil.copy(unpacked / program, root / program)
    for library in LIBRARIES:
        found = _library(unpacked, library)
        shutil.copy(found.resolve(), root / ("lib64" if "ld-linux" in library else "lib/x86_64-linux-gnu") / found.name)
    for group, names in ROOT_MODULES.items():
        order = modules.in_order(names)
        for path in order:
            shutil.copy(modules.directory / path, root / "lib/modules" / path.name)
        (root / "lib/modules" / group).write_text("".join(f"{p.name}\n" for p in order))
    (root / "etc/resolv.conf").symlink_to("/run/resolv.conf")
    (root / "etc/os-release").write_text(
        f'NAME="Kilonova guest"\nID=kilonova-guest\nPRETTY_NAME="Kilonova guest, Linux {modules.release}"\n'
    )


def _library(unpacked: Path, name: str) -> Path:
    for directory in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "."):
        if (path := unpacked / directory / name).exists():
            return path
    raise BuildError(f"none of the packages holds {name}")


def _make_disk(disk: Path, root: Path, *, kernel: Path, initrd: Path) -> None:
    root_start = BOOT_START + BOOT_SIZE
    with disk.open("wb") as file:
        file.truncate(root_start + ROOT_SIZE)
        file.write(_boot_sector((0x0E, BOOT_START, BOOT_SIZE), (0x83, root_start, ROOT_SIZE)))
    boot = f"{disk}@@{BOOT_START}"
    _run(
        "mformat",
        "-i",
        boot,
        "-T",
        str(BOOT_SIZE // SECTOR),
        "-h",
        "16",
        "-s",
        "63",
        "-H",
        str(BOOT_START // SECTOR),
        "::",
    )
    _run("syslinux", "--install", "--offset", str(BOOT_START), str(disk))
    config = disk.with_name("syslinux.cfg")
    config.write_text(
        f"DEFAULT linux\nPROMPT 0\nNOESCAPE 1\nLABEL linux\nLINUX /vmlinuz\nINITRD /initrd\nAPPEND {KERNEL_ARGUMENTS}\n"
    )
    for source, name in ((config, "syslinux.cfg"), (kernel, "vmlinuz"), (initrd, "initrd")):
        _run("mcopy", "-i", boot, str(source), f"::/{name}")
    _run(
        *("mke2fs", "-q", "-t", "ext4", "-L", "kilonova-root", "-d", str(root), "-b", "4096", "-I", "256"),
        *("-J", "size=8", "-m", "1", "-E", f"offset={root_start},root_owner=0:0,resize=536870911"),
        *(str(disk), f"{ROOT_SIZE // 1024}k"),
    )
    _set_owners(disk, root_start, root)


def _set_owners(disk: Path, start: int, root: Path) -> None:
    """Everything belongs to root, whoever builds; the user's home to the user."""
    commands = [f"sif /{path} {kind} 0" for path in _paths(root) for kind in ("uid", "gid")]
    commands += [f"sif /home/kilonova {kind} 1000" for kind in ("uid", "gid")]
    script = disk.with_name("owners")
    script.write_text("\n".join(commands) + "\n")
    # debugfs tells of errors in words only, and echoes every command.
    said = _output("debugfs", "-w", "-f", str(script), f"{disk}?offset={start}")
    if "File not found" in said:
        raise BuildError(f"debugfs: {said[-500:]}")


def _paths(root: Path) -> Iterator[Path]:
    return (path.relative_to(root) for path in sorted(root.rglob("*")))


def _boot_sector(*partitions: tuple[int, int, int]) -> bytes:
    """Syslinux's boot code, and a partition table of (type, start, size in bytes), the first one active."""
    code = Path("/usr/lib/SYSLINUX/mbr.bin").read_bytes()
    table = b""
    for number, (kind, start, size) in enumerate(partitions):
        no_cylinders = b"\xfe\xff\xff"  # counts in sectors, not in cylinders
        table += struct.pack(
            "<B3sB3sII", 0x80 * (number == 0), no_cylinders, kind, no_cylinders, start // SECTOR, size // SECTOR
        )
    return code.ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


# --- Running tools ----------------------------------------------------------------------------------------

_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where a user's PATH does not reach
_ENVIRONMENT: Final = {**os.environ, "PATH": _PATH, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout + done.stderr


def _run(*command: str) -> None:
    _output(*command)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
