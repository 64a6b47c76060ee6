"""Rules of this host: no guest speaks in another's name, guests reach of the host only what they need, and
169.254.169.254 leads to the metadata proxy.

Four tables, named after the cloud on this host, so that two clouds can live on one machine: one in the bridge family
(`kilonova.network.port_rules`), one each in the ip, arp and ip6 families (`kilonova.network.host_rules`). They
are written whole, in one transaction, so that there is never a moment with half of them; what ports remember of their
connections (`kilonova.network.group_rules`) stays.

What is wanted and what stands is compared by nft's own listing, read right after the writing: whatever anybody
changes in our tables shows, and nothing is written while it does not. Only what is in the ports' memories is not looked
at.
"""

import re
from collections.abc import Sequence

from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import GroupMembers, NetworkPlan, PortPlan
from kilonova.network import group_rules
from kilonova.network.commands import attempt, run
from kilonova.network.host_rules import arp_table, ip6_table, ip_table
from kilonova.network.port_rules import bridge_table
from kilonova.network.wants import Wants

FAMILIES = ("bridge", "ip", "arp", "ip6")


class Ruleset:
    """The rules for some networks and ports; without networks there are no tables."""

    def __init__(
        self,
        wants: Wants,
        networks: Sequence[NetworkPlan],
        ports: Sequence[PortPlan],
        members: Sequence[GroupMembers] = (),
    ) -> None:
        lines: list[str] = []
        if networks:
            lines += bridge_table(wants, networks, ports, members)
            lines += ip_table(wants, networks) + arp_table(wants, networks) + ip6_table(wants, networks)
        self.text = "".join(f"{line}\n" for line in lines)
        self.kept = group_rules.kept_sets(ports)
        """Sets that stay as they are."""


async def apply(table: str, rules: Ruleset) -> None:
    """Put a ruleset in the place of the one before, at once.

    Raises:
        NetworkFailed
    """
    # Naming a table makes it, so that deleting it never fails.
    gone = [line for family in FAMILIES for line in (f"table {family} {table}", f"delete table {family} {table}")]
    status, shown, _ = await attempt("nft", "--terse", "list", "table", "bridge", table)
    if rules.kept and status == 0:
        # A table that is deleted forgets all connections.
        emptied = [f"flush table bridge {table}"]
        emptied += [f"delete chain bridge {table} {name}" for name in re.findall(r"^\tchain (\S+) {", shown, re.M)]
        there = re.findall(r"^\tset (\S+) {", shown, re.M)
        emptied += [f"delete set bridge {table} {name}" for name in there if name not in rules.kept]
        try:
            await run("nft", "-f", "-", stdin="\n".join([*emptied, *gone[2:], rules.text]))
        except NetworkFailed:
            # Of another version, or of another's making: all of it anew.
            pass
        else:
            return
    await run("nft", "-f", "-", stdin="\n".join([*gone, rules.text]))


async def standing(table: str) -> str:
    """Our tables as the kernel has them now; nothing of those that are not there. Only to be compared."""
    found = [await attempt("nft", "--stateless", "--terse", "list", "table", family, table) for family in FAMILIES]
    shown = [out for status, out, _ in found if status == 0]
    groups = re.findall(r"^\tset (m_\S+) {", shown[0], re.M) if shown and found[0][0] == 0 else []
    if groups:
        listing = "\n".join(f"list set bridge {table} {name}" for name in groups)
        shown.append((await attempt("nft", "--stateless", "-f", "-", stdin=f"{listing}\n"))[1])
    return "\n".join(shown)
