"""Network namespaces for tests of real parts: one for the host, one for each guest, gone with their processes.

Needs root. The test's own thread moves into the host's namespace, and so do all processes and sockets that it makes.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

UDHCPC_SCRIPT = """#!/bin/sh
case "$1" in
bound|renew)
  ip -4 address flush dev $interface
  ip address add $ip/$mask dev $interface
  [ -n "$mtu" ] && ip link set dev $interface mtu $mtu
  for r in $router; do ip route add default via $r dev $interface; done
  echo "ip=$ip mask=$mask router=$router dns=$dns mtu=$mtu routes=$staticroutes hostname=$hostname server=$serverid"
  ;;
esac
"""


def sh(*command: str, check: bool = True) -> str:
    """What a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def host_namespace() -> Iterator[None]:
    """This thread is in an empty namespace of its own inside the block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            sh("ip", "link", "set", "lo", "up")
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


class Guest:
    """A machine on a tap: a namespace of its own, joined to the host's by a pair of links."""

    def __init__(self, tap: str, bridge: str, mac: str, directory: Path) -> None:
        self.tap = tap
        self._directory = directory
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.pid = self._process.pid
        own = Path("/proc/thread-self/ns/net").readlink()
        while Path(f"/proc/{self.pid}/ns/net").readlink() == own:
            pass
        sh("ip", "link", "add", "name", tap, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", "eth0", "address", mac, "up")
        sh("ip", "link", "set", tap, "master", bridge, "up")

    def run(self, *command: str, check: bool = True) -> str:
        """A command inside the guest."""
        return sh("nsenter", "--net", f"--target={self.pid}", *command, check=check)

    def lease(self, tries: int = 5) -> dict[str, str]:
        """Ask for an address as guests do, and take it; what was given, or nothing."""
        script = self._directory / "udhcpc.sh"
        script.write_text(UDHCPC_SCRIPT)
        script.chmod(0o755)
        out = self.run(
            "busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", str(tries), "-T", "1", "-s", str(script),
            "-O", "mtu", "-O", "staticroutes", "-O", "dns", "-O", "router", check=False,
        )  # fmt: skip
        given = [line for line in out.splitlines() if line.startswith("ip=")]
        if not given:
            return {}
        words = dict.fromkeys(("ip", "mask", "router", "dns", "mtu", "routes", "hostname", "server"), "")
        key = ""
        for word in given[-1].split():
            name, equals, value = word.partition("=")
            if equals and name in words:
                key = name
                words[key] = value
            else:
                words[key] += f" {word}"
        return words

    def send(self, frame: bytes) -> None:
        """Put raw bytes on the wire."""
        code = (
            "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); "
            "s.send(bytes.fromhex(sys.argv[1]))"
        )
        self.run(sys.executable, "-c", code, frame.hex())

    def get(self, url: str, *more: str) -> str:
        """Body and status of a page, on two lines, or nothing."""
        return self.run("curl", "-s", "-m", "5", "-w", "\n%{http_code}", *more, url, check=False)

    def close(self) -> None:
        """The guest and its tap are gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        sh("ip", "link", "delete", self.tap, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tools_missing() -> str:
    """Why real tests cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [
        name for name in ("ip", "nft", "dnsmasq", "busybox", "unshare", "nsenter", "curl") if not shutil.which(name)
    ]
    return f"needs {', '.join(missing)}" if missing else ""
