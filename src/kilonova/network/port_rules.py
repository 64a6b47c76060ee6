"""The bridge family: what may enter a bridge, by which port.

Rules are found by the name of the tap, so they stand before the tap exists. A guest may send frames from its own
card's address alone; ARP and IPv4 from its fixed addresses and allowed pairs (with the pair's card address, if it has
one), and DHCP requests in its own card's name. A port without any address has the DHCP request alone. Nobody answers
DHCP. All else is dropped: IPv6, too, because no subnet has any and link-local addresses would pass between tenants,
and so are VLAN tags. Metadata is told to fixed addresses alone, whatever else a port may speak for: the address says
whose it is.

A link that we did not put on the bridge is cut off: nothing passes between it and a port that we know, and the host
takes nothing from it (frames of known ports carry a mark to the host's own stack; see `host_rules`). So a mistake of
ours cuts a guest off and never sets it free.

Guests of different projects on one shared flat network see each other, as on any Ethernet.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, collapse_addresses

from kilonova.model.network_plans import GroupMembers, NetworkPlan, PortPlan
from kilonova.network import group_rules
from kilonova.network.bridges import mac_of
from kilonova.network.wants import ANY_TAP, KNOWN_MARK, METADATA, Wants, host_addresses, quoted

ANYBODY = IPv4Network("0.0.0.0/32")
"""Sender of ARP probes."""

EVERYBODY = IPv4Network("0.0.0.0/0")


def bridge_table(
    wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], members: Sequence[GroupMembers] = ()
) -> list[str]:
    """``table bridge``."""
    lines = [f"table bridge {wants.table} {{", *group_rules.member_sets(members)]
    hosts = {network.id: host_addresses(network) for network in networks}
    for port in ports:
        lines += group_rules.chains(port, members, hosts.get(port.nic.network_id, []))
        rules = _from_port(wants, port, hosts.get(port.nic.network_id, []))
        lines += [f"  chain {port.nic.tap} {{", *(f"    {rule}" for rule in rules), "  }"]
    lines += ["  chain from_guests {", "    type filter hook prerouting priority -200; policy accept;"]
    if ports:
        verdicts = ", ".join(f'"{port.nic.tap}" : goto {port.nic.tap}' for port in ports)
        lines.append(f"    iifname vmap {{ {verdicts} }}")
    lines.append("  }")
    lines += _strangers(networks, [port.nic.tap for port in ports] + list(wants.cards.values()))
    lines += group_rules.to_ports(ports)
    return [*lines, *_segment(wants, networks), "}"]


def _from_port(wants: Wants, port: PortPlan, hosts: Sequence[str]) -> list[str]:
    nic = port.nic
    if not port.admin_up:
        return ["drop"]
    own = [IPv4Network(fixed.address) for fixed in nic.fixed_ips]
    rules = _to_metadata(wants.proxies.get(nic.network_id), own)
    if not nic.port_security:
        return [*rules, "accept"]
    # The client's card stands in the request, too (28 bytes behind the UDP header): whoever could put another's there
    # could decline that one's address.
    client = f"@th,288,48 0x{nic.mac.replace(':', '')}"
    rules += [
        "udp sport 67 drop",
        f"ether saddr {nic.mac} ip saddr {_set([*own, ANYBODY])} udp sport 68 udp dport 67 {client} accept",
        "udp dport 67 drop",
    ]
    # Not even where a pair has them: guests' way out, and their metadata, would be this guest.
    rules += [f"{speaks} {{ {', '.join(hosts)} }} drop" for speaks in ("arp saddr ip", "ip saddr") if hosts]
    for mac, blocks in _senders(port).items():
        if not blocks:
            continue
        sends = f"ether saddr {mac} arp saddr ether {mac}"
        if EVERYBODY in blocks:
            rules += [f"{sends} accept", f"ether saddr {mac} ether type ip {group_rules.out_of(port)}"]
        else:
            rules += [f"{sends} arp saddr ip {_set([*blocks, ANYBODY])} accept"]
            rules += [f"ether saddr {mac} ip saddr {_set(blocks)} {group_rules.out_of(port)}"]
    return [*rules, "drop"]


def _to_metadata(proxy: tuple[str, int] | None, own: Sequence[IPv4Network]) -> list[str]:
    if proxy is None:
        return []
    address, port = proxy
    asks = f"ip daddr {{ {METADATA}, {address} }} tcp dport {{ 80, {port} }}"
    return [f"{asks} ip saddr != {_set(own)} drop" if own else f"{asks} drop"]


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def _senders(port: PortPlan) -> dict[str, list[IPv4Network]]:
    """Card's address to the blocks that may be spoken for from it."""
    nic = port.nic
    found = {nic.mac: [IPv4Network(fixed.address) for fixed in nic.fixed_ips]}
    found[nic.mac] += [IPv4Network(block, strict=False) for block in nic.allowed_address_pairs]
    for block, mac in port.allowed_macs:
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
        # Frames to these addresses are not the bridge's: they would go on to the host as if the tap had no bridge.
        f"    iifname {ANY_TAP} ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop",
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
