"""The bridge family: what may enter a bridge, by which port.

Rules are found by the name of the tap, so they stand before the tap exists. A guest may send frames from its own
card's address alone; ARP and IPv4 from its fixed addresses and allowed pairs (with the pair's card address, if it has
one), and DHCP requests from 0.0.0.0. A port without any address has the DHCP request alone. Nobody answers DHCP. All
else is dropped: IPv6, too, because no subnet has any and link-local addresses would pass between tenants, and so are
VLAN tags.

A link that we did not put on the bridge is cut off: nothing passes between it and a port that we know, and the host
takes nothing from it (frames of known ports carry a mark to the host's own stack; see `host_rules`). So a mistake of
ours cuts a guest off and never sets it free.

Guests of different projects on one shared flat network see each other, as on any Ethernet.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, collapse_addresses

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.bridges import mac_of
from kilonova.network.wants import KNOWN_MARK, Wants, host_addresses, quoted

ANYBODY = IPv4Network("0.0.0.0/32")
"""Sender of ARP probes."""

EVERYBODY = IPv4Network("0.0.0.0/0")


def bridge_table(wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> list[str]:
    """``table bridge``."""
    lines = [f"table bridge {wants.table} {{"]
    for port in ports:
        lines += [f"  chain {port.nic.tap} {{", *(f"    {rule}" for rule in _from_port(port)), "  }"]
    lines += ["  chain from_guests {", "    type filter hook prerouting priority -200; policy accept;"]
    if ports:
        verdicts = ", ".join(f'"{port.nic.tap}" : goto {port.nic.tap}' for port in ports)
        lines.append(f"    iifname vmap {{ {verdicts} }}")
    lines.append("  }")
    lines += _strangers(networks, [port.nic.tap for port in ports] + list(wants.cards.values()))
    return [*lines, *_segment(wants, networks), "}"]


def _from_port(port: PortPlan) -> list[str]:
    nic = port.nic
    if not port.admin_up:
        return ["drop"]
    if not nic.port_security:
        return ["accept"]
    rules = ["udp sport 67 drop", f"ether saddr {nic.mac} ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept"]
    for mac, blocks in _senders(port).items():
        if not blocks:
            continue
        sends = f"ether saddr {mac} arp saddr ether {mac}"
        if EVERYBODY in blocks:
            rules += [f"{sends} accept", f"ether saddr {mac} ether type ip accept"]
        else:
            rules += [f"{sends} arp saddr ip {_set([*blocks, ANYBODY])} accept"]
            rules += [f"ether saddr {mac} ip saddr {_set(blocks)} accept"]
    return [*rules, "drop"]


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def _senders(port: PortPlan) -> dict[str, list[IPv4Network]]:
    """Card's address to the blocks that may be spoken for from it."""
    nic = port.nic
    found = {nic.mac: [IPv4Network(fixed.address) for fixed in nic.fixed_ips]}
    found[nic.mac] += [IPv4Network(block, strict=False) for block in nic.allowed_address_pairs]
    for block, mac in nic.allowed_macs:
        # Only what is one: a text that comes from a user stands in a rule.
        if _MAC.fullmatch(mac):
            found.setdefault(mac, []).append(IPv4Network(block, strict=False))
    return found


def _set(blocks: Iterable[IPv4Network]) -> str:
    # Collapsed, because nft refuses a set whose elements overlap.
    return f"{{ {', '.join(str(block) for block in collapse_addresses(blocks))} }}"


def _strangers(networks: Sequence[NetworkPlan], known: Sequence[str]) -> list[str]:
    """What becomes of links on our bridges that nobody told us of."""
    bridges = [mac_of(network) for network in networks]
    lines = [
        "  chain between_ports {",
        "    type filter hook forward priority -200; policy accept;",
        *([f"    iifname {quoted(known)} oifname {quoted(known)} accept"] if known else []),
        *([f"    iifname {quoted(known)} drop", f"    oifname {quoted(known)} drop"] if known else []),
        "  }",
        "  chain to_host {",
        "    type filter hook input priority -200; policy accept;",
    ]
    if known:
        lines.append(f"    iifname {quoted(known)} meta mark set meta mark or {KNOWN_MARK} accept")
    return [*lines, f"    ether daddr {{ {', '.join(bridges)} }} drop", "  }"]


def _segment(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    """What stays on each host: the host's own address and MAC, which are the same on all, and address servers."""
    incoming: list[str] = []
    outgoing: list[str] = []
    for network in networks:
        card = wants.cards.get(network.id)
        if card is None:
            continue
        own = ", ".join(host_addresses(network))
        for lines, direction in ((incoming, "iifname"), (outgoing, "oifname")):
            at = f'    {direction} "{card}"'
            lines.append(f"{at} ether saddr {mac_of(network)} drop")
            lines.append(f"{at} ether daddr {mac_of(network)} drop")
            lines.append(f"{at} udp dport {{ 67, 68 }} drop")
            if own:
                lines += [f"{at} {what} {{ {own} }} drop" for what in ("arp saddr ip", "arp daddr ip", "ip saddr")]
    if not incoming:
        return []
    return [
        "  chain from_segment {",
        "    type filter hook prerouting priority -190; policy accept;",
        *incoming,
        "  }",
        "  chain to_segment {",
        "    type filter hook postrouting priority 0; policy accept;",
        *outgoing,
        "  }",
    ]
