"""Which host is in which aggregates, so that a rule about aggregates is asked once a combination, not once a host.

A cloud has many hosts and few different combinations of aggregates (the SSD hosts of zone 1, the GPU hosts
of zone 2 …). Each combination has a number; each host's row has the number of its combination.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kilonova.model.host import AggregateState

T = TypeVar("T")


class AggregateIndex:
    """The aggregates, and the combinations of them that hosts are in."""

    def __init__(self, aggregates: Sequence[AggregateState] = (), *, version: int = -1) -> None:
        self.version = version
        """Of the aggregates in the store; -1 before they were first read."""
        self.aggregates = tuple(aggregates)
        self.keys = frozenset(key for aggregate in aggregates for key in aggregate.metadata)
        """All keys that any aggregate has in its metadata."""
        self._of_host: dict[str, tuple[int, ...]] = {}
        for position, aggregate in enumerate(self.aggregates):
            for host in aggregate.hosts:
                self._of_host[host] = (*self._of_host.get(host, ()), position)
        self._number: dict[tuple[int, ...], int] = {(): 0}
        self.combinations: list[tuple[AggregateState, ...]] = [()]
        """By number: the aggregates of a combination, in the order of their ids. Number 0 is no aggregate."""
        self._answers: dict[Any, npt.NDArray[Any]] = {}

    def number_of(self, host: str) -> int:
        """The number of the combination that `host` is in."""
        positions = self._of_host.get(host, ())
        number = self._number.get(positions)
        if number is None:
            number = self._number[positions] = len(self.combinations)
            self.combinations.append(tuple(self.aggregates[p] for p in positions))
        return number

    def ask(
        self, question: Any, rule: Callable[[tuple[AggregateState, ...]], T], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        """`rule`'s answer for each combination, by number. Remembered under `question` for the life of this index."""
        answers = self._answers.get(question)
        if answers is None or len(answers) < len(self.combinations):
            answers = np.array([rule(combination) for combination in self.combinations], dtype=dtype)
            self._answers[question] = answers
        return answers


def values(aggregates: Sequence[AggregateState], key: str) -> set[str]:
    """All values that `key` has in the metadata of `aggregates`, as they stand."""
    return {aggregate.metadata[key] for aggregate in aggregates if key in aggregate.metadata}


def split_values(aggregates: Sequence[AggregateState], key: str) -> set[str]:
    """All values that `key` has in the metadata of `aggregates`; a comma separates several in one."""
    return {part.strip() for value in values(aggregates, key) for part in value.split(",")}
