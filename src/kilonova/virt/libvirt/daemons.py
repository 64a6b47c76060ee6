"""libvirt's daemons for one host, under the state directory's control: for machines where no init system runs them.

They live in a mount namespace of their own, in which libvirt's fixed paths are directories below the state
directory; so they do not meet a libvirt of the machine, and nobody's domains are seen. They outlive this
process, and with them the guests. QEMU's capabilities are cached by libvirt in /var/cache/libvirt, which is shared:
probing takes many seconds, and its result depends on the machine alone.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from kilonova.base.log import get_logger
from kilonova.model.errors import HypervisorUnavailable

log = get_logger(__name__)

_MOUNTS = {"run": "/run/libvirt", "lib": "/var/lib/libvirt", "etc": "/etc/libvirt", "log": "/var/log/libvirt"}
_START_S = 30.0


class Daemons:
    """virtlogd and libvirtd of one host."""

    def __init__(self, directory: Path, host_uuid: str) -> None:
        self._directory = directory
        self._host_uuid = host_uuid

    @property
    def uri(self) -> str:
        """Where libvirt clients connect."""
        return f"qemu+unix:///system?socket={self._directory / 'run' / 'libvirt-sock'}"

    def ensure(self) -> None:
        """After it the daemons run; those of a former life of this agent are taken over.

        Raises:
            HypervisorUnavailable
        """
        missing = [name for name in ("libvirtd", "virtlogd", "unshare") if shutil.which(name) is None]
        if missing:
            raise HypervisorUnavailable(f"{', '.join(missing)} not found: install libvirt-daemon and util-linux.")
        if self._pid("libvirtd") is not None and self._pid("virtlogd") is not None:
            return
        self._prepare()
        script = ["set -e", "mount --make-rprivate /"]
        for name, target in _MOUNTS.items():
            script += [f"mkdir -p {target}", f"mount --bind '{self._directory / name}' {target}"]
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

    def _prepare(self) -> None:
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
            f'user="{_qemu_user()}"\ngroup="{_qemu_user()}"\n'
            'security_driver="none"\ncgroup_controllers=[]\nnamespaces=[]\nremember_owner=0\nvnc_listen="127.0.0.1"\n'
        )

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self._directory / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._directory).encode() in command else None


def _qemu_user() -> str:
    """Who QEMU runs as: Debian's user for it, unless that one cannot open a ``/dev/kvm`` that is there.

    Then libvirt takes its cached capabilities for stale at every start of a guest, and probes for minutes.
    """
    with contextlib.suppress(KeyError, OSError):
        account = pwd.getpwnam("libvirt-qemu")
        device = Path("/dev/kvm").stat()
        in_group = device.st_gid in os.getgrouplist(account.pw_name, account.pw_gid)
        if device.st_mode & 0o006 == 0o006 or (in_group and device.st_mode & 0o060 == 0o060):
            return account.pw_name
        return "root"
    return "libvirt-qemu" if _has_user("libvirt-qemu") else "root"


def _has_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False
