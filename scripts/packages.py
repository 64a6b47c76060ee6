"""Install the Debian packages that Kilonova needs, and say what each is for.

The first thing `make` runs, so it uses nothing but the standard library. It asks dpkg what is there
(a tenth of a second, and nothing more when all is there), prints every missing package with the
reason for it, and installs those with apt-get, through sudo when it is not root. It never removes or
replaces a package: where one of several will do (``pkg-config`` or ``pkgconf``), any of them counts.

    python3 scripts/packages.py                 install what is missing, all groups
    python3 scripts/packages.py build run       ... of these groups only
    python3 scripts/packages.py --check         install nothing; exit 1 if something is missing
    python3 scripts/packages.py --list          the whole table

Exit status: 0 all there, 1 something is missing and was not (or could not be) installed.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GROUPS: Final[dict[str, str]] = {
    "build": "to make the Python environment",
    "run": "to run guests on this machine",
    "image": "to build the small guest image that the first server boots from",
    "test": "for tests: brokers and databases that they start themselves, in directories of their own",
}


@dataclass(frozen=True)
class Package:
    """One Debian package, why it is needed, and other packages that would do instead."""

    name: str
    group: str
    reason: str
    or_else: tuple[str, ...] = ()


PACKAGES: Final = (
    Package("python3-venv", "build", "the virtual environment .venv (not needed where python3 is your own build)"),
    Package("python3-dev", "build", "Python's C headers, for the libvirt binding"),
    Package("gcc", "build", "compiles the libvirt binding"),
    Package("libc6-dev", "build", "the C library's headers, for the same"),
    Package("pkg-config", "build", "finds libvirt's headers", ("pkgconf",)),
    Package("libvirt-dev", "build", "libvirt's headers; the binding must be as old as the library"),
    Package("ca-certificates", "build", "to verify who sends the Python packages"),
    Package("qemu-system-x86", "run", "runs the guests"),
    Package("qemu-utils", "run", "qemu-img: makes and checks disks"),
    Package("libvirt-daemon", "run", "libvirtd and virtlogd: start guests and keep their console logs"),
    Package("libvirt-daemon-system", "run", "libvirt's system user and default configuration"),
    Package("libvirt-clients", "run", "virsh, to look at guests from outside"),
    Package("dnsmasq-base", "run", "DHCP for guests; the program only, no service"),
    Package("nftables", "run", "keeps guests from forging addresses; metadata at 169.254.169.254"),
    Package("iproute2", "run", "bridges and taps"),
    Package("genisoimage", "run", "writes config drives"),
    Package("openssh-client", "run", "to log in to guests"),
    Package("e2fsprogs", "image", "makes the guest's file system"),
    Package("kmod", "image", "works out which kernel modules the guest needs"),
    Package("syslinux", "image", "the guest's boot loader"),
    Package("mtools", "image", "writes the guest's boot partition without mounting it"),
    Package("rabbitmq-server", "test", "the broker of clouds on many machines"),
    Package("nats-server", "test", "another broker"),
    Package("postgresql", "test", "the database of clouds on many machines"),
    Package("mariadb-server", "test", "another database"),
)
"""In the order in which they are printed. What goes into the guest is not here: guest/build.py downloads and
unpacks it, and installs nothing."""

_INSTALL_OPTIONS: Final = (
    "--yes",
    "--no-install-recommends",
    "-o",
    "DPkg::Lock::Timeout=300",  # another apt-get may be at work (unattended upgrades on a new machine)
    "-o",
    "Acquire::Retries=3",
)


class CannotInstallError(Exception):
    """The packages cannot be installed here; the message says what to do."""


def installed(names: Iterable[str]) -> frozenset[str]:
    """Those of `names` that dpkg has completely installed."""
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${binary:Package}\\n", *names],
        capture_output=True,
        text=True,
        check=False,  # it fails when it knows nothing of one of them: that is an answer, too
    )
    found = (line.partition(" ") for line in answer.stdout.splitlines())
    return frozenset(name.partition(":")[0] for status, _, name in found if status == "installed")


def needed(groups: Sequence[str]) -> list[Package]:
    """The packages of these groups that count on this machine."""
    return [p for p in PACKAGES if p.group in groups and not (p.name in _FOR_DEBIANS_PYTHON and _python_is_complete())]


_FOR_DEBIANS_PYTHON: Final = ("python3-venv", "python3-dev")


def _python_is_complete() -> bool:
    """Whether this interpreter (pyenv's, say) brings venv and its headers itself."""
    if Path(sys.base_prefix) == Path("/usr"):
        return False
    import importlib.util
    import sysconfig

    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return has_headers and importlib.util.find_spec("ensurepip") is not None


def missing(groups: Sequence[str]) -> list[Package]:
    """What these groups need and this machine lacks."""
    wanted = needed(groups)
    there = installed(name for p in wanted for name in (p.name, *p.or_else))
    return [p for p in wanted if not there.intersection((p.name, *p.or_else))]


def install(packages: Sequence[Package]) -> None:
    """Install `packages` with apt-get, showing its output.

    Raises:
        CannotInstallError: no apt-get, no right to use it, or it failed.
    """
    names = [p.name for p in packages]
    apt = [*_as_root(names), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    if not _lists_know(names):
        _say("Fetching the package lists ...")
        _run([*apt, "update"])  # one broken source is no reason to stop: what counts is the install below
    _say(f"Installing {len(names)} packages and what they depend on ...")
    with _servers_stay_off(packages, _as_root(names)):
        if _run([*apt, "install", *_INSTALL_OPTIONS, *names]) == 0:
            return
        # Old lists name files that the mirror no longer has: fetch them and try once more.
        _say("That failed; once more with fresh package lists ...")
        _run([*apt, "update"])
        if _run([*apt, "install", *_INSTALL_OPTIONS, *names]) != 0:
            raise CannotInstallError(
                f"apt-get could not install them; its own words stand above. Try by hand:\n    {by_hand(names)}"
            )


_POLICY: Final = Path("/usr/sbin/policy-rc.d")


@contextlib.contextmanager
def _servers_stay_off(packages: Sequence[Package], as_root: Sequence[str]) -> Iterator[None]:
    """While servers for tests are installed, have Debian start none of them: the tests start their own.

    An administrator's own policy is left as it is.
    """
    if _POLICY.exists() or not any(p.group == "test" for p in packages):
        yield
        return
    _say(f"(While this lasts, {_POLICY} keeps Debian from starting the servers; it is removed afterwards.)")
    write = f"printf '#!/bin/sh\\nexit 101\\n' > {_POLICY} && chmod 755 {_POLICY}"
    _run([*as_root, "sh", "-c", write])
    try:
        yield
    finally:
        _run([*as_root, "rm", "-f", str(_POLICY)])


def by_hand(names: Sequence[str]) -> str:
    """The command that a person would type."""
    sudo = "" if os.geteuid() == 0 or shutil.which("sudo") is None else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install --no-install-recommends {' '.join(names)}"


def _as_root(names: Sequence[str]) -> list[str]:
    if shutil.which("apt-get") is None:
        raise CannotInstallError(
            "There is no apt-get here. Kilonova is tried on Debian 12; elsewhere, install what these\n"
            f"Debian packages hold and run make with PACKAGES=skip:\n    {' '.join(names)}"
        )
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise CannotInstallError(f"That needs root, and there is no sudo. As root:\n    {by_hand(names)}")
    if not sys.stdin.isatty() and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        raise CannotInstallError(
            f"That needs root, and sudo would ask for a password with nobody to type it. Run:\n    {by_hand(names)}"
        )
    return ["sudo"]


def _lists_know(names: Sequence[str]) -> bool:
    answer = subprocess.run(["apt-cache", "policy", *names], capture_output=True, text=True, check=False)
    candidates = [line for line in answer.stdout.splitlines() if line.strip().startswith("Candidate:")]
    return len(candidates) == len(names) and not any("(none)" in line for line in candidates)


def _run(command: Sequence[str]) -> int:
    _say("$ " + " ".join(command))
    return subprocess.run(command, check=False).returncode


def _say(text: str) -> None:
    print(text, flush=True)


def table(packages: Sequence[Package]) -> str:
    """The packages by group, one a line with its reason."""
    width = max(len(p.name) for p in packages)
    lines: list[str] = []
    for group, purpose in GROUPS.items():
        rows = [p for p in packages if p.group == group]
        if rows:
            lines.append(f"  {group}: {purpose}")
            lines.extend(f"    {p.name:<{width}}  {p.reason}" for p in rows)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="install nothing")
    parser.add_argument("--list", action="store_true", help="show all packages with their reasons")
    options = parser.parse_args(argv)
    if unknown := set(options.groups) - GROUPS.keys():
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    groups = options.groups or list(GROUPS)
    if options.list:
        _say(table([p for p in PACKAGES if p.group in groups]))
        return 0
    if shutil.which("dpkg-query") is None:
        _say("packages: this is not Debian (no dpkg-query), so nothing can be checked or installed.")
        _say("Install what these hold by other means, and run make with PACKAGES=skip:")
        _say(table([p for p in PACKAGES if p.group in groups]))
        return 1
    lacking = missing(groups)
    if not lacking:
        return 0
    _say(f"Debian packages that Kilonova needs and that are not installed ({len(lacking)}):\n\n{table(lacking)}\n")
    if options.check:
        _say(f"To install them: {by_hand([p.name for p in lacking])}")
        return 1
    try:
        install(lacking)
    except CannotInstallError as problem:
        _say(f"packages: {problem}")
        return 1
    if still := missing(groups):
        _say(f"packages: apt-get says it is done, but dpkg does not show: {' '.join(p.name for p in still)}")
        return 1
    _say("All packages are there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
