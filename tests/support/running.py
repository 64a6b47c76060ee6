"""A cloud as its users have it: the ``kilonova up`` process, its files, and HTTP."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import yaml

from kilonova.store.engine import Store
from kilonova.store.queries import allocations
from tests.support.stores import SERVER

READY_S = 60.0

SERVICES = ("api", "conductor", "scheduler", "compute", "network")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def login_of(state: Path) -> dict[str, str]:
    """The ``auth`` of the administrator in the ``clouds.yaml`` of a state directory."""
    clouds = yaml.safe_load((state / "clouds.yaml").read_text())
    auth: dict[str, str] = clouds["clouds"]["kilonova"]["auth"]
    return auth


def environment_for(state: Path) -> dict[str, str]:
    """Environment in which the standard clients find the cloud of a state directory."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    return plain | {"OS_CLIENT_CONFIG_FILE": str(state / "clouds.yaml"), "OS_CLOUD": "kilonova"}


ROOM_FOR_THOUSANDS = """
[network]
flat_cidr = 10.77.0.0/16
[quota]
instances = 10000
cores = 10000
ram = 100000000
port = 10000
"""
"""Configuration under which one project may have thousands of servers, each with an address. ``[quota]`` comes last."""


class RunningCloud:
    """One ``kilonova up`` on its own state directory."""

    def __init__(self, state: Path, *, virt: str = "fake", hosts: int = 1, config: str = "") -> None:
        self.state = state
        self.virt = virt
        self.hosts = hosts
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.config = state / "kilonova.conf"
        state.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config)

    @property
    def whereabouts(self) -> list[str]:
        """How `kilonova` commands are told which cloud is meant."""
        if SERVER in os.environ:
            return ["--config-file", str(self.state / "service.conf")]
        return ["--state", str(self.state)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        """Start the process; wait until the API answers and every host has reported."""
        command = (
            self._service_command()
            if SERVER in os.environ
            else [
                sys.executable,
                "-m",
                "kilonova.cli.main",
                "up",
                "--state",
                str(self.state),
                "--listen",
                f"127.0.0.1:{self.port}",
                "--virt",
                self.virt,
                "--hosts",
                str(self.hosts),
                "--config-file",
                str(self.config),
            ]
        )
        self.output = (self.state / "up.out").open("ab")
        self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT)
        if not wait:
            return
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"kilonova up ended: {(self.state / 'up.out').read_text()[-4000:]}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready in {READY_S} s: {(self.state / 'up.out').read_text()[-4000:]}")

    def _service_command(self) -> list[str]:
        """All services in one process, on a database of its own on the server that the environment names."""
        file = self.state / "service.conf"
        if not file.exists():
            engine = sa.create_engine(os.environ[SERVER], poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
            name = f"cloud_{secrets.token_hex(4)}"
            with engine.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
            url = engine.url.set(database=name).render_as_string(hide_password=False)
            file.write_text(
                f"{self.config.read_text()}\n[DEFAULT]\nhost = fake\nstate_path = {self.state}\n"
                f"transport_url = memory://\napi_url = {self.url}\n[database]\nconnection = {url}\n"
                f"[api]\nlisten = 127.0.0.1:{self.port}\n"
                f"[compute]\nvirt = {self.virt}\nsimulated_hosts = {self.hosts}\n"
            )
            upgrade = ["db", "upgrade", "--config-file", str(file)]
            subprocess.run([sys.executable, "-m", "kilonova.cli.main", *upgrade], check=True, capture_output=True)
        return [sys.executable, "-m", "kilonova.cli.main", "service", *SERVICES, "--config-file", str(file)]

    def kill(self) -> None:
        """kill -9, as a power cut for the process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, *arguments: str) -> int:
        """SIGTERM, and wait for the drain; the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(timeout=60)
        self.output.close()
        return status

    @property
    def credentials(self) -> dict[str, str]:
        """The ``auth`` of the administrator in ``clouds.yaml``."""
        return login_of(self.state)

    def environment(self) -> dict[str, str]:
        """Environment in which the standard clients find this cloud."""
        return environment_for(self.state)

    def drift(self) -> list[tuple[int, str, int, int]]:
        """Where what hosts count as used is not what servers hold there; read from the database itself."""
        return Store.open(f"sqlite:///{self.state / 'kilonova.sqlite'}", inline=True).run_now(allocations.drift)

    def client(self, **login: Any) -> Client:
        """A plain HTTP client, logged in; as administrator unless told otherwise."""
        return Client(self.url, **({**self.credentials, **login}))


class Client:
    """Plain REST, so that tests see what is really on the wire."""

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        project_name: str,
        user_domain_name: str = "Default",
        project_domain_name: str = "Default",
        **_: Any,
    ) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        body = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {"name": username, "password": password, "domain": {"name": user_domain_name}}
                    },
                },
                "scope": {"project": {"name": project_name, "domain": {"name": project_domain_name}}},
            }
        }
        answer = self.http.post("/identity/v3/auth/tokens", json=body)
        answer.raise_for_status()
        self.token = answer.headers["X-Subject-Token"]
        self.project_id = answer.json()["token"]["project"]["id"]
        self.http.headers["X-Auth-Token"] = self.token
        self.http.headers["OpenStack-API-Version"] = "compute 2.96"

    def compute(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A request to the Compute API, at its newest microversion."""
        return self.http.request(method, f"/compute/v2.1{path}", **arguments)

    def image(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A request to the Image API."""
        return self.http.request(method, f"/image/v2{path}", **arguments)

    def network(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A request to the Network API."""
        return self.http.request(method, f"/network/v2.0{path}", **arguments)

    def identity(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A request to the Identity API."""
        return self.http.request(method, f"/identity/v3{path}", **arguments)

    def upload_image(self, name: str, data: bytes, *, disk_format: str = "raw", **more: Any) -> str:
        """An active image with these bytes; its id."""
        made = self.image(
            "POST", "/images", json={"name": name, "disk_format": disk_format, "container_format": "bare", **more}
        )
        made.raise_for_status()
        image_id: str = made.json()["id"]
        self.image(
            "PUT", f"/images/{image_id}/file", content=data, headers={"Content-Type": "application/octet-stream"}
        ).raise_for_status()
        return image_id

    def flavor(self, name: str = "m1.nano", *, vcpus: int = 1, ram: int = 128, disk: int = 1) -> str:
        """A flavor of that name, made if there is none; its id."""
        for flavor in self.compute("GET", "/flavors").json()["flavors"]:
            if flavor["name"] == name:
                return str(flavor["id"])
        body = {"flavor": {"name": name, "vcpus": vcpus, "ram": ram, "disk": disk}}
        return str(self.compute("POST", "/flavors", json=body).raise_for_status().json()["flavor"]["id"])

    def boot(self, name: str, image_id: str, flavor_id: str, **more: Any) -> str:
        """Ask for a server; its id."""
        body = {"server": {"name": name, "imageRef": image_id, "flavorRef": flavor_id, "networks": "auto", **more}}
        return str(self.compute("POST", "/servers", json=body).raise_for_status().json()["server"]["id"])

    def server(self, server_id: str) -> dict[str, Any]:
        """One server's view."""
        view: dict[str, Any] = self.compute("GET", f"/servers/{server_id}").raise_for_status().json()["server"]
        return view

    def wait(self, server_id: str, *statuses: str, timeout_s: float = 60) -> dict[str, Any]:
        """The server's view once it is in one of `statuses` and at rest."""
        deadline = time.monotonic() + timeout_s
        while True:
            view = self.server(server_id)
            if view["status"] in statuses and view["OS-EXT-STS:task_state"] is None:
                return view
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{server_id} is {view['status']}/{view['OS-EXT-STS:task_state']}: {view.get('fault')}"
                )
            time.sleep(0.05)

    def wait_gone(self, server_id: str, *, timeout_s: float = 60) -> None:
        """Return once the server is not found."""
        deadline = time.monotonic() + timeout_s
        while self.compute("GET", f"/servers/{server_id}").status_code != 404:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{server_id} is still there: {self.server(server_id)}")
            time.sleep(0.05)
