"""A small world for one guest: a network of its own with DHCP and metadata, and QEMU driven by its monitor.

Used by the tests of the guest image. Everything lives in one network namespace and one directory, and
goes away with them, whatever happens in between. Needs root.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

GATEWAY = "10.77.0.1"
ADDRESS = "10.77.0.50"
MAC = "52:54:00:77:00:50"

METADATA_SERVER = """
import http.server, json, sys
answers = json.load(open(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = answers.get(self.path)
        self.send_response(200 if answer is not None else 404)
        self.end_headers()
        self.wfile.write((answer or "").encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((sys.argv[2], 8080), Handler).serve_forever()
"""


class Network:
    """A namespace with one bridge, one tap, DHCP, and metadata at 169.254.169.254."""

    def __init__(self, work: Path, answers: dict[str, str]) -> None:
        self.name = f"kgt{os.getpid()}"
        self._work = work
        self._answers = answers
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        _run("ip", "netns", "add", self.name)
        try:
            self._fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _fill(self) -> None:
        for line in f"""
            ip link set lo up
            ip link add br0 type bridge forward_delay 0
            ip addr add {GATEWAY}/24 dev br0
            ip link set br0 up
            ip tuntap add tap0 mode tap
            ip link set tap0 master br0 up
            nft add table ip md
            nft add chain ip md pre {{type nat hook prerouting priority -100;}}
            nft add rule ip md pre ip daddr 169.254.169.254 tcp dport 80 dnat to {GATEWAY}:8080
        """.strip().splitlines():
            _run(*self.inside(*line.split()))
        answers = self._work / "answers.json"
        answers.write_text(json.dumps(self._answers))
        self._start(sys.executable, "-c", METADATA_SERVER, str(answers), GATEWAY)
        self._start(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--bind-interfaces", "--interface=br0"),
            *("--port=0", f"--dhcp-range={ADDRESS},static,255.255.255.0", f"--dhcp-host={MAC},{ADDRESS},from-dhcp"),
            f"--dhcp-option=121,169.254.169.254/32,{GATEWAY},0.0.0.0/0,{GATEWAY}",
            *("--dhcp-option=26,1450", f"--dhcp-leasefile={self._work}/leases", "--pid-file="),
        )

    def _start(self, *command: str) -> None:
        log = (self._work / "network.log").open("ab")
        self._processes.append(subprocess.Popen(self.inside(*command), stdout=log, stderr=log))

    def inside(self, *command: str) -> list[str]:
        """`command`, to be run in this network."""
        return ["ip", "netns", "exec", self.name, *command]

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        _run("ip", "netns", "delete", self.name)


@dataclass
class Guest:
    """One virtual machine on a disk that outlives it, so that it can be started again."""

    work: Path
    network: Network
    disk: Path
    config_drive: Path | None = None
    memory_mib: int = 128
    process: subprocess.Popen[bytes] | None = None
    _boots: int = field(default=0)

    @property
    def console(self) -> Path:
        """The serial console's log of this start."""
        return self.work / f"console{self._boots}.log"

    def start(self) -> None:
        """Power on."""
        self._boots += 1
        drives = [f"file={self.disk},format=qcow2,if=virtio"]
        if self.config_drive:
            drives.append(f"file={self.config_drive},format=raw,if=virtio,readonly=on")
        command = [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,tb-size=32", "-m", str(self.memory_mib)),
            *("-nodefaults", "-display", "none", "-vga", "std", "-device", "virtio-rng-pci"),
            *("-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile="),
            *("-serial", f"file:{self.console}", "-qmp", f"unix:{self._monitor},server=on,wait=off"),
        ]
        for drive in drives:
            command += ["-drive", drive]
        self.process = subprocess.Popen(self.network.inside(*command))

    @property
    def _monitor(self) -> Path:
        return self.work / "qmp"

    def monitor(self, command: str) -> dict[str, Any]:
        """One QMP command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._monitor))
            answers = connection.makefile("rw")
            answers.readline()
            for line in ("qmp_capabilities", command):
                answers.write(json.dumps({"execute": line}) + "\n")
                answers.flush()
                answer = json.loads(answers.readline())
                while "event" in answer:
                    answer = json.loads(answers.readline())
            return dict(answer)

    def said(self) -> str:
        """The serial console so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def wait_for(self, text: str, *, times: int = 1, within_s: float = 180) -> str:
        """Wait until the guest has said `text` so many times and return all that it said."""
        end = time.monotonic() + within_s
        while (said := self.said()).count(text) < times:
            assert time.monotonic() < end, f"not within {within_s} s: {text!r}. The console says:\n{said}"
            assert self.process is not None and self.process.poll() is None, f"the guest is gone. It said:\n{said}"
            time.sleep(0.1)
        return said

    def ssh(self, command: str, *, key: Path, user: str = "kilonova") -> subprocess.CompletedProcess[str]:
        """Run `command` in the guest, without accepting any way in but `key`."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.work / "known_hosts"),
            "ConnectTimeout": "20",
        }
        flags = [f"-o{name}={value}" for name, value in options.items()]
        return subprocess.run(
            self.network.inside("ssh", "-F/dev/null", *flags, "-i", str(key), f"{user}@{ADDRESS}", command),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop_softly(self, *, within_s: float = 20) -> float:
        """Press the power button and return after how many seconds the machine was off."""
        assert self.process is not None
        started = time.monotonic()
        self.monitor("system_powerdown")
        self.process.wait(within_s)
        return time.monotonic() - started

    def kill(self) -> None:
        """Pull the plug."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def a_guest(
    work: Path,
    image: Path,
    *,
    config_drive: dict[str, str] | None = None,
    answers: dict[str, str] | None = None,
    disk_gib: int = 1,
) -> Iterator[Guest]:
    """A guest on a fresh copy of `image`, with what the config drive holds and the metadata service answers."""
    disk = work / "disk.qcow2"
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(disk), f"{disk_gib}G")
    drive = _config_drive(work, config_drive) if config_drive else None
    with Network(work, answers or {}) as network:
        guest = Guest(work, network, disk, drive)
        try:
            yield guest
        finally:
            guest.kill()


def _config_drive(work: Path, files: dict[str, str]) -> Path:
    tree = work / "config-drive"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    iso = work / "config-drive.iso"
    _run("genisoimage", "-quiet", "-V", "config-2", "-J", "-r", "-o", str(iso), str(tree))
    shutil.rmtree(tree)
    return iso


def a_key(work: Path, name: str = "key") -> Path:
    """A new ssh key; its public half is beside it, with .pub."""
    path = work / name
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test", "-f", str(path))
    return path


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
