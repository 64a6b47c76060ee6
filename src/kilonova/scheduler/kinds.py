"""Equal things get one number, so that a rule is asked once a thing, and not once for each host that has it."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

V = TypeVar("V")

Numbers = npt.NDArray[np.int32]


class Kinds(Generic[V]):
    """Values by number, and what rules said of them.

    Values come in as hosts show them; those that no host has any more are forgotten by `renumber`.
    """

    def __init__(self, key: Callable[[V], Hashable]) -> None:
        """`key`: equal for equal values."""
        self._key = key
        self.values: list[V] = []
        self._numbers: dict[Hashable, int] = {}
        self._answers: dict[Hashable, tuple[npt.NDArray[Any], int]] = {}

    def number(self, value: V) -> int:
        """The number of this value, new if it was never seen."""
        key = self._key(value)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
        return number

    def ask(self, question: Hashable, rule: Callable[[V], Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """`rule`'s answer by number. Remembered under `question`: of new values only the new are asked."""
        count = len(self.values)
        answers, known = self._answers.get(question, (np.empty(0, dtype=dtype), 0))
        if known < count:
            if len(answers) < count:
                answers = np.concatenate([answers, np.empty(count, dtype=dtype)])  # doubles: values come one by one
            answers[known:count] = [rule(value) for value in self.values[known:]]
            if len(self._answers) > 1_000:
                self._answers.clear()
            self._answers[question] = (answers, count)
        return answers

    def renumber(self, values: Iterable[V]) -> Numbers:
        """Forget all, and number `values` anew; their numbers in order."""
        self.values.clear()
        self._numbers.clear()
        self._answers.clear()
        return np.array([self.number(value) for value in values], dtype=np.int32)
