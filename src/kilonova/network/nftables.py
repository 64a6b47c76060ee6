"""Rules of this host: no guest speaks in another's name, guests reach of the host only what they need, and
169.254.169.254 leads to the metadata proxy.

Two tables, named after the cloud on this host, so that two clouds can live on one machine: one in the bridge family
against spoofing, one in the ip family. They are written whole, in one transaction, so that there is never a moment
with half of them.

Against spoofing (bridge family, where frames enter a bridge from a port): rules are found by the name of the tap, so
they stand before the tap exists. A guest may send frames from its own card's address alone; ARP and IPv4 from its
fixed addresses and allowed pairs, and DHCP requests from 0.0.0.0. It may not answer DHCP. All else is dropped: IPv6,
too, because no subnet has any and link-local addresses would pass between tenants, and so are VLAN tags. Where the
kernel can tell the bridge of a frame, one from a port that no rule knows is dropped, so that a mistake of ours cuts
a guest off and never sets it free.

Guests of different projects on one shared flat network see each other, as on any Ethernet; guests of different
networks do not: the host does not route between its bridges.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.commands import attempt, run

METADATA = "169.254.169.254"

ANYBODY = IPv4Network("0.0.0.0/32")
"""Sender of ARP probes and of DHCP requests by who has no address yet."""


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What the rules shall say besides what is carried."""

    table: str
    masquerade: bool = True
    host_ports: tuple[str, ...] = ()
    """TCP ports of this host that guests may reach; ``*``: all of the host."""
    proxies: Mapping[str, tuple[str, int]]
    """Network id to address and port of its metadata proxy."""
    drop_unknown: bool = False
    """Whether the kernel can tell a frame's bridge (`knows_bridges`), so that frames from unknown ports are dropped."""


async def apply(wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
    """Put the rules for these in the place of those before, at once; without networks there are no tables.

    Raises:
        NetworkFailed
    """
    await run("nft", "-f", "-", stdin=ruleset(wants, networks, ports))


async def missing(table: str) -> bool:
    """Whether somebody has removed one of our tables."""
    shown = await run("nft", "list", "tables")
    return not {f"table bridge {table}", f"table ip {table}"} <= {line.strip() for line in shown.splitlines()}


async def knows_bridges() -> bool:
    """Whether this kernel can tell by rule which bridge a frame has entered (CONFIG_NFT_BRIDGE_META)."""
    probe = 'table bridge kilonova_probe {\n  chain probe {\n    meta ibrname "kb" drop\n  }\n}\n'
    status, _, _ = await attempt("nft", "--check", "-f", "-", stdin=probe)
    return status == 0


def ruleset(wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> str:
    """The whole transaction."""
    lines: list[str] = []
    for family in ("bridge", "ip"):
        # Naming a table makes it, so that deleting it never fails.
        lines += [f"table {family} {wants.table}", f"delete table {family} {wants.table}"]
    if networks:
        lines += _against_spoofing(wants, networks, ports)
        lines += _host_side(wants, networks)
    return "\n".join(lines) + "\n"


# ---- against spoofing ----------------------------------------------------------------------------------------


def _against_spoofing(wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> list[str]:
    lines = [f"table bridge {wants.table} {{"]
    for port in ports:
        lines += [f"  chain {port.nic.tap} {{", *(f"    {rule}" for rule in _port_rules(port)), "  }"]
    lines += ["  chain from_guests {", "    type filter hook prerouting priority -250; policy accept;"]
    if ports:
        verdicts = ", ".join(f'"{port.nic.tap}" : goto {port.nic.tap}' for port in ports)
        lines.append(f"    iifname vmap {{ {verdicts} }}")
    if wants.drop_unknown:
        lines.append(f"    meta ibrname {_names(networks)} drop")
    return [*lines, "  }", "}"]


def _port_rules(port: PortPlan) -> list[str]:
    nic = port.nic
    if not port.admin_up:
        return ["drop"]
    if not nic.port_security:
        return ["accept"]
    rules = ["udp sport 67 drop", f"ether saddr {nic.mac} ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept"]
    for mac, blocks in _senders(port).items():
        rules.append(f"ether saddr {mac} arp saddr ether {mac} arp saddr ip {_set([*blocks, ANYBODY])} accept")
        if blocks:
            rules.append(f"ether saddr {mac} ip saddr {_set(blocks)} accept")
    return [*rules, "drop"]


def _senders(port: PortPlan) -> dict[str, list[IPv4Network]]:
    """Card's address to the blocks that may be spoken for from it."""
    nic = port.nic
    found = {nic.mac: [IPv4Network(fixed.address) for fixed in nic.fixed_ips]}
    for pair in nic.allowed_address_pairs:
        block, _, mac = pair.partition(",")
        found.setdefault(mac or nic.mac, []).append(IPv4Network(block, strict=False))
    return found


def _set(blocks: Iterable[IPv4Network]) -> str:
    # Collapsed, because nft refuses a set whose elements overlap.
    return f"{{ {', '.join(str(block) for block in collapse_addresses(blocks))} }}"


def _names(networks: Iterable[NetworkPlan]) -> str:
    return "{ " + ", ".join(f'"{network.bridge}"' for network in networks) + " }"


# ---- the host's side of it --------------------------------------------------------------------------------------


def _host_side(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    bridges = _names(networks)
    # With br_netfilter loaded, frames from guest to guest of one network pass the forward hook, too.
    among_themselves = [f'    iifname "{network.bridge}" oifname "{network.bridge}" accept' for network in networks]
    return [
        f"table ip {wants.table} {{",
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        *(f"    {rule}" for network in networks for rule in _to_metadata(network, wants.proxies.get(network.id))),
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        *(f"    {rule}" for network in networks if wants.masquerade for rule in _in_host_name(network)),
        "  }",
        "  chain to_host {",
        *(f"    {rule}" for rule in _to_host(wants, networks)),
        "  }",
        "  chain out_of_guests {",
        *among_themselves,
        f"    oifname {bridges} drop",
        *(f'    iifname "{network.bridge}" drop' for network in networks if not _routed(network)),
        "  }",
        "  chain into_guests {",
        *among_themselves,
        *(["    ct state established,related accept", "    drop"] if wants.masquerade else []),
        "  }",
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        f"    iifname {bridges} jump to_host",
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f"    iifname {bridges} jump out_of_guests",
        f"    oifname {bridges} jump into_guests",
        "  }",
        "}",
    ]


def _routed(network: NetworkPlan) -> list[str]:
    """The blocks from which there is a way out: those whose gateway is this host."""
    return [subnet.cidr for subnet in network.subnets if subnet.gateway and subnet.gateway == subnet.host_address]


def _to_metadata(network: NetworkPlan, proxy: tuple[str, int] | None) -> list[str]:
    if proxy is None:
        return []
    address, port = proxy
    return [f'iifname "{network.bridge}" ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}']


def _in_host_name(network: NetworkPlan) -> list[str]:
    return [
        f'ip saddr {cidr} ip daddr != {{ {cidr}, 224.0.0.0/4 }} oifname != "{network.bridge}" masquerade'
        for cidr in _routed(network)
    ]


def _to_host(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    rules = ["ct state established,related accept", "udp sport 68 udp dport 67 accept"]
    addresses = {network.id: [s.host_address for s in network.subnets if s.host_address] for network in networks}
    is_open = "*" in wants.host_ports
    for network in networks:
        own = addresses[network.id]
        others = [address for network_id, more in addresses.items() if network_id != network.id for address in more]
        if others:
            # The metadata proxy of another network tells other servers' secrets.
            rules.append(f'iifname "{network.bridge}" ip daddr {{ {", ".join(others)} }} drop')
        if not is_open:
            only = f"ip daddr != {{ {', '.join(own)} }} " if own else ""
            rules.append(f'iifname "{network.bridge}" {only}drop')
    if is_open:
        return [*rules, "accept"]
    proxies = {str(port) for _, port in wants.proxies.values()}
    tcp = ", ".join(sorted({"53", *proxies, *wants.host_ports}, key=int))
    return [*rules, "icmp type echo-request accept", "udp dport 53 accept", f"tcp dport {{ {tcp} }} accept", "drop"]
