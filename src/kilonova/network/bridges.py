"""Networks' bridges on this host, with the host's own addresses on them.

A bridge carries its owner's mark as an alias, so that a stray one is known as ours even if every file is lost. Its
card's address is set, not inherited: a bridge without one takes the lowest of its ports', and guests would lose their
gateway whenever a port comes or goes.
"""

import contextlib
import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from kilonova.base.log import get_logger
from kilonova.model.errors import NetworkFailed
from kilonova.model.network import mac_from
from kilonova.model.network_plans import NetworkPlan
from kilonova.network.commands import attempt, run

log = get_logger(__name__)


async def ensure(plan: NetworkPlan, mark: str) -> bool:
    """After it the bridge is up, forwards at once, and has the host's address of each subnet and no other.

    Returns:
        Whether anything had to be done.
    """
    state = await _show(plan.bridge)
    todo: list[str] = []
    name = plan.bridge
    if state is None:
        mac = mac_from(f"{mark}/{plan.id}")
        todo.append(f"link add name {name} address {mac} mtu {plan.mtu} type bridge forward_delay 0 stp_state 0")
    elif state.get("mtu") != plan.mtu:
        todo.append(f"link set dev {name} mtu {plan.mtu}")
    if state is None or state.get("ifalias") != mark:
        todo.append(f"link set dev {name} alias {mark}")
    have = await _addresses(name) if state is not None else []
    wanted = host_addresses(plan)
    todo += [f"address del {address} dev {name}" for address in have if address not in wanted]
    todo += [f"address add {address} dev {name}" for address in wanted if address not in have]
    if state is None or "UP" not in state.get("flags", ()):
        todo.append(f"link set dev {name} up")
    if todo:
        await run("ip", "-batch", "-", stdin="\n".join(todo) + "\n")
    if state is None:
        _quiet(name)
    return bool(todo)


async def remove(name: str) -> None:
    """The bridge is gone. Not there is not an error."""
    if await _show(name) is not None:
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


async def _show(name: str) -> dict[str, Any] | None:
    status, out, _ = await attempt("ip", "-json", "link", "show", "dev", name)
    shown: list[dict[str, Any]] = json.loads(out or "[]") if status == 0 else []
    return shown[0] if shown else None


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
    """The host speaks no IPv6 here: guests have none, and a link-local address would be a way in."""
    with contextlib.suppress(OSError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
