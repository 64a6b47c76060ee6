"""libvirt's daemons for one host, under the state directory's control: for machines where no init system runs them.

They live in a mount namespace of their own, in which libvirt's fixed paths are directories below the state
directory; so they do not meet a libvirt of the machine, and nobody's domains are seen. They outlive this
process, and with them the guests. QEMU's capabilities are cached by libvirt in /var/cache/libvirt, which is shared:
probing takes many seconds, and its result depends on the machine alone.

QEMU lives in that namespace too, as a user of its own. There, images that several guests share cannot be written, and
``/dev/kvm`` is what has been found about it: a device that QEMU's user can open, or nothing.
"""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from kilonova.base.log import get_logger
from kilonova.model.errors import HypervisorUnavailable

log = get_logger(__name__)

_MOUNTS = {"run": "/run/libvirt", "lib": "/var/lib/libvirt", "etc": "/etc/libvirt", "log": "/var/log/libvirt"}
_START_S = 30.0
_KVM = Path("/dev/kvm")


class Daemons:
    """virtlogd and libvirtd of one host."""

    def __init__(self, directory: Path, host_uuid: str, *, images: Path | None = None) -> None:
        """`images`: a directory of disk images that guests read and must not change."""
        self._directory = directory
        self._host_uuid = host_uuid
        self._images = images

    @property
    def uri(self) -> str:
        """Where libvirt clients connect."""
        return f"qemu+unix:///system?socket={self._directory / 'run' / 'libvirt-sock'}"

    def ensure(self, *, kvm: bool) -> None:
        """After it the daemons run; those of a former life of this agent are taken over.

        Args:
            kvm: whether guests shall have it.

        Raises:
            HypervisorUnavailable
        """
        missing = [name for name in ("libvirtd", "virtlogd", "unshare") if shutil.which(name) is None]
        if missing:
            raise HypervisorUnavailable(f"{', '.join(missing)} not found: install libvirt-daemon and util-linux.")
        if self._pid("libvirtd") is not None and self._pid("virtlogd") is not None:
            return
        user, why = qemu_user(self._directory)
        if why:
            log.warning("QEMU runs as root", why=why)
        self._prepare(user)
        script = ["set -e", "mount --make-rprivate /"]
        for name, target in _MOUNTS.items():
            script += [f"mkdir -p {target}", f"mount --bind '{self._directory / name}' {target}"]
        if self._images is not None:
            self._images.mkdir(mode=0o755, parents=True, exist_ok=True)
            script += _read_only(self._images, self._images)
        script += self._device(user, kvm=kvm)
        if self._pid("virtlogd") is None:
            script.append(f"virtlogd -d -p '{self._directory / 'virtlogd.pid'}'")
        script.append(f"libvirtd -d --pid-file '{self._directory / 'libvirtd.pid'}'")
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", "\n".join(script)],
            capture_output=True,
            text=True,
            timeout=_START_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise HypervisorUnavailable(f"libvirt's daemons do not start: {(done.stderr or done.stdout).strip()[:400]}")
        deadline = time.monotonic() + _START_S
        while not (self._directory / "run" / "libvirt-sock").exists():
            if time.monotonic() > deadline:
                raise HypervisorUnavailable(f"libvirtd does not listen; see {self._directory / 'libvirtd.log'}.")
            time.sleep(0.05)
        log.info("libvirt's daemons were started", directory=str(self._directory))

    def stop(self) -> None:
        """End the daemons. Only where no guest is left."""
        for name in ("libvirtd", "virtlogd"):
            pid = self._pid(name)
            if pid is None:
                continue
            os.kill(pid, signal.SIGTERM)
            for _ in range(200):
                if self._pid(name) is None:
                    break
                time.sleep(0.05)

    def _device(self, user: str, *, kvm: bool) -> list[str]:
        """Commands that make ``/dev/kvm`` what QEMU's `user` may know of it.

        libvirt believes what it has learnt about QEMU only if QEMU's user sees the same device as when it was learnt.
        So what is not used is not there: a file that nobody can open for writing, not even root.
        """
        if not _KVM.exists():
            return []
        if not kvm:
            nothing = self._directory / "no-kvm"
            nothing.touch(mode=0o400)
            return _read_only(nothing, _KVM)
        if user == "root" or _can_open(user, _KVM):
            return []
        own, device = self._directory / "kvm", _KVM.stat().st_rdev
        make = f"mknod '{own}' c {os.major(device)} {os.minor(device)}"
        return [f"rm -f '{own}'", make, f"chown {user} '{own}'", f"chmod 600 '{own}'", f"mount --bind '{own}' {_KVM}"]

    def _prepare(self, user: str) -> None:
        for name in _MOUNTS:
            (self._directory / name).mkdir(parents=True, exist_ok=True)
            (self._directory / name).chmod(0o755)
        (self._directory / "run" / "libvirt-sock").unlink(missing_ok=True)
        own_log = f'log_outputs="3:file:{self._directory}/%s.log"\nlog_filters=""\n'
        (self._directory / "etc" / "libvirtd.conf").write_text(
            f'auth_unix_rw="none"\nunix_sock_rw_perms="0700"\nhost_uuid="{self._host_uuid}"\n' + own_log % "libvirtd"
        )
        (self._directory / "etc" / "virtlogd.conf").write_text(
            own_log % "virtlogd" + "max_size=1048576\nmax_backups=2\n"
        )
        (self._directory / "etc" / "qemu.conf").write_text(
            f'user="{user}"\ngroup="{user}"\n'
            'security_driver="none"\ncgroup_controllers=[]\nnamespaces=[]\nremember_owner=0\nvnc_listen="127.0.0.1"\n'
        )

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self._directory / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._directory).encode() in command else None


def _read_only(what: Path, where: Path) -> list[str]:
    """Commands that put `what` at `where`, not to be changed."""
    return [f"mount --bind '{what}' '{where}'", f"mount -o remount,bind,ro '{where}'"]


def qemu_user(directory: Path) -> tuple[str, str]:
    """Who QEMU runs as, and if that is root, why: its own user is missing or cannot reach `directory`."""
    try:
        pwd.getpwnam("libvirt-qemu")
    except KeyError:
        return "root", "there is no user libvirt-qemu, which libvirt-daemon-system makes"
    for parent in (directory, *directory.parents):
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            return "root", f"its own user cannot pass {parent}: keep the state elsewhere, or chmod o+x"
    return "libvirt-qemu", ""


def _can_open(user: str, device: Path) -> bool:
    account, found = pwd.getpwnam(user), device.stat()
    in_group = found.st_gid in os.getgrouplist(account.pw_name, account.pw_gid)
    return found.st_mode & 0o006 == 0o006 or (in_group and found.st_mode & 0o060 == 0o060)
