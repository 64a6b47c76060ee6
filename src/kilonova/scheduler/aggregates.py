"""Which host is in which aggregates, so that a rule about aggregates is asked once a combination, not once a host.

A cloud has many hosts and few different combinations of aggregates (the SSD hosts of zone 1, the GPU hosts
of zone 2 …). Each combination has a number; each host's row has the number of its combination.
"""

from collections.abc import Sequence
from typing import TypeAlias

from kilonova.model.host import AggregateState
from kilonova.scheduler.kinds import Kinds

Combination: TypeAlias = tuple[AggregateState, ...]


class AggregateIndex:
    """The aggregates, and the combinations of them that hosts are in."""

    def __init__(self, aggregates: Sequence[AggregateState] = (), *, version: int = -1) -> None:
        self.version = version
        """Of the aggregates in the store; -1 before they were first read."""
        self.aggregates = tuple(aggregates)
        self.keys = frozenset(key for aggregate in aggregates for key in aggregate.metadata)
        """All keys that any aggregate has in its metadata."""
        self.combinations: Kinds[Combination] = Kinds(lambda combination: tuple(a.id for a in combination))
        self._of_host: dict[str, Combination] = {}
        for aggregate in aggregates:
            for host in aggregate.hosts:
                self._of_host[host] = (*self._of_host.get(host, ()), aggregate)
        self.values_of_key: dict[str, frozenset[str]] = {
            key: frozenset(split_values(aggregates, key)) for key in self.keys
        }
        """Key to all values that it has anywhere, a comma separating several in one."""

    def number_of(self, host: str) -> int:
        """The number of the combination that `host` is in."""
        return self.combinations.number(self._of_host.get(host, ()))


def values(aggregates: Sequence[AggregateState], key: str) -> set[str]:
    """All values that `key` has in the metadata of `aggregates`, as they stand."""
    return {aggregate.metadata[key] for aggregate in aggregates if key in aggregate.metadata}


def split_values(aggregates: Sequence[AggregateState], key: str) -> set[str]:
    """All values that `key` has in the metadata of `aggregates`; a comma separates several in one."""
    return {part.strip() for value in values(aggregates, key) for part in value.split(",")}
