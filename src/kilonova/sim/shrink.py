"""Make a failing run shorter: the same seed, with fewer faults and fewer servers, that still fails in the same way.

Greedy, and bounded by a number of runs: first all faults after some number are left out (the history up to there is
the same), then whole kinds, then ever smaller groups of single faults; then servers, hosts and
time. What is found is a plan like any other: its command line replays it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from kilonova.sim.faults import LeftOut
from kilonova.sim.plan import Plan, Result

Run = Callable[[Plan], Result]


def shrink(failing: Result, plan: Plan, run: Run, *, most: int, say: Callable[[str], None]) -> tuple[Plan, Result]:
    """The smallest plan that was found to break one of the rules that `failing` breaks, and what it showed.

    Args:
        plan: of `failing`.
        most: runs that may be tried.
        say: is told each step forward.
    """
    return _Search(failing, plan, run, most, say).search()


class _Enough(Exception):
    """No more runs may be tried."""


class _Search:
    def __init__(self, failing: Result, plan: Plan, run: Run, most: int, say: Callable[[str], None]) -> None:
        self._rules = rules_of(failing)
        self._best, self._result = plan, failing
        self._run = run
        self._left = most
        self._say = say

    def search(self) -> tuple[Plan, Result]:
        try:
            self._last_fault()
            self._each(self._without_kinds)
            self._single_faults()
            self._each(self._smaller)
            self._single_faults()
        except _Enough:
            self._say("no more tries: this is the best so far")
        return self._best, self._result

    def _fails(self, plan: Plan) -> bool:
        if self._left == 0:
            raise _Enough
        self._left -= 1
        result = self._run(plan)
        if not rules_of(result) & self._rules:
            return False
        self._best, self._result = plan, result
        self._say(
            f"still fails with {sum(result.struck.values())} faults, {plan.servers} servers, {plan.hosts} hosts: "
            f"{result.events} events"
        )
        return True

    def _last_fault(self) -> None:
        """The smallest number after which no fault is needed."""
        low, high = 0, self._result.faults_drawn
        while low < high:
            middle = (low + high) // 2
            if self._fails(replace(self._best, left_out=LeftOut(begin=middle + 1))):
                high = min(middle, self._result.faults_drawn)
            else:
                low = middle + 1

    def _each(self, candidates: Callable[[], Iterator[Plan]]) -> None:
        """Take the first candidate that still fails, as long as there is one."""
        while any(self._fails(plan) for plan in candidates()):
            pass

    def _without_kinds(self) -> Iterator[Plan]:
        best = self._best
        groups = sorted({kind.partition(".")[0] for kind in best.faults})
        for name in [*groups, *(kind for kind in best.faults if kind in self._result.struck)]:
            fewer = tuple(kind for kind in best.faults if name not in (kind, kind.partition(".")[0]))
            if fewer and fewer != best.faults:
                yield replace(best, faults=fewer)

    def _single_faults(self) -> None:
        count = self._result.faults_drawn
        width = max(1, count // 2)
        while width:
            first = 1
            while first <= self._result.faults_drawn:
                some = frozenset(range(first, first + width))
                before = self._best.left_out
                if not some <= before.numbers:
                    self._fails(replace(self._best, left_out=LeftOut(before.numbers | some, before.begin)))
                first += width
            width //= 2

    def _smaller(self) -> Iterator[Plan]:
        best = self._best
        for servers in sorted({1, best.servers // 4, best.servers // 2, best.servers - 1}):
            if 0 < servers < best.servers:
                yield replace(best, servers=servers)
        for hosts in sorted({1, best.hosts // 4, best.hosts // 2, best.hosts - 1}):
            if 0 < hosts < best.hosts:
                yield replace(best, hosts=hosts)
        if best.schedulers > 1:
            yield replace(best, schedulers=1)
        if best.apis > 1:
            yield replace(best, apis=1)
        if best.conductors > 1:
            yield replace(best, conductors=1)


def rules_of(result: Result) -> frozenset[str]:
    """The rules that were broken: a violation without what broke it."""
    return frozenset(": ".join(text.split(": ")[:2]) for text in result.violations)
