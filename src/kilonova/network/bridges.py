"""Networks' bridges on this host, with the host's own addresses on them.

A bridge carries its owner's mark as an alias, so that a stray one is known as ours even if every file is lost. Its
own MAC is set, not inherited: a bridge without one takes the lowest of its ports', and guests would lose their
gateway whenever a port comes or goes.

Where hosts share a segment, each has the network's host address on its own bridge, and the same MAC with it: every
guest finds its gateway, its address server and its metadata on its own host. `kilonova.network.port_rules` keeps that
address from being seen on the segment.

A host's address brings a route with it, and a project chooses its subnets itself: a block that this host uses for
anything else is refused, or what the host says to its broker or its database would go to a guest.
"""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

from kilonova.base.log import get_logger
from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import NetworkPlan
from kilonova.network.commands import run

log = get_logger(__name__)


def mac_of(plan: NetworkPlan) -> str:
    """The bridge's own MAC, the same on every host."""
    tail = plan.id.replace("-", "")[:6]
    return f"fa:16:3f:{tail[:2]}:{tail[2:4]}:{tail[4:]}"


class Ensured(NamedTuple):
    """What `ensure` did."""

    is_new: bool
    """It made the bridge. Whoever listens on one that was there before hears nothing from this one."""
    is_changed: bool
    """It did anything at all."""


async def ensure(plan: NetworkPlan, mark: str, *, reserved: Sequence[str] = ()) -> Ensured:
    """After it the bridge is up, forwards at once, and has the host's address of each subnet and no other.

    Args:
        mark: the owner's.
        reserved: blocks that no network's subnet may overlap, besides those that this host uses.

    Raises:
        NetworkFailed: the network's addresses are in use, or a tool failed.
    """
    links = await _links()
    state, name, mac = links.get(plan.bridge), plan.bridge, mac_of(plan)
    todo: list[str] = []
    if state is None:
        await _check_room(plan, links, reserved)
        todo.append(f"link add name {name} address {mac} type bridge forward_delay 0 stp_state 0")
        state = {}
    elif state.get("address") != mac:
        todo.append(f"link set dev {name} address {mac}")
    if state.get("mtu") != plan.mtu:
        # Not said at its making: it would follow its ports' then.
        todo.append(f"link set dev {name} mtu {plan.mtu}")
    if state.get("ifalias") != mark:
        todo.append(f"link set dev {name} alias {mark}")
    have = await _addresses(name) if state else []
    wanted = host_addresses(plan)
    todo += [f"address del {address} dev {name}" for address in have if address not in wanted]
    todo += [f"address add {address} dev {name}" for address in wanted if address not in have]
    if "UP" not in state.get("flags", ()):
        todo.append(f"link set dev {name} up")
    if todo:
        await run("ip", "-batch", "-", stdin="\n".join(todo) + "\n")
    if not state:
        _quiet(name)
    return Ensured(is_new=not state, is_changed=bool(todo))


async def join(plan: NetworkPlan, *, card: str = "", taps: Collection[str] = ()) -> bool:
    """After it the card and those of the guests' taps that exist are ports of the bridge; whether one was not.

    Args:
        card: what other hosts are reached by.
        taps: they lose their bridge when it is deleted.

    Raises:
        NetworkFailed: the card is not there, or a tool failed.
    """
    links, name = await _links(), plan.bridge
    if card and card not in links:
        raise NetworkFailed(f"There is no card '{card}' on this host; correct [network] flat_interface.")
    todo = [f"link set dev {tap} master {name}" for tap in taps if tap in links and links[tap].get("master") != name]
    if card and (links[card].get("master") != name or "UP" not in links[card].get("flags", ())):
        todo.append(f"link set dev {card} master {name} up")
    if todo:
        await run("ip", "-batch", "-", stdin="\n".join(todo) + "\n")
    return bool(todo)


async def _check_room(plan: NetworkPlan, links: Mapping[str, Any], reserved: Sequence[str]) -> None:
    # Two networks may have the same addresses, also where they are two clouds'.
    own = {name for name, link in links.items() if name.startswith("kb") and link.get("ifalias")}
    used = [(f"reserved block {block}", IPv4Network(block)) for block in reserved]
    routes: list[dict[str, Any]] = json.loads(await run("ip", "-json", "-4", "route", "show", "table", "main") or "[]")
    for route in routes:
        if route["dst"] != "default" and route.get("dev") not in own:
            used.append((f"route {route['dst']} by {route.get('dev', 'nothing')}", IPv4Network(route["dst"])))
    shown: list[dict[str, Any]] = json.loads(await run("ip", "-json", "-4", "address", "show") or "[]")
    for link in shown:
        if link.get("ifname") not in own:
            for info in link.get("addr_info", ()):
                address = f"{info['local']}/{info['prefixlen']}"
                used.append((f"address {address} on {link['ifname']}", IPv4Network(address, strict=False)))
    for subnet in plan.subnets:
        for what, block in used:
            if block.overlaps(IPv4Network(subnet.cidr)):
                raise NetworkFailed(
                    f"Network {plan.id} cannot be on this host: its subnet {subnet.cidr} overlaps the host's {what}."
                )


async def remove(name: str) -> None:
    """The bridge is gone. Not there is not an error."""
    if name in await _links():
        await run("ip", "link", "delete", "dev", name, "type", "bridge")


async def marked(mark: str) -> set[str]:
    """The bridges on this machine that carry our mark."""
    shown: list[dict[str, Any]] = json.loads(await run("ip", "-json", "link", "show", "type", "bridge") or "[]")
    return {link["ifname"] for link in shown if link.get("ifalias") == mark}


def host_addresses(plan: NetworkPlan) -> list[str]:
    """The host's own addresses on a network, with their prefix."""
    return [
        f"{subnet.host_address}/{IPv4Network(subnet.cidr).prefixlen}"
        for subnet in plan.subnets
        if subnet.host_address is not None
    ]


async def _links() -> dict[str, dict[str, Any]]:
    """All links of this machine by name."""
    shown: list[dict[str, Any]] = json.loads(await run("ip", "-json", "-details", "link", "show") or "[]")
    return {link["ifname"]: link for link in shown}


async def _addresses(name: str) -> list[str]:
    shown: list[dict[str, Any]] = json.loads(await run("ip", "-json", "-4", "address", "show", "dev", name) or "[]")
    return [f"{info['local']}/{info['prefixlen']}" for link in shown for info in link.get("addr_info", ())]


def allow_forwarding() -> None:
    """The host passes packets on between its links. It stays so: others may have come to rely on it.

    Raises:
        NetworkFailed
    """
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    try:
        if switch.read_text().strip() != "0":
            return
        switch.write_text("1")
    except OSError as error:
        raise NetworkFailed(f"IP forwarding cannot be switched on: {error.strerror}.") from None
    log.info("IP forwarding is switched on, for guests' way out")


def _quiet(name: str) -> None:
    """The host speaks no IPv6 here: guests have none, and a link-local address would be a way in.

    It also takes packets whose answers would go to another bridge: two projects may have the same addresses. Who may
    send from which is for our own rules.
    """
    with contextlib.suppress(OSError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("2")
