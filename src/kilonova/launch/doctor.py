"""What `kilonova doctor` looks at: the configuration, and what a process with it would need on this machine.

Each check says what it found and, where that is not well, what to do. None of them changes anything.
"""

import asyncio
import importlib
import inspect
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from kilonova.base.clock import SystemClock
from kilonova.base.config import Config, ConfigError
from kilonova.base.config_names import Known
from kilonova.base.ids import SystemIds
from kilonova.launch.addresses import Address
from kilonova.launch.agents import choose_virt
from kilonova.launch.options import ApiOptions, ComputeServiceOptions, DatabaseOptions, DeploymentOptions, UpOptions
from kilonova.launch.services import AGENTS, CONTROL, ROLES, services_of
from kilonova.launch.state import StateDir
from kilonova.launch.transports import make_transport
from kilonova.model.errors import CloudError, Unavailable
from kilonova.network.options import NetworkAgentOptions
from kilonova.virt.libvirt import kvm_probe
from kilonova.virt.libvirt.daemons import qemu_user

Level = Literal["ok", "warn", "fail"]

SKEW_S: Final = 2.0
"""Seconds by which the clocks of this machine and of the database may differ."""

FREE_MIB: Final = 1024
"""Free space below which images and disks will not fit for long, in MiB."""

PROGRAMS: Final = (*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin")
"""Where programs are looked for; agents are started by root, whose path has the last two."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    level: Level
    text: str
    remedy: str = ""


Findings = Iterator[Finding]


def ok(what: str, text: str) -> Finding:
    """All is well."""
    return Finding(what, "ok", text)


def known_options(found: Sequence[tuple[str, str, str]]) -> dict[str, set[str]]:
    """Section to the names of its options. `found`: (section, option, module) of every option there is."""
    known: dict[str, set[str]] = {}
    for section, option, _ in found:
        known.setdefault(section, set()).add(option)
    return known


def check_names(config: Config, known: Known) -> Findings:
    """Options that nobody reads, each with the nearest one that somebody does."""
    try:
        wrong = config.unknown(known)
    except ConfigError as error:
        yield Finding("options", "fail", str(error), "Correct the file, or give another --config-file.")
        return
    for name in wrong:
        yield Finding("options", "fail", str(name), name.advice)
    if not wrong:
        yield ok("options", "all names are known")


def check_values(config: Config, modules: Sequence[str]) -> Findings:
    """Values that do not fit their type."""
    wrong = 0
    for name in dict.fromkeys(modules):
        for _, cls in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if cls.__module__ == name and isinstance(getattr(cls, "section", None), str):
                try:
                    config.get(cast(Any, cls))
                except ConfigError as error:
                    wrong += 1
                    yield Finding("values", "fail", str(error), "See docs/configuration.md for what it takes.")
    if not wrong:
        yield ok("values", "all options have values that fit")


async def check_broker(config: Config) -> Finding:
    """Whether the queue lets us in."""
    url = config.get(DeploymentOptions).transport_url
    try:
        transport = make_transport(url, config, SystemClock(), SystemIds())
        async with asyncio.timeout(15):
            await transport.open()
            await transport.close()
    except ConfigError as error:
        return Finding("broker", "fail", str(error), "Set transport_url.")
    except (CloudError, TimeoutError) as error:
        text = error.message if isinstance(error, CloudError) else "no answer within 15 s"
        return Finding("broker", "fail", text, "Start the broker; check address, user and password in transport_url.")
    return ok("broker", f"{url.partition('://')[0]}: connected")


def check_database(config: Config) -> Findings:
    """Whether it can be reached, has the right tables, and agrees about the time."""
    from kilonova.store import health  # an agent's machine need not have what it needs

    url = config.get(DatabaseOptions).connection
    if not url:
        yield Finding("database", "warn", "not set: SQLite below state_path", "Fine for one machine, not for several.")
        return
    try:
        found = health.look(url)
    except Unavailable as error:
        advice = "Start it; check address, user and password in [database] connection."
        yield Finding("database", "fail", error.message, advice)
        return
    if found.revision != found.newest:
        text = f"{found.kind}: at revision {found.revision or '(empty)'}, newest is {found.newest}"
        yield Finding("database", "fail", text, "Run: kilonova db upgrade --config-file FILE")
    else:
        yield ok("database", f"{found.kind}: revision {found.revision}")
    yield check_clock(found.skew_s)


def check_clock(skew_s: float) -> Finding:
    """Whether this machine and the database agree about the time: leases and heartbeats live on it."""
    apart = f"{skew_s:.2f} s"
    if skew_s > SKEW_S:
        return Finding("clock", "fail", f"{apart} away from the database's", "Run a time service on both machines.")
    return ok("clock", f"within {apart} of the database's")


def check_hypervisor(config: Config, programs: Sequence[str] = PROGRAMS) -> Findings:
    """What guests would run on."""
    virt = choose_virt(config.get(ComputeServiceOptions).virt)
    if virt == "fake":
        yield Finding(
            "hypervisor", "warn", "simulated hosts", "Install qemu-system-x86 and libvirt-daemon for real ones."
        )
        return
    lacking = [name for name in ("qemu-system-x86_64", "libvirtd", "virtlogd", "qemu-img") if _lacks(name, programs)]
    if lacking:
        yield Finding("hypervisor", "fail", f"not installed: {', '.join(lacking)}", "python3 scripts/packages.py run")
        return
    yield ok("hypervisor", "QEMU and libvirt are there")
    user, reason = qemu_user(Path(config.get(DeploymentOptions).state_path))
    if reason:
        yield Finding("qemu user", "warn", f"guests would run as {user}", f"Let QEMU's own user in: {reason}.")
    else:
        yield ok("qemu user", f"guests run as {user}")
    usable, why = kvm_probe.usable()
    if usable:
        yield ok("kvm", why)
    else:
        yield Finding(
            "kvm", "warn", f"{why} Guests will be emulated, slowly.", "Enable virtualization in the firmware."
        )


def check_network(config: Config, programs: Sequence[str] = PROGRAMS) -> Findings:
    """What guests' networks are made with."""
    if choose_virt(config.get(ComputeServiceOptions).virt) == "fake":
        return
    lacking = [name for name in ("ip", "nft", "dnsmasq") if _lacks(name, programs)]
    if lacking:
        yield Finding("network", "fail", f"not installed: {', '.join(lacking)}", "python3 scripts/packages.py run")
    elif os.geteuid() != 0:
        yield Finding("network", "fail", "not root: bridges and rules cannot be made", "Run the agents as root.")
    else:
        yield ok("network", "ip, nft and dnsmasq are there, and we are root")
    card = config.get(NetworkAgentOptions).flat_interface
    if card and not Path("/sys/class/net", card).exists() and card not in {name for _, name in socket.if_nameindex()}:
        yield Finding("network", "fail", f"there is no card '{card}'", "Correct [network] flat_interface; see: ip link")


def _lacks(program: str, programs: Sequence[str]) -> bool:
    return shutil.which(program, path=os.pathsep.join(programs)) is None


def _seen(path: Path) -> bool:
    """Whether it exists, as far as we may look."""
    try:
        return path.exists()
    except PermissionError:
        return False


def check_place(config: Config, least_mib: int = FREE_MIB) -> Findings:
    """The state directory: ours, with room."""
    path = Path(config.get(DeploymentOptions).state_path)
    there = next(parent for parent in (path, *path.absolute().parents) if _seen(parent))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        yield Finding("state", "fail", f"{path} cannot be written", f"Make it: install -d -o $USER {path}")
        return
    free = shutil.disk_usage(there).free // 1024**2
    if free < least_mib:
        yield Finding("state", "warn", f"{path}: {free} MiB free", "Images and disks will not fit for long.")
    else:
        yield ok("state", f"{path}: {free // 1024} GiB free")
    for name, mode in (("secrets", 0o700), ("kilonova.sqlite", 0o600), ("clouds.yaml", 0o600), ("openrc", 0o600)):
        private = path / name
        if _seen(private) and private.stat().st_mode & 0o077:
            yield Finding("state", "fail", f"{private} can be read by others", f"chmod {mode:o} {private}")


def check_port(config: Config) -> Finding:
    """Whether the API's address is free."""
    text = config.get(ApiOptions).listen
    try:
        address = Address.parse(text)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except ValueError as error:
        return Finding("api", "fail", str(error), "Correct [api] listen.")
    except OSError as error:
        return Finding("api", "warn", f"{text}: {error.strerror}", "Fine if that is the API, already running.")
    return ok("api", f"{text} is free")


async def check_invariants(config: Config) -> list[Finding]:
    """Whether what the cloud has written down agrees, with itself and with what its hypervisors run."""
    from kilonova.launch.audit import audit  # an agent's machine need not have what it needs

    try:
        found = await audit(config)
    except Unavailable as error:
        return [Finding("invariants", "fail", error.message, "Give the configuration of the cloud, or its --state.")]
    findings = [
        Finding(
            "invariants",
            "warn",
            f"{host}: {cause}",
            "What its hypervisor runs is not known: look again once it answers.",
        )
        for host, cause in sorted(found.unseen.items())
    ]
    findings += [
        Finding(
            "invariants", "fail", str(violation), "Nothing mends it by itself: a defect. Keep the logs, and tell of it."
        )
        for violation in found.violations
    ]
    if not found.violations:
        findings.append(ok("invariants", f"{found.servers} servers agree, with guests on {found.hosts} hosts"))
    return findings


def check_secret(config: Config) -> Finding:
    """Whether this machine's agents can prove to the API who asks for metadata."""
    path = Path(config.get(DeploymentOptions).state_path) / "secrets" / "metadata"
    if _seen(path):
        return ok("secret", f"{path} is there")
    advice = "Copy secrets/metadata from the control machine's state_path, mode 600."
    return Finding("secret", "fail", f"{path} is not there: guests would get no metadata", advice)


async def examine(
    files: Sequence[Path],
    options: Sequence[tuple[str, str, str]],
    services: Sequence[str],
    *,
    directories: Sequence[Path] = (),
    state: Path | None = None,
    invariants: bool = False,
) -> list[Finding]:
    """All that matters to `services` (none: those of the configured roles) with these files.

    Args:
        options: (section, option, module) of every option there is.
        directories: of configuration files, that win over `files`.
        state: look at the cloud of ``kilonova up`` in this directory: all services, SQLite, no broker.
        invariants: instead of the machine, look at what the live cloud has written down.
    """
    try:
        config = Config(files, directories=directories)
        if state is not None:
            config = Config(files, _one_process(state, config), directories=directories)
    except ConfigError as error:
        return [Finding("options", "fail", str(error), "Correct the file, or give another --config-file.")]
    if invariants:
        return await check_invariants(config)
    findings = list(check_names(config, known_options(options)))
    try:
        wanted = tuple(services) or services_of(config.get(DeploymentOptions).roles)
    except ConfigError as error:
        return [*findings, Finding("options", "fail", str(error), "Correct the file.")]
    findings += check_values(config, [module for _, _, module in options])
    if any(finding.level == "fail" for finding in findings if finding.what == "values"):
        return findings
    findings.append(await check_broker(config))
    findings += check_place(config)
    if set(wanted) & set(CONTROL):
        findings += await asyncio.to_thread(lambda: list(check_database(config)))
    if "api" in wanted:
        findings.append(check_port(config))
    if set(wanted) & set(AGENTS):
        findings += [*check_hypervisor(config), *check_network(config)]
        if not set(wanted) & set(CONTROL):
            findings.append(check_secret(config))
    return findings


def _one_process(state: Path, config: Config) -> dict[str, dict[str, Any]]:
    """What `kilonova up` takes for granted, as options of a cloud of several processes."""
    place, database, up = StateDir(state.resolve()), {}, config.get(UpOptions)
    if (place.root / "kilonova.sqlite").exists():
        database = {"connection": place.database_url}
    return {
        "DEFAULT": {"state_path": str(place.root), "transport_url": "memory://", "roles": tuple(ROLES)},
        "database": database,
        "api": {"listen": up.listen},
        "compute": {"virt": up.virt},
    }
