"""The address server of one network on this host: a dnsmasq of its own, which outlives this process.

It knows only the ports that are plugged here: each gets its own address, and nobody else any.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from kilonova.model.network_plans import NetworkPlan, PortPlan
from kilonova.network.commands import run

LEASE = "24h"


class AddressServer:
    """dnsmasq for one network, in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def ensure(self, plan: NetworkPlan, ports: Sequence[PortPlan]) -> None:
        """After it the server runs and knows `ports`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        hosts = "".join(_host_line(port) for port in ports)
        changed = _write(self._directory / "hosts", hosts)
        restart = _write(self._directory / "dnsmasq.conf", self._config(plan))
        pid = self.pid()
        if pid is not None and restart:
            await self._end(pid)
            pid = None
        if pid is None:
            await run("dnsmasq", f"--conf-file={self._directory / 'dnsmasq.conf'}")
        elif changed:
            os.kill(pid, signal.SIGHUP)

    async def remove(self) -> None:
        """The server is gone, with all its files."""
        pid = self.pid()
        if pid is not None:
            await self._end(pid)
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                path.unlink()
            self._directory.rmdir()

    def pid(self) -> int | None:
        """The running server's process, also one that a former life of this agent started."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._directory / "pid").read_text())
            if str(self._directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    async def _end(self, pid: int) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            for _ in range(100):
                if self.pid() is None:
                    return
                await asyncio.sleep(0.01)

    def _config(self, plan: NetworkPlan) -> str:
        lines = [
            "port=0",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
            "except-interface=lo",
            f"interface={plan.bridge}",
            f"pid-file={self._directory / 'pid'}",
            f"dhcp-leasefile={self._directory / 'leases'}",
            f"dhcp-hostsfile={self._directory / 'hosts'}",
            "dhcp-authoritative",
            "dhcp-ignore=tag:!known",
            "user=root",
            f"dhcp-option=26,{plan.mtu}",
        ]
        for number, subnet in enumerate(plan.subnets):
            if not subnet.enable_dhcp:
                continue
            cidr, tag = IPv4Network(subnet.cidr), f"s{number}"
            lines.append(f"dhcp-range=set:{tag},{cidr.network_address},static,{cidr.netmask},{LEASE}")
            lines.append(f"dhcp-option=tag:{tag},3" + (f",{subnet.gateway}" if subnet.gateway else ""))
            if subnet.dns:
                lines.append(f"dhcp-option=tag:{tag},6,{','.join(subnet.dns)}")
            routes = [f"{destination},{hop}" for destination, hop in subnet.host_routes]
            if subnet.host_address:
                routes.append(f"169.254.169.254/32,{subnet.host_address}")
            if routes:
                # A client that gets classless routes ignores the router option (RFC 3442).
                default = [f"0.0.0.0/0,{subnet.gateway}"] if subnet.gateway else []
                lines.append(f"dhcp-option=tag:{tag},121,{','.join(default + routes)}")
        return "\n".join(lines) + "\n"


def _host_line(port: PortPlan) -> str:
    first = next((ip.address for ip in port.nic.fixed_ips), None)
    return f"{port.nic.mac},{first},{port.hostname}\n" if first else ""


def _write(path: Path, text: str) -> bool:
    """Write a file, whole or not at all; whether it changed."""
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.replace(path)
    return True
