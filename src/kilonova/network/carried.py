"""What a host carries: networks with at least one port, and their ports; on disk, too.

One file a network, in the network's own directory, so that an agent that was killed knows what it had made
before anybody tells it.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from kilonova.model.errors import NetworkFailed
from kilonova.model.network_plans import GroupMembers, HostNetworks, NetworkPlan, PortPlan
from kilonova.network.driver import Report


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    version: str = "1.0"
    network: NetworkPlan
    ports: tuple[PortPlan, ...]
    members: tuple[GroupMembers, ...] = ()


class Carried:
    """The table of one host. Plain memory; `save` and `load` know the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.networks: dict[str, NetworkPlan] = {}
        self.ports: dict[str, PortPlan] = {}
        self.members: dict[str, tuple[GroupMembers, ...]] = {}
        """Who is in the groups that ports' rules name, by network; as the conductor said last."""

    def replace(self, networks: Iterable[NetworkPlan], ports: Iterable[PortPlan]) -> set[str]:
        """Carry these ports, and those of `networks` that they are on; the networks that are different now."""
        before = {network_id: (plan, self.ports_of(network_id)) for network_id, plan in self.networks.items()}
        self.ports = {port.nic.port_id: port for port in ports}
        used = {port.nic.network_id for port in self.ports.values()}
        self.networks = {plan.id: plan for plan in networks if plan.id in used}
        after = {network_id: (plan, self.ports_of(network_id)) for network_id, plan in self.networks.items()}
        return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}

    def ports_of(self, network_id: str) -> list[PortPlan]:
        """The ports on one network."""
        return [port for port in self.ports.values() if port.nic.network_id == network_id]

    def of_server(self, server_id: str) -> list[PortPlan]:
        """The ports of one server."""
        return [port for port in self.ports.values() if port.server_id == server_id]

    def sender(self, network_id: str, address: str) -> PortPlan | None:
        """Whose address on a network this is."""
        for port in self.ports_of(network_id):
            if any(fixed.address == address for fixed in port.nic.fixed_ips):
                return port
        return None

    def snapshot(self) -> HostNetworks:
        """All of it, as a plain value."""
        return HostNetworks(
            networks=tuple(self.networks.values()),
            ports=tuple(self.ports.values()),
            members=tuple(group for groups in self.members.values() for group in groups),
        )

    def learn(self, members: Iterable[GroupMembers]) -> None:
        """Take over who is in which group, on the networks that are carried."""
        found: dict[str, list[GroupMembers]] = {}
        for group in members:
            found.setdefault(group.network_id, []).append(group)
        self.members = {network_id: tuple(groups) for network_id, groups in found.items()}

    def compare(self, wanted: HostNetworks, *, leave: Collection[str] = ()) -> tuple[HostNetworks, Report]:
        """What to carry from now on, so that it is `wanted` but for the servers in `leave`; and how that differs."""
        have = self.ports
        ports = {port.nic.port_id: port for port in wanted.ports if port.server_id not in leave}
        ports |= {port_id: port for port_id, port in have.items() if port.server_id in leave}
        networks = {**self.networks, **{network.id: network for network in wanted.networks}}
        report = Report(
            missing=tuple(sorted(ports.keys() - have.keys())),
            changed=tuple(sorted(port_id for port_id in ports.keys() & have.keys() if ports[port_id] != have[port_id])),
            stray=tuple(sorted(have.keys() - ports.keys())),
        )
        return HostNetworks(networks=tuple(networks.values()), ports=tuple(ports.values())), report

    # ---- on disk ------------------------------------------------------------------------------------------

    def directory_of(self, network_id: str) -> Path:
        """Where a network's files are."""
        return self._directory / network_id

    def save(self, network_id: str) -> None:
        """Write one network down, whole or not at all."""
        record = _Record(
            network=self.networks[network_id],
            ports=tuple(self.ports_of(network_id)),
            members=self.members.get(network_id, ()),
        )
        directory = self.directory_of(network_id)
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / "plan.json.new"
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(directory / "plan.json")

    def strike_out(self, network_id: str) -> None:
        """What is written down of a network does not hold any more; its other files are still there."""
        with contextlib.suppress(OSError):
            (self.directory_of(network_id) / "plan.json").unlink()

    def forget(self, network_id: str) -> None:
        """Remove a network's directory, with whatever is in it.

        Raises:
            NetworkFailed: it cannot be removed.
        """
        directory = self.directory_of(network_id)
        try:
            for path in directory.iterdir():
                path.unlink(missing_ok=True)
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise NetworkFailed(f"{directory} cannot be removed: {error.strerror}.") from None

    def load(self) -> None:
        """Take up what was written down. What cannot be read is left to `directories` and a comparison."""
        networks: list[NetworkPlan] = []
        ports: list[PortPlan] = []
        members: list[GroupMembers] = []
        for directory in self.directories():
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                record = msgspec.json.decode((directory / "plan.json").read_bytes(), type=_Record)
                networks.append(record.network)
                ports.extend(record.ports)
                members.extend(record.members)
        self.replace(networks, ports)
        self.learn(members)

    def directories(self) -> Iterator[Path]:
        """The directories of networks that there are, carried or not."""
        if self._directory.is_dir():
            yield from sorted(path for path in self._directory.iterdir() if path.is_dir())
