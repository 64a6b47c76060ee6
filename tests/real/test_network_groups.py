"""Security groups on a real kernel: connections are made between guests, and from the host, or are not."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tests.real.network_rig import BLUE, MARK, MARKS, ONE, TWO, Host, guest_of, off
from tests.support.namespaces import Guest, sh
from tests.support.network_plans import a_port_plan

from kilonova.model.network_plans import GroupMembers, HostNetworks, PortPlan, RulePlan
from kilonova.network.agent import NetworkAgent
from kilonova.network.options import NetworkAgentOptions

pytestmark = MARKS

OTHER = a_port_plan(BLUE, "other", 12)
HOST_IP, ONE_IP, TWO_IP, OTHER_IP = "10.91.7.1", "10.91.7.10", "10.91.7.11", "10.91.7.12"
ALL_OUT = RulePlan(direction="egress")
FROM_GROUP = RulePlan(direction="ingress", remote_group="g")
SSH = RulePlan(direction="ingress", protocol="tcp", port_min=22, port_max=22, remote="10.91.7.0/24")


def ruled(port: PortPlan, *rules: RulePlan) -> PortPlan:
    return msgspec.structs.replace(port, rules=rules)


LISTEN = """
import socket, sys, threading
def tcp(port):
    with socket.create_server(("0.0.0.0", port)) as s:
        while True:
            c, _ = s.accept()
            threading.Thread(target=lambda: [c.sendall(w) for w in iter(lambda: c.recv(99), b"")], daemon=True).start()
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    while True:
        d, a = s.recvfrom(99)
        s.sendto(d, a)
for port in map(int, sys.argv[1:]):
    for serve in (tcp, udp):
        threading.Thread(target=serve, args=(port,)).start()
print("listening", flush=True)
"""

ASK = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET, kind)
s.settimeout(0.7)
try:
    s.connect((sys.argv[2], int(sys.argv[3])))
    s.send(b"hello")
    print(s.recv(99) == b"hello")
except OSError:
    print(False)
"""


@contextlib.contextmanager
def listening(guest: Guest, *ports: int) -> Iterator[None]:
    """The guest gives back what it is sent at these ports."""
    command = ["nsenter", "--net", f"--target={guest.pid}", sys.executable, "-c", LISTEN, *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def reaches(who: Guest | None, address: str, port: int, kind: str = "tcp") -> bool:
    """Whether a guest, or the host (None), gets an answer."""
    command = (sys.executable, "-c", ASK, kind, address, str(port))
    return (who.run(*command) if who else sh(*command)).strip() == "True"


def pings(who: Guest | None, address: str) -> bool:
    command = ("busybox", "ping", "-c1", "-W1", address)
    out = who.run(*command, check=False) if who else sh(*command, check=False)
    return "1 packets received" in out


async def agent_with(host: Host, *ports: PortPlan, group: tuple[str, ...] = ()) -> NetworkAgent:
    members = (GroupMembers(network_id=BLUE.id, group_id="g", addresses=group),)
    host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=ports, members=members)
    agent = host.agent()
    await agent.start()
    return agent


async def test_the_default_group_lets_its_own_in_and_everything_out(host: Host, tmp_path: Path) -> None:
    one, two = ruled(ONE, ALL_OUT, FROM_GROUP), ruled(TWO, ALL_OUT, FROM_GROUP)
    other = ruled(OTHER, ALL_OUT, RulePlan(direction="ingress"))
    agent = await agent_with(host, one, two, other, group=(ONE_IP, TWO_IP))
    with guest_of(one, tmp_path) as first, guest_of(two, tmp_path) as second, guest_of(other, tmp_path) as third:
        for guest in (first, second, third):
            assert guest.lease()
        with listening(first, 22), listening(second, 22), listening(third, 22):
            for kind in ("tcp", "udp"):
                assert reaches(second, ONE_IP, 22, kind)
                assert reaches(first, TWO_IP, 22, kind)
                assert reaches(first, OTHER_IP, 22, kind), "what answers comes in"
                assert not reaches(third, ONE_IP, 22, kind)
                assert not reaches(None, ONE_IP, 22, kind)
                assert reaches(None, OTHER_IP, 22, kind)
        assert pings(first, TWO_IP)
        assert not pings(None, TWO_IP)
        assert not pings(third, TWO_IP)
        assert pings(first, HOST_IP)
        assert pings(second, OTHER_IP)
    await agent.close()


async def test_a_rule_that_is_added_or_taken_away_holds_at_once(host: Host, tmp_path: Path) -> None:
    closed, opened = ruled(ONE, ALL_OUT), ruled(ONE, ALL_OUT, SSH)
    agent = await agent_with(host, closed)
    with guest_of(ONE, tmp_path) as guest:
        guest.lease()
        with listening(guest, 22, 23):
            for port, wanted in ((closed, False), (opened, True), (closed, False)):
                host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(port,))
                await agent.refresh()
                assert reaches(None, ONE_IP, 22) is wanted
                assert not reaches(None, ONE_IP, 23)
                assert not reaches(None, ONE_IP, 22, "udp")
    await agent.close()


async def test_without_any_rule_there_are_an_address_and_metadata_alone(host: Host, tmp_path: Path) -> None:
    agent = await agent_with(host, ruled(ONE), ruled(TWO, ALL_OUT, RulePlan(direction="ingress")))
    with guest_of(ONE, tmp_path) as guest, guest_of(TWO, tmp_path) as other:
        assert guest.lease()["ip"] == ONE_IP
        other.lease()
        assert await off(guest.get, "http://169.254.169.254/latest/") == "told\n200"
        with listening(other, 22):
            assert not reaches(guest, TWO_IP, 22)
        assert not pings(guest, TWO_IP)
        assert not pings(other, ONE_IP)
    await agent.close()


async def test_where_little_may_leave_answers_do(host: Host, tmp_path: Path) -> None:
    dns = RulePlan(direction="egress", protocol="udp", port_min=53, port_max=53)
    echo = RulePlan(direction="ingress", protocol="icmp", port_min=8)
    agent = await agent_with(host, ruled(ONE, SSH, dns, echo), ruled(TWO, ALL_OUT, RulePlan(direction="ingress")))
    with guest_of(ONE, tmp_path) as guest, guest_of(TWO, tmp_path) as other:
        guest.lease()
        other.lease()
        with listening(guest, 22), listening(other, 22, 53):
            assert reaches(other, ONE_IP, 22)
            assert reaches(guest, TWO_IP, 53, "udp")
            assert not reaches(guest, TWO_IP, 53, "tcp")
            assert not reaches(guest, TWO_IP, 22, "udp")
        assert pings(other, ONE_IP)
        assert not pings(guest, TWO_IP)
    await agent.close()


async def test_connections_outlive_a_change_of_rules_and_their_memory_is_no_damage(host: Host, tmp_path: Path) -> None:
    host.options = NetworkAgentOptions(repair_interval=0.2, reconcile_interval=1000)
    agent = await agent_with(host, ruled(ONE, ALL_OUT))
    with guest_of(ONE, tmp_path) as guest:
        guest.lease()
        got: list[bytes] = []
        told, wrote = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read(99))
            told.set()
            await wrote.wait()
            writer.write(b"late")  # the guest has not said anything since
            await writer.drain()
            writer.close()

        ask = (
            "import socket; s = socket.create_connection(('10.91.7.1', 7778), 3); s.send(b'first'); "
            "s.settimeout(5); print(s.recv(99).decode())"
        )
        host_port = asyncio.start_server(serve, HOST_IP, 7778)
        server = await host_port
        await agent.close()
        host.options = NetworkAgentOptions(
            repair_interval=0.2, reconcile_interval=1000, host_ports_for_guests=("7778",)
        )
        host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ruled(ONE, ALL_OUT),))
        agent = host.agent()
        await agent.start()
        asking = asyncio.create_task(off(guest.run, sys.executable, "-c", ask))
        async with asyncio.timeout(5):
            await told.wait()
        await asyncio.sleep(0.7)  # some rounds of repair, while a connection is remembered
        [metric] = [m for m in host.metrics.collect() if m.name == "kilonova_network_repairs"]
        assert not [sample for sample in metric.samples if sample.value and sample.name.endswith("_total")]
        await agent.plug(TWO.server_id, [BLUE], [ruled(TWO, ALL_OUT)], epoch=1)
        assert f"chain {TWO.nic.tap}_in " in sh("nft", "list", "ruleset")
        wrote.set()
        assert (await asking).strip() == "late"
        await agent.unplug(TWO.server_id, epoch=2)
        shown = sh("nft", "list", "ruleset")
        assert TWO.nic.tap not in shown
        assert f"set {ONE.nic.tap}_flows_in " in shown
        server.close()
    await agent.close()


async def test_a_group_that_somebody_changed_behind_our_back_is_mended(host: Host) -> None:
    agent = await agent_with(host, ruled(ONE, FROM_GROUP), group=(ONE_IP, "10.91.7.20"))
    [name] = [
        line.split()[1] for line in sh("nft", "list", "ruleset").splitlines() if "set m_" in line and "{" in line
    ][:1]
    for verb in ("add", "delete"):
        sh("nft", verb, "element", "bridge", MARK, name, f"{{ {OTHER_IP if verb == 'add' else '10.91.7.20'} }}")
        assert await agent.repair() == ["rules"]
        shown = sh("nft", "list", "set", "bridge", MARK, name)
        assert OTHER_IP not in shown
        assert "10.91.7.20" in shown
    assert await agent.repair() == []
    await agent.close()


async def test_who_is_in_the_groups_of_a_new_port_is_asked_at_once(host: Host, tmp_path: Path) -> None:
    agent = await agent_with(host)
    one, two = ruled(ONE, ALL_OUT, FROM_GROUP), ruled(TWO, ALL_OUT, FROM_GROUP)
    group = GroupMembers(network_id=BLUE.id, group_id="g", addresses=(ONE_IP, TWO_IP))
    host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(one, two), members=(group,))
    await agent.plug(one.server_id, [BLUE], [one], epoch=1)
    await agent.plug(two.server_id, [BLUE], [two], epoch=1)
    async with asyncio.timeout(10):
        while (
            "elements" not in sh("nft", "list", "table", "bridge", MARK).partition(f"set m_{BLUE.bridge[2:]}_g")[2][:99]
        ):
            await asyncio.sleep(0.05)
    with guest_of(one, tmp_path) as first, guest_of(two, tmp_path) as second:
        first.lease()
        second.lease()
        assert pings(first, TWO_IP)
    await agent.close()
