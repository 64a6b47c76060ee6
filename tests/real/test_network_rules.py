"""The rules of a host on a real kernel: frames are sent, and arrive or do not."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.real.network_rig import BLUE, MARKS, ONE, RED, THREE, TWO, Host, Metadata, guest_of, off
from tests.support.frames import Ear, arp, dhcp, ether, udp, udp6
from tests.support.namespaces import Guest, sh
from tests.support.network_plans import a_network_plan

from kilonova.model.network_plans import PortPlan
from kilonova.network import bridges
from kilonova.network.agent import NetworkAgent
from kilonova.network.options import NetworkAgentOptions

pytestmark = MARKS

OTHER_MAC = "fa:16:3e:00:00:99"
HOST_IP, OWN_IP, OTHER_IP = "10.91.7.1", "10.91.7.10", "10.91.7.66"
OWN_MAC = ONE.nic.mac

PASSES = {
    "own address": ether(OWN_MAC, 0x0800, udp(OWN_IP, HOST_IP)),
    "own ARP": ether(OWN_MAC, 0x0806, arp(OWN_MAC, OWN_IP, HOST_IP)),
    "ARP probe": ether(OWN_MAC, 0x0806, arp(OWN_MAC, "0.0.0.0", OWN_IP)),
    "DHCP request": ether(OWN_MAC, 0x0800, dhcp(OWN_MAC)),
    "DHCP renewal": ether(OWN_MAC, 0x0800, dhcp(OWN_MAC, OWN_IP, HOST_IP)),
}
IS_DROPPED = {
    "other card": ether(OTHER_MAC, 0x0800, udp(OWN_IP, HOST_IP)),
    "other address": ether(OWN_MAC, 0x0800, udp(OTHER_IP, HOST_IP)),
    "gateway's address": ether(OWN_MAC, 0x0800, udp(HOST_IP, OWN_IP)),
    "ARP in another's name": ether(OWN_MAC, 0x0806, arp(OWN_MAC, OTHER_IP, HOST_IP)),
    "ARP in the gateway's name": ether(OWN_MAC, 0x0806, arp(OWN_MAC, HOST_IP, OTHER_IP)),
    "ARP of another card": ether(OWN_MAC, 0x0806, arp(OTHER_MAC, OWN_IP, HOST_IP)),
    "DHCP in another card's name": ether(OWN_MAC, 0x0800, dhcp(OTHER_MAC)),
    "DHCP renewal in another card's name": ether(OWN_MAC, 0x0800, dhcp(OTHER_MAC, OWN_IP, HOST_IP)),
    "DHCP that is too short to tell": ether(OWN_MAC, 0x0800, udp(OWN_IP, HOST_IP, 68, 67)),
    "DHCP answer": ether(OWN_MAC, 0x0800, udp(OWN_IP, "255.255.255.255", 67, 68)),
    "nobody's address, no DHCP": ether(OWN_MAC, 0x0800, udp("0.0.0.0", "255.255.255.255")),
    "IPv6": ether(OWN_MAC, 0x86DD, b"\x60" + b"\0" * 5 + b"\x3a\xff" + b"\0" * 32),
    "VLAN tag": ether(OWN_MAC, 0x8100, b"\0\x05\x08\0" + udp(OWN_IP, HOST_IP)),
    "another protocol": ether(OWN_MAC, 0x88B5, b"x" * 46),
}


def but(port: PortPlan, **nic: Any) -> PortPlan:
    """A port with another card."""
    return msgspec.structs.replace(port, nic=msgspec.structs.replace(port.nic, **nic))


async def test_a_guest_speaks_in_its_own_name_alone(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest, Ear(BLUE.bridge) as ear:
        heard: dict[str, bool] = {}
        for name, frame in (PASSES | IS_DROPPED).items():
            guest.send(frame)
            heard[name] = ear.hears(frame)
    assert heard == dict.fromkeys(PASSES, True) | dict.fromkeys(IS_DROPPED, False)


async def test_spoofed_frames_reach_no_other_guest(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE, TWO], epoch=1)
    with guest_of(ONE, tmp_path) as guest, guest_of(TWO, tmp_path), Ear(TWO.nic.tap) as towards_two:
        for frame, arrives in ((PASSES["own ARP"], True), (IS_DROPPED["ARP in the gateway's name"], False)):
            guest.send(frame)
            assert towards_two.hears(frame, outgoing=True) is arrives


async def test_a_port_without_addresses_may_ask_for_one_and_no_more(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [but(ONE, fixed_ips=())], epoch=1)
    with guest_of(ONE, tmp_path) as guest, Ear(BLUE.bridge) as ear:
        heard = set()
        for name, frame in (PASSES | IS_DROPPED).items():
            guest.send(frame)
            if ear.hears(frame):
                heard.add(name)
    assert heard == {"DHCP request"}


async def test_a_link_that_nobody_told_us_of_is_cut_off(agent: NetworkAgent, tmp_path: Path) -> None:
    silent = a_network_plan("blue", enable_dhcp=False)  # so that port 67, which is open to guests, is the test's
    await agent.plug(ONE.server_id, [silent], [ONE], epoch=1)
    with (
        guest_of(ONE, tmp_path) as guest,
        Guest("stranger0", BLUE.bridge, TWO.nic.mac, tmp_path) as stranger,
        Ear(ONE.nic.tap) as towards_one,
        Ear("stranger0") as towards_stranger,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host,
    ):
        host.bind(("0.0.0.0", 67))
        host.settimeout(0.3)
        bridge_mac = bridges.mac_of(BLUE)
        # What an honest port may send, so that nothing but the link itself is a reason to drop it.
        to_host = ether(TWO.nic.mac, 0x0800, dhcp(TWO.nic.mac, "10.91.7.11", HOST_IP), dst=bridge_mac)
        to_all = ether(TWO.nic.mac, 0x0800, dhcp(TWO.nic.mac, "10.91.7.11"))
        asks = ether(TWO.nic.mac, 0x0806, arp(TWO.nic.mac, "10.91.7.11", HOST_IP))

        def host_hears() -> bool:
            with contextlib.suppress(TimeoutError):
                return host.recv(2000).startswith(b"\1\1\6")
            return False

        for frame in (to_host, to_all, asks):
            stranger.send(frame)
            assert not host_hears()
            assert not towards_one.hears(frame, outgoing=True)
        assert "10.91.7.11" not in sh("ip", "neighbour", "show", "dev", BLUE.bridge)
        # Nor does it hear the others.
        guest.send(PASSES["own ARP"])
        assert not towards_stranger.hears(PASSES["own ARP"], outgoing=True)
        # The same frames, from the same link, once it is one that we know.
        known = but(TWO, tap="stranger0")
        await agent.plug(TWO.server_id, [silent], [known], epoch=1)
        for frame in (to_host, to_all):
            stranger.send(frame)
            assert host_hears()
        stranger.send(asks)
        assert towards_one.hears(asks, outgoing=True)
        assert "10.91.7.11" in sh("ip", "neighbour", "show", "dev", BLUE.bridge)
        guest.send(PASSES["own ARP"])
        assert towards_stranger.hears(PASSES["own ARP"], outgoing=True)


async def test_what_a_port_is_allowed_besides(agent: NetworkAgent, tmp_path: Path) -> None:
    allowed = msgspec.structs.replace(
        but(ONE, allowed_address_pairs=("10.91.7.66", "10.91.7.64/29")), allowed_macs=(("10.91.7.77", OTHER_MAC),)
    )
    other_card = {
        "its address": ether(OTHER_MAC, 0x0800, udp("10.91.7.77", HOST_IP)),
        "its ARP": ether(OTHER_MAC, 0x0806, arp(OTHER_MAC, "10.91.7.77", HOST_IP)),
    }
    crossed = {
        "own card, other's address": ether(OWN_MAC, 0x0800, udp("10.91.7.77", HOST_IP)),
        "other's card, own address": IS_DROPPED["other card"],
        "other's card, allowed address": ether(OTHER_MAC, 0x0800, udp(OTHER_IP, HOST_IP)),
        "ARP of the other's card in a frame of ours": ether(OWN_MAC, 0x0806, arp(OTHER_MAC, "10.91.7.77", HOST_IP)),
    }
    spoofed, honest = IS_DROPPED["other address"], PASSES["own address"]
    await agent.plug(ONE.server_id, [BLUE], [allowed], epoch=1)
    with guest_of(ONE, tmp_path) as guest, Ear(BLUE.bridge) as ear:

        def passes(frame: bytes) -> bool:
            guest.send(frame)
            return ear.hears(frame)

        assert all(passes(frame) for frame in (spoofed, honest, *other_card.values()))
        assert [name for name, frame in crossed.items() if passes(frame)] == []
        await agent.plug(ONE.server_id, [BLUE], [but(ONE, allowed_address_pairs=("0.0.0.0/0",))], epoch=1)
        assert passes(spoofed)
        assert passes(IS_DROPPED["ARP in another's name"])
        assert not passes(IS_DROPPED["ARP in the gateway's name"])
        assert not passes(IS_DROPPED["gateway's address"])
        assert not passes(IS_DROPPED["other card"])
        await agent.plug(ONE.server_id, [BLUE], [but(ONE, port_security=False)], epoch=1)
        assert passes(IS_DROPPED["other card"])
        await agent.plug(ONE.server_id, [BLUE], [msgspec.structs.replace(ONE, admin_up=False)], epoch=1)
        assert not passes(honest)


LINK_LOCAL = "01:80:c2:00:00:0e"
"""A bridge passes frames to this address on to the host's stack as if they had come by the port itself, past its rules
for what is forwarded."""


@contextlib.contextmanager
def hears_udp(port: int) -> Iterator[Callable[[], bool]]:
    """Whether the host's own programs hear something at a UDP port, on any of its addresses."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        listener.settimeout(0.3)

        def heard() -> bool:
            with contextlib.suppress(TimeoutError):
                return bool(listener.recv(100))
            return False

        yield heard


async def test_no_frame_reaches_the_host_by_the_tap_itself(agent: NetworkAgent, tmp_path: Path) -> None:
    sh("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    sh("ip", "address", "add", "2001:db8::1/128", "dev", "lo")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest, hears_udp(7777) as heard:
        shown = sh("ip", "-o", "link", "show", ONE.nic.tap).split("link/ether ")[1].split()[0]
        frames = {
            "IPv4": (0x0800, udp(OWN_IP, "203.0.113.1", dport=7777)),
            "IPv6": (0x86DD, udp6("2001:db8::2", "2001:db8::1", 7777)),
        }
        reached: list[str] = []
        for name, (kind, packet) in frames.items():
            guest.send(ether(OWN_MAC, kind, packet, dst=LINK_LOCAL))
            reached += [f"{name} on the bridge"] if heard() else []
        sh("ip", "link", "set", ONE.nic.tap, "nomaster")
        for name, (kind, packet) in frames.items():
            guest.send(ether(OWN_MAC, kind, packet, dst=shown))
            reached += [f"{name} off the bridge"] if heard() else []
        assert reached == []
        sh("nft", "flush", "ruleset")  # so it is our rules, and not these frames, that are the reason
        for kind, packet in frames.values():
            guest.send(ether(OWN_MAC, kind, packet, dst=shown))
            assert heard()


async def test_the_host_tells_guests_none_of_its_other_addresses(agent: NetworkAgent, tmp_path: Path) -> None:
    sh("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        guest.lease()

        def answers(address: str) -> bool:
            asked = guest.run("busybox", "arping", "-c1", "-w1", "-I", "eth0", address, check=False)
            return "Received 1 response" in asked

        assert answers(HOST_IP)
        assert not answers("203.0.113.1")


async def test_metadata_is_told_to_no_address_but_the_ports_own(
    agent: NetworkAgent, metadata: Metadata, tmp_path: Path
) -> None:
    loose = but(TWO, port_security=False, allowed_address_pairs=("0.0.0.0/0",))
    for two in (loose, but(loose, port_security=True)):
        await agent.plug(TWO.server_id, [BLUE], [ONE, two], epoch=1)
        metadata.asked.clear()
        with guest_of(TWO, tmp_path) as guest:
            guest.lease()
            ask = ("http://169.254.169.254/latest/", "-m", "2")
            assert (await off(guest.get, *ask)) == "told\n200"
            guest.run("ip", "address", "add", f"{OWN_IP}/24", "dev", "eth0")
            for url in (ask[0], f"http://{HOST_IP}:9697/latest/"):
                assert "told" not in await off(guest.get, url, "-m", "2", "--interface", OWN_IP)
        assert [headers["x-instance-id"] for _, headers in metadata.asked] == [TWO.server_id]


# ---- of the host, and of other networks ------------------------------------------------------------------------

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


def reaching(guest: Guest) -> Callable[[str, int], Awaitable[bool]]:
    """Whether the guest comes to a TCP port."""

    async def reaches(address: str, port: int) -> bool:
        try:
            await off(guest.run, "python3", "-c", CONNECT, address, str(port))
        except RuntimeError:
            return False
        return True

    return reaches


async def test_guests_reach_of_the_host_only_what_they_need(host: Host, tmp_path: Path) -> None:
    host.options = NetworkAgentOptions(serve_dns=True, host_ports_for_guests=("7778",))
    agent = host.agent()
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    sh("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    servers = [await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", port) for port in (7777, 7778)]
    try:
        with guest_of(ONE, tmp_path) as guest:
            guest.lease()
            reaches = reaching(guest)
            assert await reaches("10.91.7.1", 9697)
            assert await reaches("10.91.7.1", 53)
            assert await reaches("10.91.7.1", 7778)
            assert not await reaches("10.91.7.1", 7777)
            for elsewhere in ("10.91.8.1", "203.0.113.1"):
                for port in (9697, 53, 7778):
                    assert not await reaches(elsewhere, port)
            assert "1 packets received" in guest.run("busybox", "ping", "-c1", "-W2", "10.91.7.1")
            assert " 0 packets received" in guest.run("busybox", "ping", "-c1", "-W1", "10.91.8.1", check=False)
    finally:
        for server in servers:
            server.close()
        await agent.close()


async def test_a_host_that_is_open_to_guests_keeps_its_other_addresses_closed(host: Host, tmp_path: Path) -> None:
    host.options = NetworkAgentOptions(host_ports_for_guests=("*",))
    agent = host.agent()
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    server = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", 7777)
    try:
        with guest_of(ONE, tmp_path) as guest:
            guest.lease()
            reaches = reaching(guest)
            assert await reaches("10.91.7.1", 7777)
            assert not await reaches("10.91.8.1", 7777)
            assert not await reaches("10.91.8.1", 9697)
    finally:
        server.close()
        await agent.close()


SAY = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'across', (sys.argv[1], 9))"


async def test_guests_of_two_networks_do_not_meet_though_the_host_routes(agent: NetworkAgent, tmp_path: Path) -> None:
    sh("sysctl", "-qw", "net.ipv4.ip_forward=1")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    with guest_of(ONE, tmp_path) as one, guest_of(THREE, tmp_path) as three, Ear(THREE.nic.tap) as towards_three:
        one.lease()
        three.lease()
        one.run("python3", "-c", SAY, "10.91.8.30")
        assert not towards_three.hears_text(b"across")
        # The same without our rules: so it is they.
        sh("nft", "flush", "ruleset")
        one.run("python3", "-c", SAY, "10.91.8.30")
        assert towards_three.hears_text(b"across")


async def test_bridges_of_two_clouds_on_one_host_do_not_meet(agent: NetworkAgent, host: Host, tmp_path: Path) -> None:
    sh("sysctl", "-qw", "net.ipv4.ip_forward=1")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    sh("ip", "link", "add", "kbneighbour", "type", "bridge")
    sh("ip", "address", "add", "10.91.9.1/24", "dev", "kbneighbour")
    sh("ip", "link", "set", "kbneighbour", "up")
    with Guest("kn-other", "kbneighbour", OTHER_MAC, tmp_path) as other, guest_of(ONE, tmp_path) as one:
        other.run("ip", "address", "add", "10.91.9.2/24", "dev", "eth0")
        other.run("ip", "route", "add", "default", "via", "10.91.9.1")
        one.lease()
        with Ear("kn-other") as towards_other, Ear(ONE.nic.tap) as towards_one:
            one.run("python3", "-c", SAY, "10.91.9.2")
            assert not towards_other.hears_text(b"across")
            other.run("python3", "-c", SAY, OWN_IP)
            assert not towards_one.hears_text(b"across")
        # We meddle with nothing of the neighbour's.
        assert "1 packets received" in other.run("busybox", "ping", "-c1", "-W2", "10.91.9.1")
    sh("ip", "link", "delete", "kbneighbour")


async def test_guests_reach_the_world_in_the_hosts_name_where_that_is_wanted(host: Host, tmp_path: Path) -> None:
    for wanted in (False, True):
        host.options = NetworkAgentOptions(masquerade=wanted)
        agent = host.agent()
        await agent.start()
        await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
        with Guest("uplink0", BLUE.bridge, "02:00:00:00:00:01", tmp_path) as world, guest_of(ONE, tmp_path) as guest:
            sh("ip", "link", "set", "uplink0", "nomaster")
            sh("ip", "address", "add", "203.0.113.1/24", "dev", "uplink0")
            world.run("ip", "address", "add", "203.0.113.2/24", "dev", "eth0")
            guest.lease()
            answers = guest.run("busybox", "ping", "-c1", "-W2", "203.0.113.2", check=False)
            assert ("1 packets received" in answers) is wanted
        await agent.unplug(ONE.server_id, epoch=1)
        await agent.close()


async def test_frames_of_one_network_pass_where_bridged_frames_go_through_ip_rules(
    agent: NetworkAgent, tmp_path: Path
) -> None:
    sh("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", check=False)
    sh("sysctl", "-qw", "net.bridge.bridge-nf-call-arptables=1", check=False)
    await agent.plug(ONE.server_id, [BLUE], [ONE, TWO], epoch=1)
    with guest_of(ONE, tmp_path) as one, guest_of(TWO, tmp_path) as two:
        assert one.lease()["ip"] == OWN_IP
        assert two.lease()["ip"] == "10.91.7.11"
        assert "1 packets received" in one.run("busybox", "ping", "-c1", "-W2", "10.91.7.11")
        assert "1 packets received" in one.run("busybox", "ping", "-c1", "-W2", HOST_IP)


async def test_a_card_to_other_hosts_passes_guests_and_keeps_the_hosts_own_back(host: Host, tmp_path: Path) -> None:
    flat = msgspec.structs.replace(BLUE, name="flat")
    sh("ip", "link", "add", "name", "segment0", "type", "veth", "peer", "name", "segment1")
    sh("ip", "link", "set", "segment1", "up")
    host.options = NetworkAgentOptions(flat_interface="segment0")
    agent = host.agent()
    await agent.start()
    await agent.plug(ONE.server_id, [flat], [ONE], epoch=1)
    bridge_mac = bridges.mac_of(flat)
    with guest_of(ONE, tmp_path) as guest, Ear("segment1") as segment, Ear(ONE.nic.tap) as towards_one:
        guest.send(PASSES["own ARP"])
        assert not segment.hears(PASSES["own ARP"])  # it asks for the host's address
        far = ether(OWN_MAC, 0x0806, arp(OWN_MAC, OWN_IP, "10.91.7.11"))
        guest.send(far)
        assert segment.hears(far)
        guest.send(PASSES["DHCP request"])
        assert not segment.hears(PASSES["DHCP request"])
        back = ether(TWO.nic.mac, 0x0806, arp(TWO.nic.mac, "10.91.7.11", OWN_IP))
        foreign_host = ether(bridge_mac, 0x0806, arp(bridge_mac, HOST_IP, OWN_IP))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("segment1", 0))
            wire.send(back)
            assert towards_one.hears(back, outgoing=True)
            wire.send(foreign_host)
            assert not towards_one.hears(foreign_host, outgoing=True)
    await agent.unplug(ONE.server_id, epoch=1)
    await agent.close()
    assert "segment0" in sh("ip", "-o", "link")
    sh("ip", "link", "delete", "segment0")
