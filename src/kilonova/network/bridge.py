"""A network's bridge on this host, with the host's own address on it, and perhaps a card to the other hosts.

Where hosts share a segment, each has the network's host address on its own bridge, and the same MAC with it: every
guest finds its gateway, its address server and its metadata on its own host. `kilonova.network.nftables` keeps that
address from being seen on the segment.
"""

from ipaddress import IPv4Network

from kilonova.model.network_plans import NetworkPlan
from kilonova.network.commands import run


def mac_of(plan: NetworkPlan) -> str:
    """The bridge's own MAC, the same on every host."""
    tail = plan.id.replace("-", "")[:6]
    return f"fa:16:3f:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


async def ensure(plan: NetworkPlan, *, card: str = "") -> None:
    """After it the bridge is up, forwards at once, and has the host's address of each subnet.

    Args:
        card: a port of the bridge besides the guests' taps; what other hosts are reached by.

    Raises:
        NetworkFailed: the card is not there, or a tool failed.
    """
    name = plan.bridge
    if not await exists(name):
        await run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    if card:
        await run("ip", "link", "set", name, "address", mac_of(plan))
        await run("ip", "link", "set", card, "master", name, "up")
    await run("ip", "link", "set", name, "mtu", str(plan.mtu), "up")
    have = await run("ip", "-o", "-4", "address", "show", "dev", name)
    for subnet in plan.subnets:
        if subnet.host_address is not None:
            address = f"{subnet.host_address}/{IPv4Network(subnet.cidr).prefixlen}"
            if f" {address} " not in have:
                await run("ip", "address", "replace", address, "dev", name)


async def remove(name: str) -> None:
    """The bridge is gone. Not there is not an error."""
    if await exists(name):
        await run("ip", "link", "delete", name)


async def exists(name: str) -> bool:
    """Whether there is such a link."""
    return bool(await run("ip", "-o", "link", "show", name, check=False))
