"""One host of the table, under the names that writers of filters know."""

from typing import Any

from kilonova.model.host import AggregateState, HostState
from kilonova.scheduler.table import HostTable


class HostView:
    """Row `row` of a table, read when asked. Memory and disk in MiB where the name ends in ``_mb``."""

    __slots__ = ("_row", "_table")

    def __init__(self, table: HostTable, row: int) -> None:
        self._table = table
        self._row = row

    @property
    def state(self) -> HostState:
        """The host as the feed has it."""
        state = self._table.states[self._row]
        assert state is not None
        return state

    @property
    def host(self) -> str:
        return self._table.names[self._row]

    nodename = hypervisor_hostname = host

    @property
    def uuid(self) -> str:
        return self.state.uuid

    @property
    def host_ip(self) -> str:
        return self.state.host_ip

    @property
    def is_up(self) -> bool:
        return bool(self._table.is_up[self._row])

    @property
    def is_enabled(self) -> bool:
        return bool(self._table.is_enabled[self._row])

    @property
    def vcpus_total(self) -> int:
        return self.state.vcpus

    @property
    def vcpus_used(self) -> int:
        return int(self._table.vcpus_used[self._row])

    @property
    def cpu_allocation_ratio(self) -> float:
        return self.state.vcpus_ratio

    @property
    def free_vcpus(self) -> int:
        """By allocation ratio, like the other ``free`` amounts of the table."""
        return int(self._table.free_vcpus[self._row])

    @property
    def total_usable_ram_mb(self) -> int:
        return self.state.memory_mib

    @property
    def free_ram_mb(self) -> int:
        return int(self._table.free_memory_mib[self._row])

    @property
    def ram_allocation_ratio(self) -> float:
        return self.state.memory_ratio

    @property
    def total_usable_disk_gb(self) -> int:
        return self.state.disk_gib

    @property
    def free_disk_mb(self) -> int:
        return int(self._table.free_disk_gib[self._row]) * 1024

    @property
    def disk_mb_used(self) -> int:
        return int(self._table.disk_used_gib[self._row]) * 1024

    @property
    def disk_allocation_ratio(self) -> float:
        return self.state.disk_ratio

    @property
    def num_instances(self) -> int:
        return int(self._table.num_instances[self._row])

    @property
    def num_io_ops(self) -> int:
        return int(self._table.io_ops[self._row])

    @property
    def failed_builds(self) -> int:
        return int(self._table.failed_builds[self._row])

    @property
    def hypervisor_type(self) -> str:
        return self.state.hypervisor_type

    @property
    def hypervisor_version(self) -> int:
        return self.state.hypervisor_version

    @property
    def supported_instances(self) -> tuple[tuple[str, str, str], ...]:
        return self.state.supported_instances

    @property
    def capabilities(self) -> dict[str, Any]:
        return self.state.capabilities

    @property
    def cpu_info(self) -> dict[str, Any]:
        return self.state.cpu_info

    @property
    def traits(self) -> tuple[str, ...]:
        return self.state.traits

    @property
    def aggregates(self) -> tuple[AggregateState, ...]:
        """The aggregates that the host is in, by id."""
        return self._table.aggregates.combinations.values[int(self._table.combination[self._row])]
