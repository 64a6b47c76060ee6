"""Rules of this host: no guest speaks in another's name, guests reach of the host only what they need, and
169.254.169.254 leads to the metadata proxy.

Four tables, named after the cloud on this host, so that two clouds can live on one machine: one in the bridge family
(`kilonova.network.port_rules`), one each in the ip, arp and ip6 families (`kilonova.network.host_rules`). They
are written whole, in one transaction, so that there is never a moment with half of them.

What is wanted and what stands is compared by nft's own listing, read right after the writing: whatever anybody
changes in our tables shows, and nothing is written while it does not.
"""

from collections.abc import Sequence

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.commands import attempt, run
from kilonova.network.host_rules import arp_table, ip6_table, ip_table
from kilonova.network.port_rules import bridge_table
from kilonova.network.wants import Wants

FAMILIES = ("bridge", "ip", "arp", "ip6")


async def apply(rules: str) -> None:
    """Put a `ruleset` in the place of the one before, at once.

    Raises:
        NetworkFailed
    """
    await run("nft", "-f", "-", stdin=rules)


async def standing(table: str) -> str:
    """Our tables as the kernel has them now; nothing of those that are not there. Only to be compared."""
    found = [await attempt("nft", "--stateless", "list", "table", family, table) for family in FAMILIES]
    return "\n".join(out for status, out, _ in found if status == 0)


def ruleset(wants: Wants, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> str:
    """The whole transaction; without networks there are no tables."""
    lines: list[str] = []
    for family in FAMILIES:
        # Naming a table makes it, so that deleting it never fails.
        lines += [f"table {family} {wants.table}", f"delete table {family} {wants.table}"]
    if networks:
        lines += bridge_table(wants, networks, ports)
        lines += ip_table(wants, networks) + arp_table(wants, networks) + ip6_table(wants, networks)
    return "\n".join(lines) + "\n"
