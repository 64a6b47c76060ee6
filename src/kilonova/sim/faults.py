"""What goes wrong in a simulation, drawn from its seed and numbered, so that each fault can be taken out again.

Each kind has its own stream of chance: leaving out one kind does not shift the draws of another.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

RATES: Final[Mapping[str, float]] = {
    "kill.conductor": 1 / 500,
    "kill.scheduler": 1 / 600,
    "kill.api": 1 / 150,
    "kill.compute": 1 / 150,
    "kill.at_write": 1 / 60,
    "kill.at_message": 1 / 100,
    "kill.at_command": 1 / 100,
    "pauses.conductor": 1 / 1500,
    "pauses.scheduler": 1 / 2000,
    "pauses.api": 1 / 1500,
    "pauses.compute": 1 / 1500,
    "messages.lose": 0.01,
    "messages.double": 0.03,
    "messages.delay": 0.03,
    "messages.refuse": 0.004,
    "messages.cut_off": 1 / 2000,
    "messages.again": 0.03,
    "messages.broker_dies": 1 / 3000,
    "database.refuse": 0.003,
    "database.unknown": 0.003,
    "database.late": 0.5,
    "database.slow": 0.01,
    "database.held": 0.003,
    "database.away": 1 / 4000,
    "database.again": 0.01,
    "driver.fail": 0.05,
    "driver.fail_after": 0.02,
    "driver.slow": 0.04,
    "driver.hang": 0.005,
    "driver.goes_on": 0.3,
    "driver.broken": 1 / 600,
    "hosts.lose_power": 1 / 2000,
    "hosts.die": 1 / 10000,
    "hosts.lose_guest": 1 / 20000,
    "clocks.skew": 0.5,
    "users.lose_answer": 0.03,
    "users.repeat": 0.05,
}
"""How often each strikes: per step of a process of that role (of a host's agents, for ``hosts``), per message,
transaction, call of a driver, machine, request. ``kill.at_write``, ``kill.at_message`` and, for agents,
``kill.at_command`` aim at moments when something is under way; ``pauses`` stop a process as ``SIGSTOP`` does, and let
it go on; ``messages.cut_off`` (per message) keeps a process from the broker for a while, in which it lives on;
``messages.again`` is a command that its agent gets once more, long after, when it has died and forgotten the first;
``messages.broker_dies`` (per message) cuts off all, loses what is on its way and hands out again what was not
acknowledged; ``database.held`` is a transaction that a network kept for longer than any lease;
``database.late`` is per transaction whose caller goes away before it was begun; ``database.away`` (per transaction)
refuses everybody for a while, as a database that is started again does; ``database.again`` is a transaction that is
rolled back when all of it was done, and then is told so, or is run once more; ``driver.goes_on`` is a call that the
hypervisor ends even if its agent is killed; ``driver.broken`` (per call) lets a host's hypervisor, its network tools or
both refuse everything for minutes, while its agent lives."""

PER_LOAD: Final = frozenset(
    {
        *("kill.conductor", "kill.scheduler", "kill.api", "kill.at_write", "kill.at_message"),
        *("pauses.conductor", "pauses.scheduler", "pauses.api", "messages.broker_dies", "database.away"),
    }
)
"""Kinds whose occasions grow with the whole cloud: services that many servers share would never live long enough to
get anything done."""

GROUPS: Final = tuple(dict.fromkeys(kind.partition(".")[0] for kind in RATES))
"""What ``--faults`` can name."""


def kinds_of(names: Collection[str]) -> tuple[str, ...]:
    """The kinds that some names stand for: ``all``, ``none``, groups, or kinds themselves.

    Raises:
        ValueError: a name is none of them; the message lists them.
    """
    wanted: set[str] = set()
    for name in names:
        found = {kind for kind in RATES if name in ("all", kind, kind.partition(".")[0])}
        if not found and name != "none":
            raise ValueError(f"No fault '{name}'. There are: all, none, {', '.join(GROUPS)}; and {', '.join(RATES)}.")
        wanted |= found
    return tuple(kind for kind in RATES if kind in wanted)


def shortest(kinds: Collection[str]) -> str:
    """Names for these kinds, with commas, as `kinds_of` reads them."""
    if set(kinds) == set(RATES) or not kinds:
        return "all" if kinds else "none"
    names: list[str] = []
    for group in GROUPS:
        inside = [kind for kind in RATES if kind.partition(".")[0] == group]
        chosen = [kind for kind in inside if kind in kinds]
        names += [group] if chosen == inside else chosen
    return ",".join(names)


def number_from(*parts: object) -> int:
    """A number that depends on nothing but `parts`: the same in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def chance_from(*parts: object) -> random.Random:
    """Chance that depends on nothing but `parts`."""
    return random.Random(number_from(*parts))  # noqa: S311 - repeatable on purpose


@dataclass(frozen=True)
class LeftOut:
    """Faults that do not happen: by their numbers, and all from one number on."""

    numbers: frozenset[int] = frozenset()
    begin: int | None = None

    @classmethod
    def parse(cls, text: str) -> "LeftOut":
        """Of numbers and ranges with commas: ``3,7-9,41-``.

        Raises:
            ValueError: it is something else.
        """
        numbers: set[int] = set()
        begin: int | None = None
        for part in filter(None, text.replace(" ", "").split(",")):
            first, dash, last = part.partition("-")
            if dash and not last:
                begin = min(int(first), begin or int(first))
            else:
                numbers.update(range(int(first), int(last or first) + 1))
        return cls(frozenset(numbers), begin)

    def __str__(self) -> str:
        parts: list[str] = []
        numbers = sorted(number for number in self.numbers if self.begin is None or number < self.begin)
        for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
            run = [number for _, number in group]
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
        if self.begin is not None:
            parts.append(f"{self.begin}-")
        return ",".join(parts)

    def __contains__(self, number: int) -> bool:
        return number in self.numbers or (self.begin is not None and number >= self.begin)


NOTHING: Final = LeftOut()
"""All faults happen."""


class Faults:
    """Decides, each time that something could go wrong, whether it does."""

    def __init__(self, seed: int, kinds: Collection[str], *, left_out: LeftOut = NOTHING, load: float = 1.0) -> None:
        """
        Args:
            kinds: of `RATES`; others never strike.
            load: of the shared services, compared to a small cloud's: those `PER_LOAD` are as much rarer.
            left_out: faults that do not happen, for making a failing run smaller.
        """
        self.is_on = False
        self.struck: Counter[str] = Counter()
        self.number = 0
        """Faults so far, those left out included."""
        self._left_out = left_out
        self._rates = {kind: RATES[kind] / (load if kind in PER_LOAD else 1.0) for kind in kinds}
        self._chance = {kind: chance_from(seed, "fault", kind) for kind in RATES}
        self._sizes = chance_from(seed, "sizes")

    def strikes(self, kind: str) -> bool:
        """Whether a fault of this kind happens here and now."""
        rate = self._rates.get(kind)
        if rate is None or not self.is_on or self._chance[kind].random() >= rate:
            return False
        self.number += 1
        if self.number in self._left_out:
            return False
        self.struck[kind] += 1
        return True

    def between(self, low: float, high: float) -> float:
        """How long or how large."""
        return self._sizes.uniform(low, high)

    def one_of(self, number: int) -> int:
        """A number from 0 to below `number`."""
        return int(self._sizes.random() * number)

    def latency(self) -> float:
        """The usual way of a message or of a statement, in seconds."""
        return 0.0002 + 0.004 * self._sizes.random()
