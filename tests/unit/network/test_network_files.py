"""What is written for nft and dnsmasq: pure texts. What they do is shown by the tests of real parts."""

from pathlib import Path

import msgspec
from tests.support.network_plans import a_network_plan, a_port_plan

from kilonova.model.network_plans import GroupMembers, NetworkPlan, PortPlan, RulePlan
from kilonova.network.carried import Carried
from kilonova.network.dnsmasq import DhcpOptions, configuration, hosts_file
from kilonova.network.nftables import Ruleset
from kilonova.network.wants import Wants

BLUE, RED = a_network_plan("blue"), a_network_plan("red", "10.91.8.0/24")
ONE = a_port_plan(BLUE, "one", 10)
WANTS = Wants(table="kilonova_t", proxies={BLUE.id: ("10.91.7.1", 9697)})


def ruleset(wants: Wants, networks: list[NetworkPlan], ports: list[PortPlan], *members: GroupMembers) -> str:
    return Ruleset(wants, networks, ports, members).text


def test_without_networks_there_are_no_tables() -> None:
    assert ruleset(WANTS, [], []) == ""


def test_rules_of_groups_that_nobody_is_in_let_nothing_through() -> None:
    port = msgspec.structs.replace(ONE, rules=(RulePlan(direction="ingress", remote_group="g-1"),))
    assert "@m_" not in ruleset(WANTS, [BLUE], [port])
    of_red = GroupMembers(network_id=RED.id, group_id="g-1", addresses=("10.91.8.5",))
    assert "@m_" not in ruleset(WANTS, [BLUE], [port], of_red)
    of_blue = GroupMembers(network_id=BLUE.id, group_id="g-1", addresses=("10.91.7.5", "10.91.7.4/31"))
    rules = ruleset(WANTS, [BLUE], [port], of_blue)
    assert f"ip saddr @m_{BLUE.id.replace('-', '')[:11]}_g1 goto {ONE.nic.tap}_in_by_rule" in rules
    assert "elements = { 10.91.7.4/31 }" in rules


def test_a_protocol_that_is_none_never_stands_in_a_rule() -> None:
    odd = RulePlan(direction="ingress", protocol="tcp accept; #")
    rules = ruleset(WANTS, [BLUE], [msgspec.structs.replace(ONE, rules=(odd,))])
    assert "#" not in rules


def test_senders_that_overlap_are_one_set() -> None:
    nic = msgspec.structs.replace(ONE.nic, allowed_address_pairs=("10.91.7.0/28", "10.91.7.10", "10.91.7.10"))
    rules = ruleset(WANTS, [BLUE], [msgspec.structs.replace(ONE, nic=nic)])
    assert f"ether saddr {ONE.nic.mac} ip saddr {{ 10.91.7.0/28 }} accept" in rules


def test_a_network_whose_gateway_is_not_this_host_has_no_way_out() -> None:
    closed = a_network_plan("closed", gateway=None)
    wants = Wants(table="kilonova_t", masquerade=True)
    rules = ruleset(wants, [closed], [])
    assert " masquerade" not in rules
    assert f'iifname "{closed.bridge}" drop' in rules
    assert " masquerade" in ruleset(wants, [BLUE], [])
    assert " masquerade" not in ruleset(WANTS, [BLUE], [])


def test_a_mac_that_is_none_never_stands_in_a_rule() -> None:
    rules = ruleset(
        WANTS, [BLUE], [msgspec.structs.replace(ONE, allowed_macs=(("10.91.7.5", "fa:16:3e:00:00:01 accept; #"),))]
    )
    assert "10.91.7.5" not in rules
    assert "#" not in rules


def test_host_names_are_made_fit_for_dnsmasq() -> None:
    def label(name: str) -> str:
        return hosts_file(BLUE, [msgspec.structs.replace(ONE, hostname=name)]).strip().rpartition(",")[2]

    assert label("Web_1.example.org") == "web-1"
    assert label("ünïcode, 10.0.0.1\ndhcp-script=/bin/sh") == "n-code-10"
    assert label("...") == "host"
    assert len(label("x" * 200)) == 63


def test_an_address_of_a_subnet_without_dhcp_is_not_served() -> None:
    silent = a_network_plan("blue", enable_dhcp=False)
    assert hosts_file(silent, [ONE]) == ""


def test_name_servers_of_the_subnet_win_over_our_own(tmp_path: Path) -> None:
    def names(**subnet: object) -> str:
        text = configuration(tmp_path, a_network_plan(**subnet), DhcpOptions(serve_dns=serve))  # type: ignore[arg-type]
        [line] = [line for line in text.splitlines() if "option:dns-server" in line]
        return line.removeprefix("dhcp-option=tag:s0,option:dns-server")

    serve = True
    assert names() == ",10.91.7.1"
    assert names(dns=("9.9.9.9", "1.1.1.1")) == ",9.9.9.9,1.1.1.1"
    serve = False
    assert names() == ""


def test_records_outlive_the_process(tmp_path: Path) -> None:
    first = Carried(tmp_path)
    assert first.replace([BLUE, RED], [ONE]) == {BLUE.id}
    first.save(BLUE.id)
    second = Carried(tmp_path)
    second.load()
    assert second.snapshot() == first.snapshot()
    second.forget(BLUE.id)
    second.forget(BLUE.id)
    assert not any(tmp_path.iterdir())


def test_a_record_that_cannot_be_read_is_as_if_there_were_none(tmp_path: Path) -> None:
    (tmp_path / BLUE.id).mkdir()
    (tmp_path / BLUE.id / "plan.json").write_text('{"network": 5}')
    carried = Carried(tmp_path)
    carried.load()
    assert carried.networks == {}
    assert [path.name for path in carried.directories()] == [BLUE.id]
