"""The ip, arp and ip6 families: what guests reach of the host, and of each other through it.

A bridge's guests reach the host at that bridge's own addresses alone, and there DHCP, the metadata proxy, ping, and
the ports that the operator opens. Another network's gateway, its metadata proxy and its guests are out of reach, also
where the host forwards packets: nothing is routed from one guests' bridge to another, this cloud's or another's.
Guests of one network meet on their bridge, and where br_netfilter sends their frames through these rules, too, they
pass.

A tap is nothing to the host but a port of its bridge: what comes by the tap itself, because it is off its bridge or
because of the address that a frame goes to, is dropped.
"""

from collections.abc import Sequence

from kilonova.model.network_plans import NetworkPlan
from kilonova.network.wants import ANY_BRIDGE, ANY_TAP, KNOWN_MARK, METADATA, Wants, host_addresses, quoted


def ip_table(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    """``table ip``."""
    bridges = quoted(network.bridge for network in networks)
    # With br_netfilter loaded, frames from guest to guest of one network pass the forward hook, too.
    among_themselves = [f'    iifname "{network.bridge}" oifname "{network.bridge}" accept' for network in networks]
    lines = [
        f"table ip {wants.table} {{",
        "  chain to_metadata {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        *(f"    {rule}" for network in networks for rule in _to_metadata(network, wants.proxies.get(network.id))),
        "  }",
        "  chain out_of_guests {",
        *among_themselves,
        f"    oifname {ANY_BRIDGE} drop",
        *(f'    iifname "{network.bridge}" drop' for network in networks if not _routed(network)),
        "  }",
        "  chain into_guests {",
        *among_themselves,
        f"    iifname {ANY_BRIDGE} drop",
        *(["    ct state established,related accept", "    drop"] if wants.masquerade else []),
        "  }",
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        f"    iifname {ANY_TAP} drop",
        *_from_known(networks),
        *(f'    iifname "{network.bridge}" jump {network.bridge}' for network in networks),
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f"    iifname {ANY_TAP} drop",
        # What comes here to be routed was for the bridge's own MAC: from strangers nothing was taken.
        f"    iifname {bridges} {_UNMARK}",
        f"    iifname {bridges} jump out_of_guests",
        f"    oifname {bridges} jump into_guests",
        "  }",
    ]
    for network in networks:
        lines += [f"  chain {network.bridge} {{", *(f"    {rule}" for rule in _to_host(wants, network)), "  }"]
    if wants.masquerade:
        lines += [
            "  chain in_hosts_name {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            *(f"    {rule}" for network in networks for rule in _in_hosts_name(network)),
            "  }",
        ]
    return [*lines, "}"]


def arp_table(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    """``table arp``: the host learns nobody's address from a link that we did not put on a bridge, and tells guests
    no address but the one that it has for them."""
    return [
        f"table arp {wants.table} {{",
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        f"    iifname {ANY_TAP} drop",
        *_from_known(networks),
        *(
            f'    iifname "{network.bridge}" arp operation request arp daddr ip != {{ {", ".join(own)} }} drop'
            for network in networks
            if (own := host_addresses(network))
        ),
        "  }",
        "}",
    ]


def ip6_table(wants: Wants, networks: Sequence[NetworkPlan]) -> list[str]:
    """``table ip6``: the host has none of it with guests."""
    lines = [f"table ip6 {wants.table} {{"]
    for hook in ("input", "forward"):
        lines += [
            f"  chain {hook} {{",
            f"    type filter hook {hook} priority filter; policy accept;",
            f"    iifname {ANY_TAP} drop",
            f"    iifname {quoted(network.bridge for network in networks)} drop",
            "  }",
        ]
    return [*lines, "}"]


_UNMARK = f"meta mark set meta mark & {0xFFFFFFFF ^ int(KNOWN_MARK, 16):#x}"


def _from_known(networks: Sequence[NetworkPlan]) -> list[str]:
    at = f"    iifname {quoted(network.bridge for network in networks)}"
    return [f"{at} meta mark & {KNOWN_MARK} != {KNOWN_MARK} drop", f"{at} {_UNMARK}"]


def _routed(network: NetworkPlan) -> list[str]:
    """The blocks from which there is a way out: those whose gateway is this host."""
    return [subnet.cidr for subnet in network.subnets if subnet.gateway and subnet.gateway == subnet.host_address]


def _to_metadata(network: NetworkPlan, proxy: tuple[str, int] | None) -> list[str]:
    if proxy is None:
        return []
    address, port = proxy
    return [f'iifname "{network.bridge}" ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}']


def _in_hosts_name(network: NetworkPlan) -> list[str]:
    return [
        f'ip saddr {cidr} ip daddr != {{ {cidr}, 224.0.0.0/4 }} oifname != "{network.bridge}" masquerade'
        for cidr in _routed(network)
    ]


def _to_host(wants: Wants, network: NetworkPlan) -> list[str]:
    """From one bridge to the host."""
    own = host_addresses(network)
    rules = ["ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"]
    if not own:
        return [*rules, "drop"]
    rules.append(f"ip daddr != {{ {', '.join(own)} }} drop")
    if "*" in wants.host_ports:
        return [*rules, "accept"]
    proxy = wants.proxies.get(network.id)
    tcp = {*wants.host_ports, *(["53"] if wants.serve_dns else []), *([str(proxy[1])] if proxy else [])}
    return [
        *rules,
        "ct state established,related accept",
        "udp sport 68 udp dport 67 accept",
        "icmp type echo-request accept",
        *(["udp dport 53 accept"] if wants.serve_dns else []),
        *([f"tcp dport {{ {', '.join(sorted(tcp, key=int))} }} accept"] if tcp else []),
        "drop",
    ]
