"""Rules of this host: no guest speaks in another's name, and 169.254.169.254 leads to the metadata proxy.

One table in the bridge family, one in the ip family, named after the cloud's state directory, so that two clouds can
live on one machine. They are always written whole, in one transaction. IPv6 does not pass: no subnet has any.
"""

from collections.abc import Mapping, Sequence

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.bridge import mac_of
from kilonova.network.commands import run

METADATA = "169.254.169.254"


def _anti_spoofing(table: str, ports: Sequence[PortPlan], segment: Sequence[str]) -> list[str]:
    lines = [
        f"table bridge {table} {{",
        *segment,
        "  chain from_guests {",
        "    type filter hook prerouting priority -200; policy accept;",
    ]
    for port in ports:
        nic = port.nic
        lines.append(f'    iifname "{nic.tap}" jump {nic.tap}')
    lines.append("  }")
    for port in ports:
        nic = port.nic
        own = ", ".join([*(ip.address for ip in nic.fixed_ips), *nic.allowed_address_pairs])
        lines.append(f"  chain {nic.tap} {{")
        lines.append("    ether type ip6 drop")
        if nic.port_security:
            lines.append(f"    ether saddr != {nic.mac} drop")
            lines.append("    udp sport 67 udp dport 68 drop")
            lines.append("    ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept")
            if own:
                lines.append(f"    arp saddr ether != {nic.mac} drop")
                lines.append(f"    arp saddr ip != {{ 0.0.0.0, {own} }} drop")
                lines.append(f"    ip saddr != {{ {own} }} drop")
            lines.append("    ether type != { ip, arp } drop")
        lines.append("  }")
    return [*lines, "}"]


def _segment(networks: Sequence[NetworkPlan], cards: Mapping[str, str]) -> list[str]:
    """What stays on each host: the host's own address and MAC, which are the same on all, and address servers."""
    incoming: list[str] = []
    outgoing: list[str] = []
    for network in networks:
        card = cards.get(network.id)
        if card is None:
            continue
        own = ", ".join(subnet.host_address for subnet in network.subnets if subnet.host_address)
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


def _metadata(table: str, networks: Sequence[NetworkPlan], proxies: Mapping[str, tuple[str, int]]) -> list[str]:
    lines = [
        f"table ip {table} {{",
        "  chain to_metadata {",
        "    type nat hook prerouting priority dstnat; policy accept;",
    ]
    for network in networks:
        if network.id in proxies:
            address, port = proxies[network.id]
            lines.append(f'    iifname "{network.bridge}" ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}')
    return [*lines, "  }", "}"]


def _gone(table: str) -> list[str]:
    # Naming a table makes it, so that deleting it never fails.
    return [f"table {family} {table}" for family in ("bridge", "ip")] + [
        f"delete table {family} {table}" for family in ("bridge", "ip")
    ]


async def apply(
    table: str,
    networks: Sequence[NetworkPlan],
    ports: Sequence[PortPlan],
    proxies: Mapping[str, tuple[str, int]],
    cards: Mapping[str, str],
) -> None:
    """Put these rules in the place of those before, at once.

    Args:
        proxies: network id to address and port.
        cards: network id to the card by which other hosts are reached.
    """
    lines = _gone(table)
    if ports:
        lines += _anti_spoofing(table, ports, _segment(networks, cards)) + _metadata(table, networks, proxies)
    await run("nft", "-f", "-", stdin="\n".join(lines) + "\n")
