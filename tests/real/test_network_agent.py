"""The network agent on a real kernel: bridges, dnsmasq, nftables and guests, all in namespaces of their own."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from tests.support.namespaces import Guest, host_namespace, sh, tools_missing
from tests.support.network_plans import a_network_plan, a_port_plan

from kilonova.base.clock import SystemClock
from kilonova.model.errors import NetworkFailed, StaleEpoch
from kilonova.model.network_plans import HostNetworks, NetworkPlan, PortPlan
from kilonova.network import nftables
from kilonova.network.agent import NetworkAgent
from kilonova.network.flat import Flat
from kilonova.network.options import NetworkAgentOptions

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(tools_missing()), reason=tools_missing())]

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
        return NetworkAgent(
            "host", self.directory, self.conductor, table=MARK, api_url=self._metadata.url, secret=SECRET,
            clock=SystemClock(), options=self.options,
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


# ---- addresses -------------------------------------------------------------------------------------------------


async def test_a_guest_gets_its_address_and_all_that_belongs_to_it(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        given = guest.lease()
    assert given["ip"] == "10.91.7.10"
    assert given["mtu"] == "1400"
    assert given["router"] == given["dns"] == given["server"] == "10.91.7.1"
    assert given["hostname"] == "one"
    assert "169.254.169.254/32 10.91.7.1" in given["routes"]
    assert "0.0.0.0/0 10.91.7.1" in given["routes"]


async def test_a_port_that_nobody_knows_gets_none(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(TWO, tmp_path) as stranger:
        assert stranger.lease(tries=2) == {}


async def test_a_second_port_is_told_to_the_running_server(agent: NetworkAgent, host: Host, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    before = host.dnsmasq()
    await agent.plug(TWO.server_id, [BLUE], [TWO], epoch=1)
    assert host.dnsmasq() == before
    with guest_of(TWO, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.11"


async def test_an_address_is_free_for_its_next_owner_at_once(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(TWO.server_id, [BLUE], [TWO], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.10"
    await agent.unplug(ONE.server_id, epoch=2)
    heir = a_port_plan(BLUE, "heir", 10)
    await agent.plug(heir.server_id, [BLUE], [heir], epoch=1)
    with guest_of(heir, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.10"


async def test_without_a_gateway_there_is_no_way_out_but_metadata(agent: NetworkAgent, tmp_path: Path) -> None:
    network = a_network_plan("green", "10.91.9.0/24", gateway=None)
    port = a_port_plan(network, "one", 10)
    await agent.plug(port.server_id, [network], [port], epoch=1)
    with guest_of(port, tmp_path) as guest:
        given = guest.lease()
    assert given["router"] == ""
    assert given["routes"].strip() == "169.254.169.254/32 10.91.9.1"


# ---- spoofing ----------------------------------------------------------------------------------------------------

BROADCAST = "ff:ff:ff:ff:ff:ff"


def ether(src: str, kind: int, payload: bytes, dst: str = BROADCAST) -> bytes:
    def raw(mac: str) -> bytes:
        return bytes.fromhex(mac.replace(":", ""))

    return raw(dst) + raw(src) + struct.pack("!H", kind) + payload


def udp(src: str, dst: str, sport: int = 5000, dport: int = 5000) -> bytes:
    body = struct.pack("!HHHH", sport, dport, 8 + 5, 0) + b"hello"
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, IPv4Address(src).packed, IPv4Address(dst).packed
    )
    total = sum(struct.unpack("!10H", head))
    checksum = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    return head[:10] + struct.pack("!H", checksum) + head[12:] + body


def arp(mac: str, src: str, dst: str) -> bytes:
    return struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, bytes.fromhex(mac.replace(":", "")), IPv4Address(src).packed, b"\0" * 6,
        IPv4Address(dst).packed,
    )  # fmt: skip


class Ear:
    """Hears what guests' frames reach the host through a bridge."""

    def __init__(self, bridge: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((bridge, 0))
        self._socket.settimeout(0.3)

    def hears(self, frame: bytes) -> bool:
        """Whether `frame` has come through."""
        try:
            while True:
                heard, where = self._socket.recvfrom(2048)
                if heard.startswith(frame) and where[2] != socket.PACKET_OUTGOING:
                    return True
        except TimeoutError:
            return False


OTHER_MAC = "fa:16:3e:00:00:99"
HOST_IP, OWN_IP, OTHER_IP = "10.91.7.1", "10.91.7.10", "10.91.7.66"
OWN_MAC = ONE.nic.mac

PASSES = {
    "own address": ether(OWN_MAC, 0x0800, udp(OWN_IP, HOST_IP)),
    "own ARP": ether(OWN_MAC, 0x0806, arp(OWN_MAC, OWN_IP, HOST_IP)),
    "ARP probe": ether(OWN_MAC, 0x0806, arp(OWN_MAC, "0.0.0.0", OWN_IP)),
    "DHCP request": ether(OWN_MAC, 0x0800, udp("0.0.0.0", "255.255.255.255", 68, 67)),
}
IS_DROPPED = {
    "other card": ether(OTHER_MAC, 0x0800, udp(OWN_IP, HOST_IP)),
    "other address": ether(OWN_MAC, 0x0800, udp(OTHER_IP, HOST_IP)),
    "gateway's address": ether(OWN_MAC, 0x0800, udp(HOST_IP, OWN_IP)),
    "ARP in another's name": ether(OWN_MAC, 0x0806, arp(OWN_MAC, OTHER_IP, HOST_IP)),
    "ARP in the gateway's name": ether(OWN_MAC, 0x0806, arp(OWN_MAC, HOST_IP, OTHER_IP)),
    "ARP of another card": ether(OWN_MAC, 0x0806, arp(OTHER_MAC, OWN_IP, HOST_IP)),
    "DHCP answer": ether(OWN_MAC, 0x0800, udp(OWN_IP, "255.255.255.255", 67, 68)),
    "nobody's address, no DHCP": ether(OWN_MAC, 0x0800, udp("0.0.0.0", "255.255.255.255")),
    "IPv6": ether(OWN_MAC, 0x86DD, b"\x60" + b"\0" * 5 + b"\x3a\xff" + b"\0" * 32),
    "VLAN tag": ether(OWN_MAC, 0x8100, b"\0\x05\x08\0" + udp(OWN_IP, HOST_IP)),
    "another protocol": ether(OWN_MAC, 0x88B5, b"x" * 46),
}


async def test_a_guest_speaks_in_its_own_name_alone(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        ear = Ear(BLUE.bridge)
        heard: dict[str, bool] = {}
        for name, frame in (PASSES | IS_DROPPED).items():
            guest.send(frame)
            heard[name] = ear.hears(frame)
    assert heard == dict.fromkeys(PASSES, True) | dict.fromkeys(IS_DROPPED, False)


async def test_spoofed_frames_reach_no_other_guest(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE, TWO], epoch=1)
    with guest_of(ONE, tmp_path) as guest, guest_of(TWO, tmp_path):
        towards_two = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        towards_two.bind((TWO.nic.tap, 0))
        towards_two.settimeout(0.3)
        honest, spoofed = PASSES["own ARP"], IS_DROPPED["ARP in the gateway's name"]
        guest.send(spoofed)
        guest.send(honest)
        seen = []
        with contextlib.suppress(TimeoutError):
            while True:
                seen.append(towards_two.recv(2048))
        assert any(frame.startswith(honest) for frame in seen)
        assert not any(frame.startswith(spoofed) for frame in seen)


async def test_a_port_without_rules_is_cut_off(agent: NetworkAgent, tmp_path: Path) -> None:
    if not await nftables.knows_bridges():
        pytest.skip("this kernel cannot tell a frame's bridge (CONFIG_NFT_BRIDGE_META)")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(TWO, tmp_path) as stranger:
        ear = Ear(BLUE.bridge)
        frame = ether(TWO.nic.mac, 0x0800, udp("10.91.7.11", HOST_IP))
        stranger.send(frame)
        assert not ear.hears(frame)


async def test_what_a_port_is_allowed_besides(agent: NetworkAgent, tmp_path: Path) -> None:
    pairs = ("10.91.7.66", "10.91.7.64/28", f"10.91.7.77,{OTHER_MAC}")
    allowed = msgspec.structs.replace(ONE, nic=msgspec.structs.replace(ONE.nic, allowed_address_pairs=pairs))
    free = msgspec.structs.replace(ONE, nic=msgspec.structs.replace(ONE.nic, port_security=False))
    down = msgspec.structs.replace(ONE, admin_up=False)
    from_other = ether(OTHER_MAC, 0x0800, udp("10.91.7.77", HOST_IP))
    spoofed, honest = IS_DROPPED["other address"], PASSES["own address"]
    await agent.plug(ONE.server_id, [BLUE], [allowed], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        ear = Ear(BLUE.bridge)

        def passes(frame: bytes) -> bool:
            guest.send(frame)
            return ear.hears(frame)

        assert [passes(f) for f in (spoofed, from_other, honest)] == [True, True, True]
        assert not passes(IS_DROPPED["other card"])
        await agent.plug(ONE.server_id, [BLUE], [free], epoch=1)
        assert passes(IS_DROPPED["other card"])
        await agent.plug(ONE.server_id, [BLUE], [down], epoch=1)
        assert not passes(honest)


# ---- metadata, and the host ---------------------------------------------------------------------------------------


async def test_metadata_is_told_to_whom_it_is(agent: NetworkAgent, metadata: Metadata, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE, TWO], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        guest.lease()
        told = await off(
            guest.get, "http://169.254.169.254/openstack/latest/../../x/meta_data.json?y=1", "--path-as-is",
            "-H", "X-Instance-ID: another", "-H", "X-Forwarded-For: 10.91.7.11",
        )  # fmt: skip
        assert told == "told\n200"
        assert (await off(guest.get, "http://169.254.169.254/latest/meta-data/", "-X", "DELETE")).endswith("405")
    [(path, headers)] = metadata.asked
    assert path == "/metadata/openstack/latest/x/meta_data.json"
    assert headers["x-instance-id"] == ONE.server_id
    assert headers["x-tenant-id"] == "project"
    assert headers["x-forwarded-for"] == "10.91.7.10"
    signature = hmac.new(SECRET.encode(), ONE.server_id.encode(), hashlib.sha256).hexdigest()
    assert headers["x-instance-id-signature"] == signature


async def test_metadata_that_cannot_be_reached_is_a_503(
    agent: NetworkAgent, metadata: Metadata, tmp_path: Path
) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    metadata.server.shutdown()
    metadata.server.server_close()
    with guest_of(ONE, tmp_path) as guest:
        guest.lease()
        assert (await off(guest.get, "http://169.254.169.254/latest/")).endswith("503")


async def test_guests_reach_of_the_host_only_what_they_need(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    server = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", 7777)
    try:
        with guest_of(ONE, tmp_path) as guest:
            guest.lease()
            connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"

            async def reaches(address: str, port: int) -> bool:
                try:
                    await off(guest.run, "python3", "-c", connect, address, str(port))
                except RuntimeError:
                    return False
                return True

            assert await reaches("10.91.7.1", 8776)
            assert await reaches("10.91.7.1", 53)
            assert not await reaches("10.91.7.1", 7777)
            assert not await reaches("10.91.8.1", 8776)  # the proxy of another network
    finally:
        server.close()


async def test_guests_of_two_networks_do_not_meet(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    with guest_of(ONE, tmp_path) as one, guest_of(THREE, tmp_path) as three:
        one.lease()
        three.lease()
        towards = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        towards.bind((THREE.nic.tap, 0))
        towards.settimeout(0.5)
        send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'across', ('10.91.8.30', 9))"
        one.run("python3", "-c", send)
        with contextlib.suppress(TimeoutError):
            while True:
                assert b"across" not in towards.recv(2048)


async def test_guests_reach_the_world_in_the_hosts_name(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with Guest("uplink0", BLUE.bridge, "02:00:00:00:00:01", tmp_path) as world, guest_of(ONE, tmp_path) as guest:
        sh("ip", "link", "set", "uplink0", "nomaster")
        sh("ip", "address", "add", "203.0.113.1/24", "dev", "uplink0")
        world.run("ip", "address", "add", "203.0.113.2/24", "dev", "eth0")
        guest.lease()
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        ear.bind(("uplink0", 0))
        ear.settimeout(2)
        send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'outward', ('203.0.113.2', 9))"
        guest.run("python3", "-c", send)
        while b"outward" not in (frame := ear.recv(2048)):
            pass
        assert IPv4Address(frame[26:30]) == IPv4Address("203.0.113.1")


# ---- what survives, and what is left --------------------------------------------------------------------------------


async def test_the_last_port_takes_everything_with_it(agent: NetworkAgent, host: Host) -> None:
    for epoch in range(1, 11):
        await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=epoch)
        await agent.plug(THREE.server_id, [RED], [THREE], epoch=epoch)
        assert len(host.left()) == 8  # two bridges, two tables, two directories, two address servers
        await agent.unplug(ONE.server_id, epoch=epoch)
        await agent.unplug(THREE.server_id, epoch=epoch)
        assert host.left() == []


async def test_the_bridge_keeps_its_card_when_ports_come(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    card = Path(f"/sys/class/net/{BLUE.bridge}/address")

    def shown() -> str:
        return sh("ip", "-o", "link", "show", BLUE.bridge).split("link/ether ")[1].split()[0]

    del card
    before = shown()
    with Guest(ONE.nic.tap, BLUE.bridge, ONE.nic.mac, tmp_path) as guest:
        sh("ip", "link", "set", ONE.nic.tap, "address", "02:00:00:00:00:01")
        del guest
        assert shown() == before


async def test_an_agent_that_is_killed_leaves_guests_their_address_server(host: Host, tmp_path: Path) -> None:
    first = host.agent()
    await first.start()
    await first.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    server = host.dnsmasq()
    assert os.getsid(server) != os.getsid(0)  # no signal to this process or its group reaches it
    rules = sh("nft", "list", "ruleset")
    await first.close()  # what a kill does, seen from outside: nothing is taken away
    with guest_of(ONE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.10"
        second = host.agent()
        host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
        await second.start()
        assert host.dnsmasq() == server
        assert sh("nft", "list", "ruleset") == rules
        assert (await off(guest.get, "http://169.254.169.254/latest/")) == "told\n200"
        await second.unplug(ONE.server_id, epoch=2)
        await second.close()
    assert host.left() == []


async def test_on_start_it_makes_what_is_missing_and_removes_what_is_stray(host: Host, tmp_path: Path) -> None:
    first = host.agent()
    await first.start()
    await first.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await first.close()
    sh("ip", "link", "add", "kbstray0000", "type", "bridge")
    sh("ip", "link", "set", "kbstray0000", "alias", MARK)
    sh("ip", "link", "add", "kbforeign00", "type", "bridge")
    second = host.agent()
    host.conductor.wanted = HostNetworks(networks=(RED,), ports=(THREE,))
    await second.start()
    links = sh("ip", "-o", "link")
    assert RED.bridge in links
    assert BLUE.bridge not in links
    assert "kbstray0000" not in links
    assert "kbforeign00" in links  # not ours
    with guest_of(THREE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.8.30"
    sh("ip", "link", "delete", "kbforeign00")
    await second.unplug(THREE.server_id, epoch=1)
    await second.close()


async def test_a_bridge_with_guests_stays_though_its_record_is_lost(host: Host, tmp_path: Path) -> None:
    first = host.agent()
    await first.start()
    await first.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await first.close()
    with guest_of(ONE, tmp_path) as guest:
        (host.directory / BLUE.id / "plan.json").write_text("{")
        second = host.agent()
        host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
        await second.start()
        assert guest.lease()["ip"] == "10.91.7.10"  # its tap is still on the bridge
        await second.unplug(ONE.server_id, epoch=1)
        await second.close()


async def test_repair_makes_again_what_somebody_took_away(agent: NetworkAgent, host: Host, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    assert await agent.driver.repair() == []
    os.kill(host.dnsmasq(), signal.SIGKILL)
    sh("nft", "flush", "ruleset")
    sh("ip", "address", "flush", "dev", BLUE.bridge)
    mended = await agent.driver.repair()
    assert mended == [f"bridge {BLUE.bridge}", "rules", f"address server of {BLUE.bridge}"]
    with guest_of(ONE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.10"
        frame = IS_DROPPED["other address"]
        ear = Ear(BLUE.bridge)
        guest.send(frame)
        assert not ear.hears(frame)


async def test_an_older_command_is_refused(agent: NetworkAgent, host: Host) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=5)
    await agent.unplug(ONE.server_id, epoch=6)
    with pytest.raises(StaleEpoch):
        await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=5)
    assert host.left() == []


async def test_a_command_that_is_superseded_leaves_nothing_half_made(agent: NetworkAgent, host: Host) -> None:
    plugging = asyncio.create_task(agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1))
    await asyncio.sleep(0.005)
    await agent.unplug(ONE.server_id, epoch=2)
    with contextlib.suppress(StaleEpoch):
        await plugging
    assert host.left() == []


async def test_an_answer_older_than_a_command_does_not_undo_it(agent: NetworkAgent, host: Host) -> None:
    host.conductor.asked.clear()
    host.conductor.answer.clear()
    comparing = asyncio.create_task(agent.refresh())
    await host.conductor.asked.wait()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    host.conductor.answer.set()
    await comparing
    assert [port.server_id for port in agent.driver.carried().ports] == [ONE.server_id]
    await agent.refresh()  # asked now, the conductor says: nothing
    assert agent.driver.carried().ports == ()


async def test_a_tool_that_refuses_is_named(agent: NetworkAgent, host: Host) -> None:
    broken = msgspec.structs.replace(BLUE, bridge="kb-this-name-is-too-long")
    port = msgspec.structs.replace(ONE, nic=msgspec.structs.replace(ONE.nic, bridge=broken.bridge))
    with pytest.raises(NetworkFailed, match="ip -batch"):
        await agent.plug(ONE.server_id, [broken], [port], epoch=1)
    await agent.unplug(ONE.server_id, epoch=1)
    assert host.left() == []


async def test_flat_without_dhcp_has_rules_and_metadata_alone(host: Host, metadata: Metadata) -> None:
    host.options = NetworkAgentOptions(driver="flat")
    agent = host.agent()
    assert type(agent.driver) is Flat
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    assert not any("dnsmasq" in one for one in host.left())
    assert OWN_IP in sh("nft", "list", "table", "bridge", MARK)
    await agent.unplug(ONE.server_id, epoch=1)
    await agent.close()
