"""A cloud of many processes, as an operator runs it: ``kilonova service ...`` on a broker and a database."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.support.running import Client, environment_for, free_port, login_of

KILONOVA = (sys.executable, "-m", "kilonova.cli.main")
START_S = 60.0


class Service:
    """One process of the deployment."""

    def __init__(self, name: str, command: Sequence[str], output: Path) -> None:
        self.name = name
        self.output = output
        self._file = output.open("ab")
        self._command = command
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._said = self.output.stat().st_size
        return subprocess.Popen(self._command, stdout=self._file, stderr=subprocess.STDOUT)

    def until_up(self, within_s: float = START_S) -> None:
        """Wait until it says that its services are up."""
        deadline = time.monotonic() + within_s
        while ": up on " not in self.said():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.said()[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not up in {within_s} s: {self.said()[-4000:]}")
            time.sleep(0.05)

    def said(self) -> str:
        """What this run of it printed."""
        return self.output.read_bytes()[self._said :].decode(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, timeout_s: float = 30) -> int:
        """SIGTERM, and wait for the drain; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def again(self) -> None:
        """Start it anew, with the same command; return when it is up."""
        self.restart()
        self.until_up()

    def restart(self) -> None:
        """Start it anew, with the same command."""
        assert self.process.poll() is not None, f"{self.name} still runs"
        self.process = self._spawn()


class Deployment:
    """Processes that share a broker and a database; everything of theirs lies below one directory."""

    def __init__(
        self, root: Path, *, database: str, transport: str, config: str = "", enter: Mapping[str, Sequence[str]] = {}
    ) -> None:
        """
        Args:
            database, transport: URLs.
            config: more of the configuration file, for every process.
            enter: host name to a command that others are run under, as ``nsenter``: where that host's processes are.
        """
        self.root = root
        self.database = database
        self.transport = transport
        self.config = config
        self.port = free_port()
        self.address = "127.0.0.1"
        self._enter = enter
        self.services: dict[str, Service] = {}
        root.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Of the first API."""
        return f"http://{self.address}:{self.port}"

    @property
    def control(self) -> Path:
        """State of the control services, shared by them."""
        return self.root / "control"

    def migrate(self) -> None:
        """``kilonova db upgrade``."""
        done = subprocess.run(
            [*KILONOVA, "db", "upgrade", "--url", self.database], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, host: str, *services: str, wait: bool = True, port: int | None = None, config: str = "") -> Service:
        """Start a process that runs `services` on `host`.

        Args:
            port: of its API; the deployment's, unless given.
            config: more of this process's configuration file.
        """
        is_agent = not {"api", "conductor", "scheduler"} & set(services)
        state = self.root / host if is_agent else self.control
        if is_agent:
            secret = state / "secrets" / "metadata"
            secret.parent.mkdir(parents=True, exist_ok=True)
            if (self.control / "secrets" / "metadata").exists() and not secret.exists():
                shutil.copy(self.control / "secrets" / "metadata", secret)
        name = f"{host}-{'-'.join(services)}"
        file = self.root / f"{name}.conf"
        database = "" if is_agent else f"[database]\nconnection = {self.database}\n"
        file.write_text(
            f"[DEFAULT]\nhost = {host}\nstate_path = {state}\ntransport_url = {self.transport}\n"
            f"log_dir = {self.root / 'logs' / name}\napi_url = {self.url}\n{database}"
            f"[api]\nlisten = {self.address}:{port or self.port}\n{self.config}\n{config}\n"
        )
        command = [*self._enter.get(host, ()), *KILONOVA, "service", *services, "--config-file", str(file)]
        service = self.services[name] = Service(name, command, self.root / f"{name}.out")
        if wait:
            service.until_up()
        return service

    def stop(self) -> None:
        """SIGTERM to all that still run, agents first; nothing is left."""
        alive = [service for service in self.services.values() if service.process.poll() is None]
        for service in reversed(alive):
            service.process.terminate()
        for service in alive:
            service.terminate()

    def client(self, port: int | None = None) -> Client:
        """A plain HTTP client of one API, logged in as administrator."""
        return Client(f"http://{self.address}:{port or self.port}", **login_of(self.control))

    def environment(self) -> dict[str, str]:
        """Environment in which the standard clients find this cloud."""
        return environment_for(self.control)

    def wait_for_hosts(self, count: int, timeout_s: float = 60) -> None:
        """Wait until so many compute services are up."""
        admin = self.client()
        deadline = time.monotonic() + timeout_s
        while True:
            services = admin.compute("GET", "/os-services?binary=nova-compute").raise_for_status().json()["services"]
            if sum(service["state"] == "up" for service in services) >= count:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"hosts are not up: {services}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The warnings and errors of all processes, for a failed test's report."""
        lines = []
        for path in sorted(self.root.glob("logs/*/*.log")):
            for line in path.read_text(errors="replace").splitlines():
                if '"level":"info"' not in line:
                    lines.append(f"{path.parent.name}: {line[:500]}")
        return "\n".join(lines[-100:])


def answers(url: str) -> bool:
    """Whether an API answers at `url`."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
