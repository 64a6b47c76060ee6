"""The network agent on a real kernel: addresses, metadata, what survives and what is mended, in namespaces."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.real.network_rig import BLUE, MARK, MARKS, ONE, RED, SECRET, THREE, TWO, Host, Metadata, guest_of, off
from tests.support.frames import Ear, ether, udp
from tests.support.namespaces import Guest, sh
from tests.support.network_plans import a_network_plan, a_port_plan

from kilonova.model.errors import NetworkFailed, StaleEpoch
from kilonova.model.network_plans import HostNetworks
from kilonova.network.agent import NetworkAgent
from kilonova.network.flat import Flat
from kilonova.network.options import NetworkAgentOptions

pytestmark = MARKS

FOUR = a_port_plan(RED, "four", 31)


# ---- addresses -------------------------------------------------------------------------------------------------


async def test_a_guest_gets_its_address_and_all_that_belongs_to_it(agent: NetworkAgent, tmp_path: Path) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with guest_of(ONE, tmp_path) as guest:
        given = guest.lease()
    assert given["ip"] == "10.91.7.10"
    assert given["mtu"] == "1400"
    assert given["router"] == given["server"] == "10.91.7.1"
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


# ---- what survives, and what is left --------------------------------------------------------------------------------


async def test_the_last_port_takes_everything_with_it(agent: NetworkAgent, host: Host) -> None:
    for epoch in range(1, 11):
        await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=epoch)
        await agent.plug(THREE.server_id, [RED], [THREE], epoch=epoch)
        assert len(host.left()) == 10  # two bridges, four tables, two directories, two address servers
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


SPOOFED = ether(ONE.nic.mac, 0x0800, udp("10.91.7.66", "10.91.7.1"))


def spoils_nothing(guest: Guest) -> bool:
    """Whether the guest's spoofed frames are dropped."""
    with Ear(BLUE.bridge) as ear:
        guest.send(SPOOFED)
        return not ear.hears(SPOOFED)


def delete_a_rule(host: Host) -> None:
    shown = sh("nft", "--handle", "list", "chain", "bridge", MARK, ONE.nic.tap)
    last = [line for line in shown.splitlines() if "drop # handle" in line][-1].rpartition(" ")[2]
    sh("nft", "delete", "rule", "bridge", MARK, ONE.nic.tap, "handle", last)


def add_a_rule(host: Host) -> None:
    sh("nft", "insert", "rule", "bridge", MARK, ONE.nic.tap, "accept")


def kill_dnsmasq(host: Host) -> None:
    os.kill(host.dnsmasq(), signal.SIGKILL)


HARM: dict[str, tuple[Callable[[Host], object], set[str]]] = {
    "all rules flushed": (lambda _: sh("nft", "flush", "ruleset"), {"rules"}),
    "a table deleted": (lambda _: sh("nft", "delete", "table", "bridge", MARK), {"rules"}),
    "one rule deleted": (delete_a_rule, {"rules"}),
    "one rule added": (add_a_rule, {"rules"}),
    "the bridge deleted": (
        lambda _: sh("ip", "link", "delete", BLUE.bridge),
        {"bridge", "metadata proxy", "port", "address server"},
    ),
    "the bridge down": (lambda _: sh("ip", "link", "set", BLUE.bridge, "down"), {"bridge"}),
    "the tap off the bridge": (lambda _: sh("ip", "link", "set", ONE.nic.tap, "nomaster"), {"port"}),
    "the host's address gone": (lambda _: sh("ip", "address", "flush", "dev", BLUE.bridge), {"bridge"}),
    "dnsmasq killed": (kill_dnsmasq, {"address server"}),
}


@pytest.mark.parametrize("harm", HARM)
async def test_what_somebody_took_away_is_made_again_within_the_period(host: Host, tmp_path: Path, harm: str) -> None:
    host.options = NetworkAgentOptions(repair_interval=0.2, reconcile_interval=1000)
    agent = host.agent()
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    do, expected = HARM[harm]
    with guest_of(ONE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.7.10"
        do(host)
        async with asyncio.timeout(10):
            while mended(host) != expected:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert mended(host) == expected
        assert (await off(guest.lease))["ip"] == "10.91.7.10"
        assert (await off(guest.get, "http://169.254.169.254/latest/")) == "told\n200"
        assert spoils_nothing(guest)
    await agent.close()


def mended(host: Host) -> set[str]:
    """The kinds of things that were made again, as the metrics tell."""
    [metric] = [metric for metric in host.metrics.collect() if metric.name == "kilonova_network_repairs"]
    return {sample.labels["part"] for sample in metric.samples if sample.name.endswith("_total") and sample.value}


@contextlib.contextmanager
def watching(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A tool that tells what changes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_where_all_is_right_nothing_is_touched(host: Host, tmp_path: Path) -> None:
    host.options = NetworkAgentOptions(repair_interval=0.05, reconcile_interval=0.1)
    agent = host.agent()
    host.conductor.wanted = HostNetworks(networks=(BLUE,), ports=(ONE,))
    await agent.start()
    with (
        guest_of(ONE, tmp_path),
        watching("nft", "monitor") as monitor,
        watching("ip", "monitor", "link") as links,
        watching("ip", "-4", "monitor", "address") as addresses,  # the kernel makes those of IPv6 when it likes
    ):
        await asyncio.sleep(0.3)
        server = host.dnsmasq()
        hosts = (host.directory / BLUE.id / "hosts").stat()
        await asyncio.sleep(1.5)
        assert host.dnsmasq() == server
        assert (host.directory / BLUE.id / "hosts").stat() == hosts
        for watcher in (monitor, links, addresses):
            watcher.terminate()
            assert watcher.communicate()[0] == ""
    assert mended(host) == set()
    await agent.close()


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
    broken = msgspec.structs.replace(BLUE, mtu=70000)
    with pytest.raises(NetworkFailed, match="ip -batch"):
        await agent.plug(ONE.server_id, [broken], [ONE], epoch=1)
    await agent.unplug(ONE.server_id, epoch=1)
    assert host.left() == []


async def test_a_removal_that_a_tool_refused_is_done_when_it_is_asked_again(
    agent: NetworkAgent, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "ip"
    refusing.write_text(f'#!/bin/sh\n[ "$2" != delete ] || exit 2\nexec {shutil.which("ip")} "$@"\n')
    refusing.chmod(0o755)
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(NetworkFailed, match="ip link delete"):
            await agent.unplug(ONE.server_id, epoch=2)
        # No other network waits for it, nor is it told of it.
        await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
        await agent.plug(FOUR.server_id, [RED], [FOUR], epoch=1)
        await agent.unplug(FOUR.server_id, epoch=2)
        assert {BLUE.bridge, RED.bridge} <= set(sh("ip", "-o", "link").replace("@", ":").split(": "))
    await agent.unplug(ONE.server_id, epoch=2)
    assert BLUE.bridge not in sh("ip", "-o", "link")
    await agent.unplug(THREE.server_id, epoch=2)
    assert host.left() == []


async def test_files_that_cannot_be_removed_harm_no_other_network(agent: NetworkAgent, host: Host) -> None:
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    strange = host.directory / BLUE.id / "strange"
    strange.mkdir()
    with pytest.raises(NetworkFailed, match="cannot be removed"):
        await agent.unplug(ONE.server_id, epoch=2)
    await agent.plug(THREE.server_id, [RED], [THREE], epoch=1)
    strange.rmdir()
    await agent.unplug(ONE.server_id, epoch=2)
    await agent.unplug(THREE.server_id, epoch=2)
    assert host.left() == []


async def test_what_was_to_be_removed_is_not_made_again_by_the_next_agent(host: Host, tmp_path: Path) -> None:
    first = host.agent()
    await first.start()
    await first.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    strange = host.directory / BLUE.id / "strange"
    strange.mkdir()
    with pytest.raises(NetworkFailed):
        await first.unplug(ONE.server_id, epoch=2)
    await first.close()
    strange.rmdir()
    second = host.agent()
    await second.driver.start()
    assert second.driver.carried().ports == ()
    await second.driver.reconcile(HostNetworks())
    assert host.left() == []
    await second.close()


async def test_a_network_in_the_hosts_own_addresses_is_refused_and_keeps_no_other_waiting(
    host: Host, tmp_path: Path
) -> None:
    host.options = NetworkAgentOptions(reserved_blocks=("10.91.9.0/24",))
    sh("ip", "link", "add", "name", "uplink0", "type", "veth", "peer", "name", "uplink1")
    sh("ip", "address", "add", "10.91.7.200/30", "dev", "uplink0")
    sh("ip", "link", "set", "uplink0", "up")
    agent = host.agent()
    green = a_network_plan("green", "10.91.9.0/24")
    host.conductor.wanted = HostNetworks(networks=(BLUE, RED), ports=(ONE, THREE))
    await agent.start()
    assert BLUE.bridge not in sh("ip", "-o", "link")
    with guest_of(THREE, tmp_path) as guest:
        assert guest.lease()["ip"] == "10.91.8.30"
    for plan, port, why in (
        (BLUE, ONE, "10.91.7.200"),
        (green, a_port_plan(green), "reserved"),
        (loop := a_network_plan("loop", "127.5.0.0/24"), a_port_plan(loop), "127.0.0.1"),
    ):
        with pytest.raises(NetworkFailed, match=f"overlaps the host's .*{why}"):
            await agent.plug(port.server_id, [plan], [port], epoch=1)
        await agent.unplug(port.server_id, epoch=1)
    sh("ip", "link", "delete", "uplink0")
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=2)
    # Nor is it taken away from guests by what comes later.
    sh("ip", "link", "add", "name", "uplink0", "type", "veth", "peer", "name", "uplink1")
    sh("ip", "address", "add", "10.91.7.200/30", "dev", "uplink0")
    assert await agent.repair() == []
    sh("ip", "link", "delete", "uplink0")
    await agent.close()


async def test_two_projects_may_have_the_same_addresses(
    agent: NetworkAgent, metadata: Metadata, tmp_path: Path
) -> None:
    sh("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    again = a_network_plan("again", "10.91.7.0/24")
    other = a_port_plan(again, "other", 10)
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    await agent.plug(other.server_id, [again], [other], epoch=1)
    for port in (ONE, other):
        metadata.asked.clear()
        with guest_of(port, tmp_path) as guest:
            assert guest.lease()["ip"] == "10.91.7.10"
            assert (await off(guest.get, "http://169.254.169.254/latest/")) == "told\n200"
        assert [headers["x-instance-id"] for _, headers in metadata.asked] == [port.server_id]


async def test_flat_without_dhcp_has_rules_and_metadata_alone(host: Host, metadata: Metadata) -> None:
    host.options = NetworkAgentOptions(network_driver="flat")
    agent = host.agent()
    assert type(agent.driver) is Flat
    await agent.start()
    await agent.plug(ONE.server_id, [BLUE], [ONE], epoch=1)
    assert not any("dnsmasq" in one for one in host.left())
    assert "10.91.7.10" in sh("nft", "list", "table", "bridge", MARK)
    await agent.unplug(ONE.server_id, epoch=1)
    await agent.close()
