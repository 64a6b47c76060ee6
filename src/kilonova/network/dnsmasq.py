"""The address server of one network on this host: a dnsmasq of its own, which outlives this process.

It knows only the ports that are plugged here: each gets its own address, and nobody else any. It is found again by
its pid file, checked against the process' own command line. New ports are told to the running server; what it can
only learn at its start (options of subnets), or must forget (leases of ports that are gone, which would
keep an address from its next owner), costs a restart of some 30 ms, which clients do not notice.
"""

import contextlib
import os
import pwd
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from kilonova.base.clock import Clock
from kilonova.model.network_plans import NetworkPlan, PortPlan, SubnetPlan
from kilonova.network.commands import run
from kilonova.network.wants import METADATA

_ENDS_S = 2.0
"""How long a server is asked politely."""


@dataclass(frozen=True, kw_only=True)
class DhcpOptions:
    """What all address servers of a host have in common."""

    lease_s: int = 86400
    domain: str = ""
    serve_dns: bool = True


class AddressServer:
    """dnsmasq for one network, in one directory."""

    def __init__(self, directory: Path, options: DhcpOptions, clock: Clock) -> None:
        self._directory = directory
        self._options = options
        self._clock = clock

    async def ensure(self, plan: NetworkPlan, ports: Sequence[PortPlan]) -> bool:
        """After it the server runs and knows `ports` and no others; whether it had to be started.

        Before: the bridge is there, with the host's address.

        Raises:
            NetworkFailed: it does not start; the message is dnsmasq's own.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        if not any(subnet.enable_dhcp for subnet in plan.subnets):
            await self.stop()
            return False
        known = hosts_file(plan, ports)
        is_new = self._write("dnsmasq.conf", configuration(self._directory, plan, self._options))
        is_told = not self._write("hosts", known)
        pid = self.pid()
        if pid is not None and (is_new or self._stale_leases(known)):
            await self.stop()
            pid = None
        if pid is None:
            self._drop_stale_leases(known)
            await run("dnsmasq", f"--conf-file={self._directory / 'dnsmasq.conf'}")
            return True
        if not is_told:
            os.kill(pid, signal.SIGHUP)
        return False

    async def stop(self) -> None:
        """The server runs no more. Not running is not an error."""
        pid = self.pid()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if pid is None or not _lives(pid):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            end = self._clock.monotonic() + _ENDS_S
            while _lives(pid) and self._clock.monotonic() < end:
                await self._clock.sleep(0.005)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / "pid").unlink()

    def pid(self) -> int | None:
        """The running server's process, also one that a former life of this agent started."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._directory / "pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if f"--conf-file={self._directory / 'dnsmasq.conf'}".encode() in words:
                return pid
        return None

    # ---- leases --------------------------------------------------------------------------------------------

    def _stale_leases(self, known: str) -> list[str]:
        owners = {tuple(line.split(",")[0:3:2]) for line in known.splitlines()}
        return [line for line in self._leases() if tuple(line.split()[1:3]) not in owners]

    def _drop_stale_leases(self, known: str) -> None:
        stale = set(self._stale_leases(known))
        if stale:
            self._write("leases", "".join(f"{line}\n" for line in self._leases() if line not in stale))

    def _leases(self) -> list[str]:
        """Lines of expiry, card's address, address, name, client id."""
        with contextlib.suppress(FileNotFoundError):
            return [line for line in (self._directory / "leases").read_text().splitlines() if len(line.split()) >= 4]
        return []

    def _write(self, name: str, text: str) -> bool:
        """Write a file, whole or not at all; whether it changed."""
        path = self._directory / name
        if path.exists() and path.read_text() == text:
            return False
        draft = path.with_name(f"{name}.new")
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(path)
        return True


def _lives(pid: int) -> bool:
    """Whether a process still holds its sockets. One that is ending does, though its command line is gone already."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


# ---- files, pure ---------------------------------------------------------------------------------------------


def hosts_file(plan: NetworkPlan, ports: Sequence[PortPlan]) -> str:
    """Who gets which address: the first that a port has of a subnet with DHCP."""
    served = {subnet.id for subnet in plan.subnets if subnet.enable_dhcp}
    lines: list[str] = []
    for port in ports:
        address = next((fixed.address for fixed in port.nic.fixed_ips if fixed.subnet_id in served), None)
        if address is not None:
            # id:* : a boot loader and the system after it give different client ids for one card.
            lines.append(f"{port.nic.mac},id:*,{address},{_label(port.hostname)}\n")
    return "".join(sorted(lines))


def _label(hostname: str) -> str:
    """A host name that dnsmasq takes: it refuses its whole line otherwise."""
    first = re.sub(r"[^a-z0-9-]+", "-", hostname.lower().partition(".")[0]).strip("-")[:63].rstrip("-")
    return first or "host"


def configuration(directory: Path, plan: NetworkPlan, options: DhcpOptions) -> str:
    """``dnsmasq.conf`` of one network."""
    lines = [
        f"# network {plan.id}; written by the network agent",
        f"port={53 if options.serve_dns else 0}",
        f"interface={plan.bridge}",
        "except-interface=lo",
        "bind-interfaces",
        f"pid-file={directory / 'pid'}",
        f"dhcp-leasefile={directory / 'leases'}",
        f"dhcp-hostsfile={directory / 'hosts'}",
        f"log-facility={directory / 'dnsmasq.log'}",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        "dhcp-no-override",
        "no-ping",
        "no-hosts",
        f"user={_user(directory)}",
        f"dhcp-option-force=option:mtu,{plan.mtu}",
    ]
    lines += ["domain-needed", "bogus-priv"] if options.serve_dns else ["no-resolv"]
    if options.domain:
        lines.append(f"domain={options.domain}")
    for number, subnet in enumerate(subnet for subnet in plan.subnets if subnet.enable_dhcp):
        lines += _subnet_lines(f"s{number}", subnet, options)
    return "\n".join(lines) + "\n"


def _subnet_lines(tag: str, subnet: SubnetPlan, options: DhcpOptions) -> list[str]:
    cidr = IPv4Network(subnet.cidr)
    lines = [f"dhcp-range=set:{tag},{cidr.network_address},static,{cidr.netmask},{options.lease_s}"]
    # Without a value an option is not sent; not saying it at all would send the server's own address.
    lines.append(f"dhcp-option=tag:{tag},option:router" + (f",{subnet.gateway}" if subnet.gateway else ""))
    names = subnet.dns or ((subnet.host_address,) if options.serve_dns and subnet.host_address else ())
    lines.append(f"dhcp-option=tag:{tag},option:dns-server" + "".join(f",{server}" for server in names))
    routes = [f"{destination},{hop}" for destination, hop in subnet.host_routes]
    if subnet.host_address:
        routes.append(f"{METADATA}/32,{subnet.host_address}")
    if routes:
        # A client that gets classless routes ignores the router (RFC 3442), so it stands among them.
        default = [f"0.0.0.0/0,{subnet.gateway}"] if subnet.gateway else []
        joined = ",".join([*default, *routes])
        # 249 is what older Windows asks for instead.
        lines += [f"dhcp-option=tag:{tag},{number},{joined}" for number in (121, 249)]
    return lines


def _user(directory: Path) -> str:
    """The server's own user, if that can read what it is told to read again; else root."""
    open_to_all = all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))
    users = {entry.pw_name for entry in pwd.getpwall()} if open_to_all else set()
    return next((name for name in ("dnsmasq", "nobody") if name in users), "root")
