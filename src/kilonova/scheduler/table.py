"""All hosts as columns: what the scheduler knows, one NumPy array a property, one row a host.

A filter asks a question of all hosts at once by comparing columns. The table is fed by deltas (`apply`,
`set_aggregates`) in the order of the feed, and never asks for anything itself.

**Its own choices** are deducted at once (`take`), so that two decisions never promise the same room. Such a
deduction is *pending* until the feed's reader says, from the same snapshot as the rows it brings, on which
host the server's claim stands (`settle`): from then on the row's `used` contains it. A choice that never
becomes a claim (the conductor died, all candidates were full) is forgotten after a while (`expire`). Until
then it steers later choices elsewhere; what it may not do alone is to make a request fail, see
`without_doubtful`. The claim's conditional write is the judge in any case.

Rows of hosts that left are used again; `alive` says which rows are hosts now.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from kilonova.model.host import AggregateState, HostState
from kilonova.model.request_spec import RequestSpec
from kilonova.scheduler.aggregates import AggregateIndex

T = TypeVar("T")
Mask: TypeAlias = npt.NDArray[np.bool_]
IntColumn: TypeAlias = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[np.float64]

LIVENESS = "liveness"
"""What changes when hosts come, go, stop, or are switched off."""
USAGE = "usage"
"""Used and free amounts, servers, work in flight, failures: changes with every choice."""
FACTS = "facts"
"""Capacity, hypervisor, abilities: changes when an operator or a new agent changes them."""
AGGREGATES = "aggregates"
"""Aggregates, their metadata, and which host is in which."""
EVERYTHING = frozenset({LIVENESS, USAGE, FACTS, AGGREGATES})

_MOST = np.iinfo(np.int64).max

# Column, its type, and where a feed's row has it. `vcpus_used` and the like are as the feed says; what is
# pending comes on top.
_PLAIN: tuple[tuple[str, npt.DTypeLike], ...] = (
    ("vcpus", np.int64),
    ("vcpus_reserved", np.int64),
    ("vcpus_ratio", np.float64),
    ("vcpus_used", np.int64),
    ("memory_mib", np.int64),
    ("memory_reserved_mib", np.int64),
    ("memory_ratio", np.float64),
    ("memory_used_mib", np.int64),
    ("disk_gib", np.int64),
    ("disk_reserved_gib", np.int64),
    ("disk_ratio", np.float64),
    ("disk_used_gib", np.int64),
    ("num_instances", np.int64),
    ("io_ops", np.int64),
    ("failed_builds", np.int64),
    ("hypervisor_version", np.int64),
    ("is_enabled", np.bool_),
    ("is_up", np.bool_),
)
_DERIVED: tuple[tuple[str, npt.DTypeLike], ...] = (
    ("vcpus_limit", np.int64),
    ("memory_limit_mib", np.int64),
    ("disk_limit_gib", np.int64),
    ("free_vcpus", np.int64),
    ("free_memory_mib", np.int64),
    ("free_disk_gib", np.int64),
    ("alive", np.bool_),
    ("profile", np.int32),
    ("combination", np.int32),
)
_row_values = attrgetter(*(name for name, _ in _PLAIN))
_facts = attrgetter(
    "arch", "hypervisor_type", "hypervisor_version", "vm_mode", "supported_instances", "capabilities", "cpu_info",
    "traits",
)  # fmt: skip
_usage = attrgetter("vcpus_used", "memory_used_mib", "disk_used_gib", "num_instances", "io_ops", "failed_builds")
_capacity = attrgetter(
    "vcpus", "vcpus_reserved", "vcpus_ratio", "memory_mib", "memory_reserved_mib", "memory_ratio",
    "disk_gib", "disk_reserved_gib", "disk_ratio", "host_ip",
)  # fmt: skip


@dataclass(frozen=True)
class Pending:
    """A choice of ours that no claim has confirmed yet."""

    server_id: str
    row: int
    host_id: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    taken_at: float
    """On the monotonic clock."""


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
    profile: npt.NDArray[np.int32]
    """Number of the host's profile: hosts whose hypervisor and abilities are equal share one."""
    combination: npt.NDArray[np.int32]
    """Number of the combination of aggregates that the host is in."""

    def __init__(self, capacity: int = 64) -> None:
        self.size = 0
        """Rows in use or used before: the length of every column."""
        self.seq = 0
        """The newest row of the feed that is in here."""
        self.version = 0
        """Grows with every change of any cell."""
        self.changed: dict[str, int] = dict.fromkeys(EVERYTHING, 0)
        """Group of columns to the version at which one of them last changed."""
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
            name: np.zeros(capacity, dtype=dtype) for name, dtype in _PLAIN + _DERIVED
        }
        self._free_rows: list[int] = []
        self._profiles: list[HostState] = []
        self._profile_numbers: dict[bytes, int] = {}
        self._answers: dict[Any, npt.NDArray[Any]] = {}
        self._pending: dict[str, Pending] = {}
        self._pending_of_row: dict[int, set[str]] = {}
        self._show()

    def __len__(self) -> int:
        """Number of hosts."""
        return len(self.row_of)

    # ---- questions that rules ask ------------------------------------------------------------------------

    def everywhere(self, answer: bool) -> Mask:
        """The same answer for every host."""
        return np.full(self.size, answer, dtype=np.bool_)

    def by_profile(self, question: Any, rule: Callable[[HostState], T], dtype: npt.DTypeLike = np.bool_) -> Any:
        """`rule`'s answer for each host, asked once a profile.

        `rule` may look at a host's architecture, hypervisor, supported instances, capabilities and traits,
        and at nothing else. Its answers are remembered under `question` until profiles change.
        """
        answers = self._answers.get(question)
        if answers is None or len(answers) != len(self._profiles):
            answers = np.array([rule(profile) for profile in self._profiles], dtype=dtype)
            self._answers[question] = answers
        return answers[self.profile] if len(answers) else np.zeros(self.size, dtype=dtype)

    def by_aggregates(
        self, question: Any, rule: Callable[[tuple[AggregateState, ...]], T], dtype: npt.DTypeLike = np.bool_
    ) -> Any:
        """`rule`'s answer for each host, asked once a combination of aggregates; remembered under `question`."""
        return self.aggregates.ask(question, rule, dtype)[self.combination]

    def aggregate_min(self, key: str, default: float) -> Column:
        """The smallest value that a host's aggregates have for `key` in their metadata, else `default`.

        Where one of the values is no number, `default` counts for that host, and there is a complaint.
        """

        def smallest(aggregates: tuple[AggregateState, ...]) -> float:
            numbers = []
            for aggregate in aggregates:
                if key in aggregate.metadata:
                    number = as_number(aggregate.metadata[key])
                    if number is None:
                        self.complain(
                            f"aggregate '{aggregate.name}': {key} is '{aggregate.metadata[key]}', which is no number; "
                            f"its hosts get the global value {default:g}"
                        )
                        return default
                    numbers.append(number)
            return min(numbers, default=default)

        column: Column = self.by_aggregates((key, default), smallest, np.float64)
        return column

    def complain(self, what: str) -> None:
        """Note malformed metadata; it is logged once."""
        self.complaints.setdefault(what, False)

    # ---- the feed ----------------------------------------------------------------------------------------

    def apply(self, states: Sequence[HostState]) -> None:
        """Take in rows of the feed. A row that is not newer than the one at hand changes nothing."""
        fresh: dict[int, HostState] = {}
        groups: set[str] = set()
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
                row = self._new_row(state.name)
                groups |= EVERYTHING
                self._arrays["profile"][row] = self._profile_of(state)
                self._arrays["combination"][row] = self.aggregates.number_of(state.name)
            else:
                if _usage(before) != _usage(state):
                    groups.add(USAGE)
                if before.is_up != state.is_up or before.is_enabled != state.is_enabled:
                    groups.add(LIVENESS)
                if _capacity(before) != _capacity(state):
                    groups |= {FACTS, USAGE}
                if _facts(before) != _facts(state):
                    groups.add(FACTS)
                    self._arrays["profile"][row] = self._profile_of(state)
            self.states[row] = state
            fresh[row] = state
        if fresh:
            self._write(list(fresh), list(fresh.values()))
            self._touch(groups)

    def set_aggregates(self, version: int, aggregates: Sequence[AggregateState]) -> None:
        """Replace all aggregates."""
        self.aggregates = AggregateIndex(aggregates, version=version)
        column = self._arrays["combination"]
        for name, row in self.row_of.items():
            column[row] = self.aggregates.number_of(name)
        self._touch({AGGREGATES})

    # ---- choices of ours -----------------------------------------------------------------------------------

    def take(self, spec: RequestSpec, server_id: str, row: int, *, at: float = 0.0) -> None:
        """Deduct one server of `spec` from a host until its claim is seen. A newer choice replaces an older."""
        if server_id in self._pending:
            self._drop(server_id)
        state = self.states[row]
        assert state is not None
        pending = Pending(server_id, row, state.id, spec.vcpus, spec.memory_mib, spec.disk_gib, at)
        self._pending[server_id] = pending
        self._pending_of_row.setdefault(row, set()).add(server_id)
        self._deduct(pending, 1)
        self._touch({USAGE})

    @property
    def pending(self) -> Mapping[str, Pending]:
        """Choices by server that no claim has confirmed yet."""
        return self._pending

    def settle(self, claimed: Mapping[str, int]) -> None:
        """Claims (server to host id) are in the rows that were applied: their deductions end, wherever they stand."""
        for server_id in claimed:
            if server_id in self._pending:
                self._drop(server_id)

    def expire(self, before: float) -> int:
        """Forget choices made before a moment (on the monotonic clock) that never became claims; how many."""
        old = [server_id for server_id, pending in self._pending.items() if pending.taken_at < before]
        for server_id in old:
            self._drop(server_id)
        return len(old)

    @contextmanager
    def without_doubtful(self, before: float) -> Iterator[bool]:
        """Inside, choices made before a moment and still unconfirmed do not count; whether there are any."""
        doubtful = [pending for pending in self._pending.values() if pending.taken_at < before]
        for pending in doubtful:
            self._deduct(pending, -1)
        if doubtful:
            self._touch({USAGE})
        try:
            yield bool(doubtful)
        finally:
            for pending in doubtful:
                self._deduct(pending, 1)
            if doubtful:
                self._touch({USAGE})

    # ---- inside ----------------------------------------------------------------------------------------------

    def _touch(self, groups: set[str]) -> None:
        self.version += 1
        for group in groups:
            self.changed[group] = self.version

    def _show(self) -> None:
        """Let the columns be the used part of the arrays."""
        for name, array in self._arrays.items():
            setattr(self, name, array[: self.size])

    def _new_row(self, name: str) -> int:
        if self._free_rows:
            row = self._free_rows.pop()
        else:
            row = self.size
            if row == len(self._arrays["alive"]):
                self._arrays = {n: np.concatenate([a, np.zeros_like(a)]) for n, a in self._arrays.items()}
            self.size += 1
            self.names.append("")
            self.states.append(None)
            self._show()
        self.names[row] = name
        self.row_of[name] = row
        return row

    def _forget(self, name: str, row: int) -> None:
        for server_id in list(self._pending_of_row.get(row, ())):
            self._drop(server_id)
        del self.row_of[name]
        self.names[row] = ""
        self.states[row] = None
        self._free_rows.append(row)
        for array in self._arrays.values():
            array[row] = 0
        self._touch(set(EVERYTHING))

    def _write(self, rows: list[int], states: list[HostState]) -> None:
        at = np.array(rows)
        arrays = self._arrays
        for (name, _), column in zip(_PLAIN, zip(*map(_row_values, states), strict=True), strict=True):
            arrays[name][at] = column
        arrays["alive"][at] = True
        for limit, total, reserved, ratio, used, free in (
            ("vcpus_limit", "vcpus", "vcpus_reserved", "vcpus_ratio", "vcpus_used", "free_vcpus"),
            ("memory_limit_mib", "memory_mib", "memory_reserved_mib", "memory_ratio", "memory_used_mib",
             "free_memory_mib"),
            ("disk_limit_gib", "disk_gib", "disk_reserved_gib", "disk_ratio", "disk_used_gib", "free_disk_gib"),
        ):  # fmt: skip
            # Whole units: for integers, used + n <= x and used + n <= floor(x) are the same question.
            arrays[limit][at] = np.floor((arrays[total][at] - arrays[reserved][at]) * arrays[ratio][at])
            arrays[free][at] = arrays[limit][at] - arrays[used][at]
        if self._pending:
            for row in rows:
                for server_id in self._pending_of_row.get(row, ()):
                    self._deduct(self._pending[server_id], 1)

    def _deduct(self, pending: Pending, sign: int) -> None:
        row = pending.row
        arrays = self._arrays
        arrays["vcpus_used"][row] += sign * pending.vcpus
        arrays["free_vcpus"][row] -= sign * pending.vcpus
        arrays["memory_used_mib"][row] += sign * pending.memory_mib
        arrays["free_memory_mib"][row] -= sign * pending.memory_mib
        arrays["disk_used_gib"][row] += sign * pending.disk_gib
        arrays["free_disk_gib"][row] -= sign * pending.disk_gib
        arrays["num_instances"][row] += sign
        arrays["io_ops"][row] += sign  # a build is about to begin there

    def _drop(self, server_id: str) -> None:
        pending = self._pending.pop(server_id)
        servers = self._pending_of_row[pending.row]
        servers.discard(server_id)
        if not servers:
            del self._pending_of_row[pending.row]
        self._deduct(pending, -1)
        self._touch({USAGE})

    def _profile_of(self, state: HostState) -> int:
        key = msgspec.msgpack.encode(_facts(state), order="deterministic")
        number = self._profile_numbers.get(key)
        if number is None:
            if len(self._profiles) > 2 * len(self.row_of) + 64:
                self._renumber_profiles()
            number = self._profile_numbers[key] = len(self._profiles)
            self._profiles.append(state)
            self._answers.clear()
        return number

    def _renumber_profiles(self) -> None:
        """Forget profiles that no host has any more (abilities that carry a changing value make many)."""
        self._profiles.clear()
        self._profile_numbers.clear()
        self._answers.clear()
        for row in self.row_of.values():
            state = self.states[row]
            if state is not None:
                self._arrays["profile"][row] = self._profile_of(state)


def as_number(text: object) -> float | None:
    """A finite number as users write them in metadata, or None."""
    try:
        number = float(str(text).strip())
    except ValueError:
        return None
    return number if np.isfinite(number) else None
