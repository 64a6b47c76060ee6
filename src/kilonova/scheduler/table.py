"""All hosts as columns: what the scheduler knows, one NumPy array a property, one row a host.

A filter asks a question of all hosts at once by comparing columns. The table is fed by deltas (`apply`,
`set_aggregates`) in the order of the feed, and never asks for anything itself.

**Its own choices** are deducted at once (`take`), so that two decisions never promise the same room. Such a
deduction is *pending* until the feed's reader says, from the same snapshot as the rows it brings, on which
host the server's claim stands (`settle`): from then on the row's `used` contains it. A choice that never
becomes a claim (the conductor died, all candidates were full) is forgotten after a while (`expire`). Until
then it steers later choices elsewhere; what it may not do alone is to make a request fail, see
`without_doubtful`. The claim's conditional write is the judge in any case.

**What changed** since a version can be asked (`changed_rows`), so that answers about the table can be
brought up to date instead of being found anew.

Rows of hosts that left are used again; `alive` says which rows are hosts now.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kilonova.model import pci
from kilonova.model.host import AggregateState, HostState, NumaCell, PciPool
from kilonova.scheduler.aggregates import AggregateIndex, Combination
from kilonova.scheduler.columns import (
    CLASSES,
    DERIVED,
    LIMITS,
    PLAIN,
    USAGE,
    Group,
    groups_of,
    of_profile,
    of_servers,
    row_values,
    seldom,
)
from kilonova.scheduler.kinds import Kinds, Numbers
from kilonova.scheduler.needs import Needs, Pending, Promises

Mask: TypeAlias = npt.NDArray[np.bool_]
IntColumn: TypeAlias = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.intp]


class Devices(msgspec.Struct, frozen=True):
    """NUMA cells and PCI devices of a host, as they are now."""

    cells: tuple[NumaCell, ...] = ()
    pools: tuple[PciPool, ...] = ()
    cpu_ratio: float = 1.0
    memory_ratio: float = 1.0


_NO_DEVICES = Devices()

_COMPLAINTS = 10_000
"""Different complaints that are kept."""

_RECENT = 64
"""Changes of single rows that are kept as a list."""


class HostTable:
    """Every host, as columns. All columns have the same length; row `i` of each is the same host."""

    alive: Mask
    is_up: Mask
    is_enabled: Mask
    vcpus: IntColumn
    vcpus_reserved: IntColumn
    vcpus_ratio: Column
    vcpus_used: IntColumn
    vcpus_limit: IntColumn
    """(total - reserved) * ratio, whole units: what may be used at most."""
    free_vcpus: IntColumn
    """Limit less what is used and what is promised; negative where a host is over-committed."""
    memory_mib: IntColumn
    memory_reserved_mib: IntColumn
    memory_ratio: Column
    memory_used_mib: IntColumn
    memory_limit_mib: IntColumn
    free_memory_mib: IntColumn
    disk_gib: IntColumn
    disk_reserved_gib: IntColumn
    disk_ratio: Column
    disk_used_gib: IntColumn
    disk_limit_gib: IntColumn
    free_disk_gib: IntColumn
    num_instances: IntColumn
    io_ops: IntColumn
    failed_builds: IntColumn
    hypervisor_version: IntColumn
    host_id: IntColumn
    row_version: IntColumn
    """Version of the table at which the row last changed."""
    profile: Numbers
    """Number of the host's profile: hosts whose hypervisor and abilities are equal share one."""
    combination: Numbers
    """Number of the combination of aggregates that the host is in."""
    devices: Numbers
    """Number of what the host has of NUMA cells and devices, as they are now."""
    servers: Numbers
    """Number of what is known of the servers on the host: their flavors and image properties."""

    def __init__(self, capacity: int = 64) -> None:
        self.size = 0
        """Rows in use or used before: the length of every column."""
        self.seq = 0
        """The newest row of the feed that is in here."""
        self.version = 0
        """Grows with every change of any cell."""
        self.names: list[str] = []
        """Row to host name; empty where no host is."""
        self.states: list[HostState | None] = []
        """Row to the feed's row, as it came."""
        self.row_of: dict[str, int] = {}
        """Host name to row."""
        self.aggregates = AggregateIndex()
        self.complaints: dict[str, bool] = {}
        """Malformed metadata that a rule met, and whether it has been logged."""
        self._arrays: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(capacity, dtype=dtype) for name, dtype in PLAIN + DERIVED
        }
        self._metrics: dict[str, Column] = {}
        self._free_rows: list[int] = []
        self._profiles: Kinds[HostState] = Kinds(
            lambda state: msgspec.msgpack.encode(of_profile(state), order="deterministic")
        )
        self._devices: Kinds[Devices] = Kinds(lambda devices: msgspec.msgpack.encode(devices, order="deterministic"))
        self._devices.number(_NO_DEVICES)
        self._servers: Kinds[HostState] = Kinds(
            lambda state: msgspec.msgpack.encode(of_servers(state), order="deterministic")
        )
        self._promises = Promises()
        self._group_versions = {group.value: 0 for group in Group}
        self._anew_at = 0
        self._recent: list[tuple[int, int]] = []
        self._recent_since = 0
        self._show()

    def __len__(self) -> int:
        """Number of hosts."""
        return len(self.row_of)

    @property
    def nbytes(self) -> int:
        """Memory of the columns."""
        return sum(array.nbytes for array in self._arrays.values())

    # ---- questions that rules ask ------------------------------------------------------------------------

    def everywhere(self, answer: bool) -> Mask:
        """The same answer for every host."""
        return np.full(self.size, answer, dtype=np.bool_)

    def by_profile(
        self, question: Hashable, rule: Callable[[HostState], Any], dtype: npt.DTypeLike = np.bool_
    ) -> npt.NDArray[Any]:
        """`rule`'s answer for each host, asked once a profile; remembered under `question`.

        `rule` may look at a host's architecture, hypervisor, supported instances, capabilities, CPU, traits
        and cell, and at nothing else.
        """
        return self._answered(self._profiles, self.profile, question, rule, dtype)

    def by_aggregates(
        self, question: Hashable, rule: Callable[[Combination], Any], dtype: npt.DTypeLike = np.bool_
    ) -> npt.NDArray[Any]:
        """`rule`'s answer for each host, asked once a combination of aggregates; remembered under `question`."""
        return self._answered(self.aggregates.combinations, self.combination, question, rule, dtype)

    def by_devices(
        self, question: Hashable, rule: Callable[[Devices], Any], dtype: npt.DTypeLike = np.bool_
    ) -> npt.NDArray[Any]:
        """`rule`'s answer for each host, asked once a state of NUMA cells and devices; remembered under `question`."""
        return self._answered(self._devices, self.devices, question, rule, dtype)

    def by_servers(
        self, question: Hashable, rule: Callable[[HostState], Any], dtype: npt.DTypeLike = np.bool_
    ) -> npt.NDArray[Any]:
        """As `by_profile`; `rule` may look at the flavors and image properties of the servers on the host."""
        return self._answered(self._servers, self.servers, question, rule, dtype)

    def _answered(
        self, kinds: Kinds[Any], numbers: Numbers, question: Hashable, rule: Callable[[Any], Any], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        answers = kinds.ask(question, rule, dtype)
        return answers[numbers] if len(answers) else np.zeros(len(numbers), dtype=dtype)

    def aggregate_min(self, key: str, default: float, *, whole: bool = False) -> Column:
        """The smallest value that a host's aggregates have for `key` in their metadata, else `default`.

        Where one of the values is no number (no whole one, if it is to be `whole`), `default` counts for that host,
        and there is a complaint.
        """
        if key not in self.aggregates.keys:
            return np.full(self.size, default)

        def smallest(aggregates: Combination) -> float:
            numbers = []
            for aggregate in aggregates:
                if key in aggregate.metadata:
                    number = as_number(aggregate.metadata[key])
                    if number is None or (whole and number != int(number)):
                        kind = "whole number" if whole else "number"
                        self.complain(
                            f"aggregate '{aggregate.name}': {key} is '{aggregate.metadata[key]}', which is no {kind}; "
                            f"its hosts get the global value"
                        )
                        return np.nan
                    numbers.append(number)
            return min(numbers, default=np.nan)

        column = self.by_aggregates(("smallest", key, whole), smallest, np.float64)
        return np.where(np.isnan(column), default, column)

    def total_of(self, resource_class: str) -> IntColumn:
        """What each host has of a resource class."""
        return self._of_class(resource_class, "total")

    def free_of(self, resource_class: str) -> IntColumn:
        """What each host has free of a resource class, by allocation ratio and less what is promised."""
        return self._of_class(resource_class, "free")

    def _of_class(self, resource_class: str, what: str) -> IntColumn:
        total, _, free = CLASSES.get(resource_class, (f"total:{resource_class}", "", f"free:{resource_class}"))
        array = self._arrays.get(free if what == "free" else total)
        return np.zeros(self.size, dtype=np.int64) if array is None else array[: self.size]

    def metric(self, name: str) -> Column:
        """What monitors measured last under this name; NaN where there is none."""
        array = self._metrics.get(name)
        if array is None:
            # From now on this metric is kept as a column.
            array = self._metrics[name] = np.full(len(self._arrays["alive"]), np.nan)
            for row, state in enumerate(self.states):
                if state is not None and name in state.metrics:
                    array[row] = state.metrics[name]
        return array[: self.size]

    def promised_members(self, group_id: str) -> dict[str, str]:
        """Server to host, of a server group's members that we chose hosts for and that no claim confirms yet."""
        return {server: self.names[row] for server, row in self._promises.of_group(group_id).items()}

    def complain(self, what: str) -> None:
        """Note malformed metadata; it is logged once. Users write some of it, so not all of it is kept."""
        if len(self.complaints) < _COMPLAINTS:
            self.complaints.setdefault(what, False)

    # ---- what changed ----------------------------------------------------------------------------------------

    def changed_rows(self, since: int) -> Rows | None:
        """Rows that changed after version `since`; None if hosts or aggregates changed as a whole."""
        if since < self._anew_at:
            return None
        if since >= self._recent_since:
            # A choice changes one row: no need to look at all.
            recent = {row for version, row in self._recent if version > since}
            return np.array(sorted(recent), dtype=np.intp)
        rows: Rows = np.flatnonzero(self.row_version > since)
        return rows

    def changed_groups(self, since: int) -> int:
        """`Group`s of which a column changed after version `since`, in any row."""
        groups = 0
        for group, version in self._group_versions.items():
            if version > since:
                groups |= group
        return groups

    # ---- the feed ----------------------------------------------------------------------------------------

    def apply(self, states: Sequence[HostState]) -> None:
        """Take in rows of the feed. A row that is not newer than the one at hand changes nothing."""
        fresh: dict[int, HostState] = {}
        groups = 0
        for state in states:
            row = self.row_of.get(state.name)
            before = None if row is None else self.states[row]
            if before is not None and before.seq >= state.seq:
                continue
            self.seq = max(self.seq, state.seq)
            if state.deleted:
                if row is not None:
                    fresh.pop(row, None)
                    self._forget(state.name, row)
                continue
            if row is None or before is None:
                row = self._new_row(state)
                self._anew_at = self.version + 1
            else:
                groups |= self._note_change(row, before, state)
            self.states[row] = state
            fresh[row] = state
        if fresh:
            rows = list(fresh)
            self._write(rows, list(fresh.values()))
            self._touch(rows, groups)

    def _note_change(self, row: int, before: HostState, state: HostState) -> int:
        """Groups in which two rows of one host differ; its kinds are brought up to date."""
        if seldom(before) == seldom(state):
            return USAGE
        groups = USAGE
        for group, of in groups_of:
            if of(before) != of(state):
                groups |= group
        if of_profile(before) != of_profile(state):
            self._arrays["profile"][row] = self._profile_of(state)
        if of_servers(before) != of_servers(state):
            self._arrays["servers"][row] = self._servers_of(state)
        return groups

    def set_aggregates(self, version: int, aggregates: Sequence[AggregateState]) -> None:
        """Replace all aggregates."""
        self.aggregates = AggregateIndex(aggregates, version=version)
        column = self._arrays["combination"]
        for name, row in self.row_of.items():
            column[row] = self.aggregates.number_of(name)
        self.version += 1
        self._anew_at = self.version

    # ---- choices of ours -----------------------------------------------------------------------------------

    def take(self, needs: Needs, server_id: str, row: int, *, at: float = 0.0) -> None:
        """Deduct one server from a host until its claim is seen. A newer choice replaces an older."""
        if server_id in self._promises.by_server:
            self._drop(server_id)
        pending = Pending(server_id, row, needs, at)
        self._promises.add(pending)
        self._deduct(pending, 1)
        self._touch(row, USAGE)

    @property
    def pending(self) -> Mapping[str, Pending]:
        """Choices by server that no claim has confirmed yet."""
        return self._promises.by_server

    def settle(self, claimed: Iterable[str]) -> None:
        """The claims of these servers are in the rows that were applied: their deductions end."""
        for server_id in claimed:
            if server_id in self._promises.by_server:
                self._drop(server_id)

    def expire(self, before: float) -> int:
        """Forget choices made before a moment (on the monotonic clock) that never became claims; how many."""
        old = [server_id for server_id, pending in self.pending.items() if pending.taken_at < before]
        for server_id in old:
            self._drop(server_id)
        return len(old)

    @contextmanager
    def without_doubtful(self, before: float) -> Iterator[bool]:
        """Inside, choices made before a moment and still unconfirmed do not count; whether there are any.

        Nothing may be taken inside.
        """
        doubtful = [pending for pending in self.pending.values() if pending.taken_at < before]
        rows = [pending.row for pending in doubtful]
        for pending in doubtful:
            self._promises.remove(pending.server_id)
            self._deduct(pending, -1)
        if doubtful:
            self._touch(rows, USAGE)
        try:
            yield bool(doubtful)
        finally:
            for pending in doubtful:
                self._promises.add(pending)
                self._deduct(pending, 1)
            if doubtful:
                self._touch(rows, USAGE)

    # ---- inside ----------------------------------------------------------------------------------------------

    def _touch(self, rows: int | Sequence[int], groups: int) -> None:
        """Rows have changed in columns of `groups`."""
        self.version += 1
        self.row_version[rows] = self.version
        if not isinstance(rows, int) or len(self._recent) >= _RECENT:
            self._recent.clear()
            self._recent_since = self.version
        if isinstance(rows, int):
            self._recent.append((self.version, rows))
        for group in self._group_versions:
            if groups & group:
                self._group_versions[group] = self.version

    def _show(self) -> None:
        """Let the columns be the used part of the arrays."""
        for name, _ in PLAIN + DERIVED:
            setattr(self, name, self._arrays[name][: self.size])

    def _new_row(self, state: HostState) -> int:
        if self._free_rows:
            row = self._free_rows.pop()
        else:
            row = self.size
            if row == len(self._arrays["alive"]):
                self._arrays = {n: np.concatenate([a, np.zeros_like(a)]) for n, a in self._arrays.items()}
                self._metrics = {n: np.concatenate([a, np.full_like(a, np.nan)]) for n, a in self._metrics.items()}
            self.size += 1
            self.names.append("")
            self.states.append(None)
            self._show()
        self.names[row] = state.name
        self.row_of[state.name] = row
        self._arrays["host_id"][row] = state.id
        self._arrays["profile"][row] = self._profile_of(state)
        self._arrays["servers"][row] = self._servers_of(state)
        self._arrays["combination"][row] = self.aggregates.number_of(state.name)
        return row

    def _forget(self, name: str, row: int) -> None:
        for pending in self._promises.of_row(row):
            self._drop(pending.server_id)
        del self.row_of[name]
        self.names[row] = ""
        self.states[row] = None
        self._free_rows.append(row)
        for array in self._arrays.values():
            array[row] = 0
        for metric in self._metrics.values():
            metric[row] = np.nan
        self.version += 1
        self._anew_at = self.version

    def _write(self, rows: list[int], states: list[HostState]) -> None:
        at = np.array(rows)
        arrays = self._arrays
        for (name, _), column in zip(PLAIN, zip(*map(row_values, states), strict=True), strict=True):
            arrays[name][at] = column
        arrays["alive"][at] = True
        for limit, total, reserved, ratio, used, free in LIMITS:
            # Whole units: for integers, used + n <= x and used + n <= floor(x) are the same question.
            arrays[limit][at] = np.floor((arrays[total][at] - arrays[reserved][at]) * arrays[ratio][at])
            arrays[free][at] = arrays[limit][at] - arrays[used][at]
        for name, array in arrays.items():
            if ":" in name:
                array[at] = 0
        for name, measured in self._metrics.items():
            measured[at] = [state.metrics.get(name, np.nan) for state in states]
        for row, state in zip(rows, states, strict=True):
            if state.more:
                self._write_more(row, state)
            if state.numa or state.pci or arrays["devices"][row]:
                self._set_devices(row)
        if self.pending:
            for row in rows:
                for pending in self._promises.of_row(row):
                    self._deduct_amounts(pending, 1)

    def _write_more(self, row: int, state: HostState) -> None:
        for name, amount in state.more.items():
            for column in (f"total:{name}", f"free:{name}"):
                if column not in self._arrays:
                    self._arrays[column] = np.zeros(len(self._arrays["alive"]), dtype=np.int64)
            self._arrays[f"total:{name}"][row] = amount.total
            self._arrays[f"free:{name}"][row] = int((amount.total - amount.reserved) * amount.ratio) - amount.used

    def _deduct(self, pending: Pending, sign: int) -> None:
        self._deduct_amounts(pending, sign)
        if pending.needs.topology is not None or pending.needs.pci:
            self._set_devices(pending.row)

    def _deduct_amounts(self, pending: Pending, sign: int) -> None:
        row = pending.row
        arrays = self._arrays
        for name, amount in pending.needs.amounts.items():
            _, used, free = CLASSES.get(name, ("", "", f"free:{name}"))
            if used:
                arrays[used][row] += sign * amount
            if free in arrays:
                arrays[free][row] -= sign * amount
        arrays["num_instances"][row] += sign
        arrays["io_ops"][row] += sign  # a build is about to begin there

    def _set_devices(self, row: int) -> None:
        """NUMA cells and devices as the feed has them, less what is promised."""
        state = self.states[row]
        if state is None or not (state.numa or state.pci):
            self._arrays["devices"][row] = 0
            return
        now = Devices(state.numa, state.pci, state.vcpus_ratio, state.memory_ratio)
        for pending in self._promises.of_row(row):
            needs = pending.needs
            after = pci.place(
                now.cells, now.pools, needs.topology, needs.pci,
                cpu_ratio=now.cpu_ratio, memory_ratio=now.memory_ratio,
            )  # fmt: skip
            if after is not None:
                now = Devices(*after, now.cpu_ratio, now.memory_ratio)
        if len(self._devices.values) > 4 * len(self.row_of) + 1_000:
            self._renumber_devices()
        self._arrays["devices"][row] = self._devices.number(now)

    def _drop(self, server_id: str) -> None:
        pending = self._promises.remove(server_id)
        self._deduct(pending, -1)
        self._touch(pending.row, USAGE)

    def _profile_of(self, state: HostState) -> int:
        return self._kind_of(state, self._profiles, "profile")

    def _servers_of(self, state: HostState) -> int:
        return self._kind_of(state, self._servers, "servers")

    def _kind_of(self, state: HostState, kinds: Kinds[HostState], column: str) -> int:
        if len(kinds.values) > 2 * len(self.row_of) + 64:
            # Abilities that carry a changing value make many kinds that no host has any more.
            known = {row: at_row for row in self.row_of.values() if (at_row := self.states[row]) is not None}
            self._arrays[column][list(known)] = kinds.renumber(known.values())
        return kinds.number(state)

    def _renumber_devices(self) -> None:
        column = self._arrays["devices"]
        values = [self._devices.values[number] for number in column]
        self._devices.renumber([_NO_DEVICES])
        column[:] = [self._devices.number(value) for value in values]


def as_number(text: object) -> float | None:
    """A finite number as users write them in metadata, or None."""
    try:
        number = float(str(text).strip())
    except ValueError:
        return None
    return number if np.isfinite(number) else None
