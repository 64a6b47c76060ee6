"""A network's bridge on this host, with the host's own address on it."""

from ipaddress import IPv4Network

from kilonova.model.network_plans import NetworkPlan
from kilonova.network.commands import run


async def ensure(plan: NetworkPlan) -> None:
    """After it the bridge is up, forwards at once, and has the host's address of each subnet."""
    name = plan.bridge
    if not await exists(name):
        await run("ip", "link", "add", name, "type", "bridge", "forward_delay", "0", "stp_state", "0")
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
