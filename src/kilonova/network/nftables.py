"""Rules of this host: no guest speaks in another's name, and 169.254.169.254 leads to the metadata proxy.

One table in the bridge family, one in the ip family, named after the cloud's state directory, so that two clouds can
live on one machine. They are always written whole, in one transaction. IPv6 does not pass: no subnet has any.
"""

from collections.abc import Mapping, Sequence

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.commands import run

METADATA = "169.254.169.254"


def _anti_spoofing(table: str, ports: Sequence[PortPlan]) -> list[str]:
    lines = [
        f"table bridge {table} {{",
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
) -> None:
    """Put these rules in the place of those before, at once. `proxies`: network id to address and port."""
    lines = _gone(table)
    if ports:
        lines += _anti_spoofing(table, ports) + _metadata(table, networks, proxies)
    await run("nft", "-f", "-", stdin="\n".join(lines) + "\n")
