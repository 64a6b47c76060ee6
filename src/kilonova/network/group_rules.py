"""What security groups let through, in the bridge family.

Groups are stateful: what answers something that was let through passes, too. Kernels without connection tracking for
bridges (CONFIG_NF_CONNTRACK_BRIDGE) are common, and sending bridged frames through the ip family instead is a switch of
the whole host, so each port remembers for itself: what is let through one way by a rule leaves the turned-round
addresses and ports, for a while, in a set of what may pass the other way. The sets outlive a change of rules.

Later fragments of a packet pass: without the first one, which has the ports, they are nothing. So do ICMP errors, which
open no way. ARP, DHCP from the host, and metadata pass whatever the groups say.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, collapse_addresses

from kilonova.model.network_plans import GroupMembers, PortPlan, RulePlan
from kilonova.network.wants import METADATA

_FLOW = "ip saddr . ip daddr . ip protocol . th sport . th dport"
_FLOW_BACK = "ip daddr . ip saddr . ip protocol . th dport . th sport"
_TALK = "ip saddr . ip daddr . ip protocol"
_TALK_BACK = "ip daddr . ip saddr . ip protocol"

_TIMES = (
    ("tcp flags & (fin | syn | rst) != 0", "1m"),
    ("meta l4proto tcp", "2h"),
    ("meta l4proto udp", "3m"),
)
"""How long an answer is waited for: a connection that begins or ends, one that stands, and one of UDP."""

_ELEMENTS = 65536
"""Connections that a port may have open; what comes above that passes by a rule alone."""

_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"
_LATER_FRAGMENT = "ip frag-off & 0x1fff != 0 accept"


def is_filtered(port: PortPlan) -> bool:
    """Whether groups have a say about a port."""
    return port.rules is not None and port.nic.port_security and port.admin_up


def out_of(port: PortPlan) -> str:
    """The verdict on an IPv4 packet that a port sends in its own name."""
    return f"goto {port.nic.tap}_out" if is_filtered(port) else "accept"


def kept_sets(ports: Sequence[PortPlan]) -> set[str]:
    """Names of the sets in which ports remember."""
    return {f"{port.nic.tap}_{which}" for port in ports if is_filtered(port) for which in _MEMORY}


def member_sets(members: Sequence[GroupMembers]) -> list[str]:
    """A set for each group on each network."""
    lines: list[str] = []
    for group in members:
        blocks = collapse_addresses(IPv4Network(address, strict=False) for address in group.addresses)
        elements = ", ".join(str(block) for block in blocks)
        lines += [
            f"  set {_set_of(group)} {{",
            "    type ipv4_addr; flags interval;",
            *([f"    elements = {{ {elements} }}"] if elements else []),
            "  }",
        ]
    return lines


def chains(port: PortPlan, members: Sequence[GroupMembers], hosts: Sequence[str]) -> list[str]:
    """Sets and chains of one port."""
    if not is_filtered(port):
        return []
    tap, lines = port.nic.tap, []
    known = {group.group_id: _set_of(group) for group in members if group.network_id == port.nic.network_id}
    for which, kind in _MEMORY.items():
        lines += [
            f"  set {tap}_{which} {{",
            f"    type {kind}; size {_ELEMENTS}; flags dynamic,timeout; timeout 1m;",
            "  }",
        ]
    for way, opens in (("in", "out"), ("out", "in")):
        lines += [f"  chain {tap}_{way}_by_rule {{", *(f"    {rule}" for rule in _remember(tap, opens)), "  }"]
    first = {
        "out": [f"ip daddr {METADATA} tcp dport 80 goto {tap}_out_by_rule"],
        "in": [
            "ether type arp accept",
            "ether type != ip drop",
            *([f"ip saddr {{ {', '.join(hosts)} }} udp sport 67 udp dport 68 accept"] if hosts else []),
        ],
    }
    for way, direction in (("in", "ingress"), ("out", "egress")):
        rules = [
            *first[way],
            _LATER_FRAGMENT,
            *_answers(tap, way),
            _ERRORS,
            *(
                f"{match}goto {tap}_{way}_by_rule"
                for rule in port.rules or ()
                if rule.direction == direction
                for match in _matches(rule, known)
            ),
            "drop",
        ]
        lines += [f"  chain {tap}_{way} {{", *(f"    {rule}" for rule in rules), "  }"]
    return lines


def to_ports(ports: Sequence[PortPlan]) -> list[str]:
    """The chain that all that goes to a port passes, from another port or from the host."""
    verdicts = ", ".join(f'"{port.nic.tap}" : goto {port.nic.tap}_in' for port in ports if is_filtered(port))
    return [
        "  chain to_guests {",
        "    type filter hook postrouting priority -200; policy accept;",
        *([f"    oifname vmap {{ {verdicts} }}"] if verdicts else []),
        "  }",
    ]


_MEMORY: Mapping[str, str] = {
    "flows_in": "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service",
    "flows_out": "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service",
    "talks_in": "ipv4_addr . ipv4_addr . inet_proto",
    "talks_out": "ipv4_addr . ipv4_addr . inet_proto",
}


def _remember(tap: str, way: str) -> list[str]:
    """What was let through has answers, which go `way`."""
    return [
        *(f"{what} update @{tap}_flows_{way} {{ {_FLOW_BACK} timeout {time} }} accept" for what, time in _TIMES),
        f"update @{tap}_talks_{way} {{ {_TALK_BACK} timeout 1m }} accept",
        # A set that is full.
        "accept",
    ]


def _answers(tap: str, way: str) -> list[str]:
    """What goes `way` as an answer; it is waited for anew."""
    return [
        *(
            f"{what} {_FLOW} @{tap}_flows_{way} update @{tap}_flows_{way} {{ {_FLOW} timeout {time} }} accept"
            for what, time in _TIMES
        ),
        f"meta l4proto != {{ tcp, udp }} {_TALK} @{tap}_talks_{way} accept",
    ]


def _matches(rule: RulePlan, known: Mapping[str, str]) -> list[str]:
    """The rule's conditions, as one text that ends in a space, or none if it can meet nothing."""
    end = "saddr" if rule.direction == "ingress" else "daddr"
    words: list[str] = []
    if rule.remote_group:
        if rule.remote_group not in known:
            return []
        words.append(f"ip {end} @{known[rule.remote_group]}")
    elif rule.remote:
        words.append(f"ip {end} {IPv4Network(rule.remote, strict=False)}")
    if rule.protocol == "icmp":
        words.append("ip protocol icmp")
        if rule.port_min is not None:
            words.append(f"icmp type {int(rule.port_min)}")
        if rule.port_max is not None:
            words.append(f"icmp code {int(rule.port_max)}")
    elif rule.protocol in ("tcp", "udp"):
        words.append(f"meta l4proto {rule.protocol}")
        if rule.port_min is not None and rule.port_max is not None:
            words.append(f"{rule.protocol} dport {int(rule.port_min)}-{int(rule.port_max)}")
    elif rule.protocol.isascii() and rule.protocol.isdigit():
        words.append(f"ip protocol {int(rule.protocol)}")
    elif rule.protocol:
        return []  # of IPv6, or of a later version: nothing that passes here
    return [" ".join([*words, ""])]


def _set_of(group: GroupMembers) -> str:
    return f"m_{group.network_id.replace('-', '')[:11]}_{group.group_id.replace('-', '')}"
