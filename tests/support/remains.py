"""What a cloud has made on this machine: found by the marks of its state directory, removed by id."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


class Remains:
    """Everything on the machine that belongs to the cloud of one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._links_before = set(self._links())
        self._tables_before = set(self._tables())

    @staticmethod
    def _links() -> list[str]:
        found = json.loads("".join(_lines("ip", "-json", "link", "show")) or "[]")
        return [link["ifname"] for link in found if link["ifname"].startswith(("kb", "kn"))]

    @staticmethod
    def _tables() -> list[str]:
        return [line for line in _lines("nft", "list", "tables") if "kilonova" in line or "kn" in line.split()[-1]]

    def processes(self, *names: str) -> dict[int, str]:
        """Processes whose command line names the state directory: pid to command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.state) in command and (not names or any(name in command for name in names)):
                found[int(entry.name)] = command
        return found

    def of_guests(self) -> list[str]:
        """What belongs to guests: taps, bridges, address servers, rules, QEMU processes, disks."""
        left = [f"link {name}" for name in self._links() if name not in self._links_before]
        left += [f"table {name}" for name in self._tables() if name not in self._tables_before]
        left += [f"process {command[:100]}" for command in self.processes("qemu-system", "dnsmasq").values()]
        left += [f"file {path}" for path in self.state.glob("hosts/*/instances/*")]
        of_networks = self.state.glob("hosts/*/network/*")
        left += [f"lease {path}" for path in of_networks if path.name != "lock"]  # that is the running agent's
        return left

    def remove_all(self) -> None:
        """End what a failed test left: by pid and by name, never by a broad kill."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                if pid != os.getpid():
                    try:
                        os.kill(pid, sign)
                    except ProcessLookupError:
                        continue
            time.sleep(0.3)
        for name in self._links():
            if name not in self._links_before:
                subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        for table in self._tables():
            if table not in self._tables_before:
                subprocess.run(["nft", "delete", *table.split()], check=False, capture_output=True)
