"""A host of its own for tests of the network agent: a namespace, an agent in it, a conductor that says what the test
says, a metadata service that shows what it was asked, guests on taps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.support.namespaces import Guest, host_namespace, sh, tools_missing
from tests.support.network_plans import a_network_plan, a_port_plan

from kilonova.base.clock import SystemClock
from kilonova.base.metrics import new_registry
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network.agent import NetworkAgent
from kilonova.network.options import NetworkAgentOptions

MARKS = [pytest.mark.real, pytest.mark.skipif(bool(tools_missing()), reason=tools_missing())]

BLUE, RED = a_network_plan("blue"), a_network_plan("red", "10.91.8.0/24")
ONE, TWO, THREE = a_port_plan(BLUE, "one", 10), a_port_plan(BLUE, "two", 11), a_port_plan(RED, "three", 30)
SECRET = "a secret of tests"
MARK = "kilonova_test"


class Conductor:
    """Says what belongs on the host."""

    def __init__(self) -> None:
        self.wanted = HostNetworks()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def networks_of(self, host: str) -> HostNetworks:
        wanted = self.wanted
        self.asked.set()
        await self.answer.wait()
        return wanted


class Metadata:
    """A metadata service that shows what it was asked."""

    def __init__(self) -> None:
        service = self
        self.asked: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                self.wfile.write(b"told")

            def log_message(self, *args: Any) -> None:
                """Not on the screen."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def namespace() -> Iterator[None]:
    with host_namespace():
        yield


@pytest.fixture
def metadata(namespace: None) -> Iterator[Metadata]:
    service = Metadata()
    yield service
    service.server.shutdown()
    service.server.server_close()


class Host:
    """One host: what its agents, one after the other, are made of."""

    def __init__(self, directory: Path, metadata: Metadata) -> None:
        self.directory = directory
        self.conductor = Conductor()
        self.options = NetworkAgentOptions(repair_interval=1000, reconcile_interval=1000)
        self._metadata = metadata

    def agent(self) -> NetworkAgent:
        """A new life of the agent."""
        self.metrics = new_registry()
        return NetworkAgent(
            "host", self.directory, self.conductor, self.options, SystemClock(), self.metrics,
            table=MARK, api_url=self._metadata.url, secret=SECRET,
        )  # fmt: skip

    def dnsmasq(self, network: NetworkPlan = BLUE) -> int:
        """The process of a network's address server."""
        return int((self.directory / network.id / "pid").read_text())

    def left(self) -> list[str]:
        """Everything of ours that is on this host."""
        links = [line.split(":")[1].strip() for line in sh("ip", "-o", "link").splitlines()]
        found = [name for name in links if name.startswith("kb")]
        found += [line for line in sh("nft", "list", "tables").splitlines() if MARK in line]
        found += [str(path) for path in self.directory.glob("*")]
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if b"dnsmasq" in (words := entry.read_bytes()) and str(self.directory).encode() in words:
                    found.append(f"dnsmasq {entry.parent.name}")
        return found


@pytest.fixture
async def host(tmp_path: Path, metadata: Metadata) -> AsyncIterator[Host]:
    host = Host(tmp_path / "network", metadata)
    yield host
    last = host.agent()
    host.conductor.wanted = HostNetworks()
    host.conductor.answer.set()
    await last.start()
    await last.close(remove=True)
    assert host.left() == []


@pytest.fixture
async def agent(host: Host) -> AsyncIterator[NetworkAgent]:
    agent = host.agent()
    await agent.start()
    yield agent
    await agent.close()


@contextlib.contextmanager
def guest_of(port: PortPlan, tmp_path: Path, mac: str | None = None) -> Iterator[Guest]:
    with Guest(port.nic.tap, port.nic.bridge, mac or port.nic.mac, tmp_path) as guest:
        yield guest


async def off(function: Any, *args: Any) -> Any:
    """Run what blocks, while the agent's proxy goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)
