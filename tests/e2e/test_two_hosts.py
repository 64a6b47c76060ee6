"""Two compute hosts with a libvirt each, and one control machine: guests on both, on one flat network.

The machines are network namespaces; RabbitMQ and the control services run in that of the control machine, the
database is reached by its socket. The client is the real one.
"""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import CLIENT, GUEST_IMAGE
from tests.support.brokers import RabbitMQ
from tests.support.databases import MariaDB, PostgreSQL, running
from tests.support.deployment import Deployment
from tests.support.machines import Machine, Machines
from tests.support.remains import Remains

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines(["ctl", "one", "two"])
    yield made
    made.remove()


@pytest.fixture(params=[PostgreSQL, MariaDB])
def cloud(request: pytest.FixtureRequest, tmp_path: Path, machines: Machines) -> Iterator[Deployment]:
    ctl = machines["ctl"]
    remains = {name: Remains(tmp_path / "cloud" / name) for name in ("one", "two")}
    broker = RabbitMQ(tmp_path / "rabbit", address=ctl.address, enter=ctl.enter)
    deployment = None
    stack = contextlib.ExitStack()
    try:
        database = stack.enter_context(running(request.param))
        database.create("cloud")
        broker.start()
        deployment = Deployment(
            tmp_path / "cloud",
            database=database.socket_url("cloud"),
            transport=broker.url(),
            enter={"ctl": ctl.enter, "one": machines["one"].enter, "two": machines["two"].enter},
            config="[compute]\nvirt = libvirt\nreport_interval = 2\n[network]\nflat_interface = eth1\n"
            "flat_cidr = 10.93.0.0/24\n",
        )
        deployment.address = ctl.address
        deployment.migrate()
        for service in ("api", "conductor", "scheduler"):
            deployment.start("ctl", service)
        for host in ("one", "two"):
            deployment.start(host, "compute", "network", wait=False)
        for service in deployment.services.values():
            service.until_up()
        yield deployment
    finally:
        if deployment is not None:
            deployment.stop()
        for found in remains.values():
            found.remove_all()
        broker.stop()
        stack.close()


class Client:
    """The real client, on the control machine."""

    def __init__(self, cloud: Deployment, ctl: Machine) -> None:
        self._cloud = cloud
        self._ctl = ctl

    def __call__(self, *words: str, parse: bool = True, timeout: float = 300) -> Any:
        command = [*self._ctl.enter, str(CLIENT), *words, *(["-f", "json"] if parse else [])]
        done = subprocess.run(
            command, env=self._cloud.environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}\n{self._cloud.logs()}"
        return json.loads(done.stdout) if parse else done.stdout


def address_of(server: dict[str, Any]) -> str:
    found = re.search(r"10\.93\.0\.\d+", str(server["addresses"]))
    assert found is not None, server
    return found.group()


def on_guest(machine: Machine, key: Path, address: str, command: str) -> str:
    """Run a command in a guest, from its own host; wait until it lets us in."""
    ssh = (
        "ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", f"root@{address}", command,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while True:
        done = subprocess.run([*machine.enter, *ssh], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < deadline, f"{command}: {done.stdout}{done.stderr}"
        time.sleep(1)


def test_guests_on_two_hosts_reach_each_other_over_one_network(
    cloud: Deployment, machines: Machines, tmp_path: Path
) -> None:
    openstack = Client(cloud, machines["ctl"])
    hosts = {
        service["Host"]: service["State"]
        for service in openstack("compute", "service", "list")
        if service["Binary"] == "nova-compute"
    }
    assert hosts == {"one": "up", "two": "up"}
    agents = openstack("network", "agent", "list")
    assert {(agent["Host"], agent["Alive"]) for agent in agents} == {("one", True), ("two", True)}
    openstack(
        "image", "create", "tiny", "--disk-format", "qcow2", "--container-format", "bare", "--file", str(GUEST_IMAGE)
    )
    openstack("flavor", "create", "tiny", "--ram", "128", "--vcpus", "1", "--disk", "1")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    openstack("keypair", "create", "mine", "--public-key", f"{key}.pub")
    # The hosts' own ssh must be let in; from one to the other the default group does it.
    openstack("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", "default")
    servers = {
        host: openstack(
            "server", "create", f"on-{host}", "--image", "tiny", "--flavor", "tiny", "--key-name", "mine",
            "--network", "flat", "--host", host, "--os-compute-api-version", "2.74", "--wait", timeout=400,
        )
        for host in ("one", "two")
    }  # fmt: skip
    for host, server in servers.items():
        assert server["OS-EXT-SRV-ATTR:host"] == host
        metadata = on_guest(
            machines[host],
            key,
            address_of(server),
            "timeout 10 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json",
        )
        assert server["id"] in metadata, "each guest is answered on its own host, and as itself"
    # From guest to guest, over the segment between the hosts.
    here, there = address_of(servers["one"]), address_of(servers["two"])
    assert "1 packets received" in on_guest(machines["one"], key, here, f"ping -c 1 -W 5 {there}").replace(
        "1 received", "1 packets received"
    )
    assert len({address_of(server) for server in servers.values()}) == 2
    for host in servers:
        openstack("server", "delete", "--wait", f"on-{host}", parse=False)
    for host in servers:
        links = machines[host].run("ip", "-o", "link")
        assert " kb" not in links and " kn" not in links, links
        assert "kilonova" not in machines[host].run("nft", "list", "tables")
