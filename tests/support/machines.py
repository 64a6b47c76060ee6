"""Several machines on one: network namespaces on two segments, a management network and a provider's.

Each machine has ``eth0`` with an address on the management network, and ``eth1`` without one on the provider
network, as compute hosts have whose guests share a flat network. Nothing of it touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def _ip(*arguments: str, netns: str | None = None) -> str:
    where = ("-n", netns) if netns else ()
    done = subprocess.run(["ip", *where, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Machine:
    """One of them."""

    name: str
    netns: str
    address: str
    """On the management network."""

    @property
    def enter(self) -> tuple[str, ...]:
        """What commands that run there are preceded by. Other than ``ip netns exec``, it leaves /sys alone."""
        return ("nsenter", f"--net=/run/netns/{self.netns}")

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> str:
        """Run a command there; what it printed."""
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def pids(self) -> list[int]:
        """Processes there."""
        return [int(pid) for pid in _ip("netns", "pids", self.netns).split()]


class Machines:
    """Machines and the two segments between them; `remove` takes away all of it, processes included."""

    def __init__(self, names: Sequence[str]) -> None:
        self._id = f"kt{secrets.token_hex(2)}"
        self._fabric = f"{self._id}-fabric"
        self.machines: dict[str, Machine] = {}
        try:
            self._make_fabric()
            for number, name in enumerate(names, 1):
                self.machines[name] = self._make(name, number)
        except BaseException:
            self.remove()
            raise

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def _make_fabric(self) -> None:
        _ip("netns", "add", self._fabric)
        for bridge in ("management", "provider"):
            _ip("link", "add", bridge, "type", "bridge", "forward_delay", "0", netns=self._fabric)
            _ip("link", "set", bridge, "up", netns=self._fabric)

    def _make(self, name: str, number: int) -> Machine:
        machine = Machine(name, f"{self._id}-{name}", f"172.29.0.{number}")
        _ip("netns", "add", machine.netns)
        _ip("link", "set", "lo", "up", netns=machine.netns)
        for port, bridge in (("eth0", "management"), ("eth1", "provider")):
            end = f"{port}-{number}"
            _ip("link", "add", end, "netns", self._fabric, "type", "veth", "peer", "name", port, "netns", machine.netns)
            _ip("link", "set", end, "master", bridge, "up", netns=self._fabric)
            _ip("link", "set", port, "up", netns=machine.netns)
        _ip("address", "add", f"{machine.address}/24", "dev", "eth0", netns=machine.netns)
        return machine

    def remove(self) -> None:
        """End what runs there, and remove the namespaces; links go with them."""
        for machine in self.machines.values():
            for sign in (signal.SIGTERM, signal.SIGKILL):
                for pid in machine.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, sign)
                deadline = time.monotonic() + 5
                while machine.pids() and time.monotonic() < deadline:
                    time.sleep(0.05)
        for netns in [*(machine.netns for machine in self.machines.values()), self._fabric]:
            if Path("/run/netns", netns).exists():
                _ip("netns", "delete", netns)
