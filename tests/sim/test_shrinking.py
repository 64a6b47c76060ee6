"""A failing run is made shorter, and the shorter one is a plan that replays by its command line."""

import pytest
from tests.sim.breakages import BREAKAGES

from kilonova.cli.main import build_parser
from kilonova.sim.campaign import run_until_broken
from kilonova.sim.faults import RATES, LeftOut, kinds_of, shortest
from kilonova.sim.plan import Plan
from kilonova.sim.shrink import rules_of, shrink


@pytest.mark.parametrize("text", ["", "3", "3,7-9", "41-", "1-2,5,9-"])
def test_what_is_left_out_reads_as_it_is_written(text: str) -> None:
    assert str(LeftOut.parse(text)) == text


def test_a_range_without_an_end_goes_on_forever() -> None:
    left_out = LeftOut.parse("3,40-")
    assert [number for number in (1, 3, 39, 40, 10_000) if number in left_out] == [3, 40, 10_000]


@pytest.mark.parametrize("names", ["all", "none", "kill", "kill.api,messages", "kill,pauses,messages.lose"])
def test_names_of_faults_read_as_they_are_written(names: str) -> None:
    assert shortest(kinds_of(names.split(","))) == names


def test_an_unknown_fault_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="There are: all, none, kill"):
        kinds_of(["kil"])
    assert set(kinds_of(["all"])) == set(RATES)


def test_a_failing_run_becomes_shorter_and_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    breakage = next(one for one in BREAKAGES if one.name == "ports are not given back")
    breakage.apply(monkeypatch)
    plan = breakage.plan(1)
    failing = run_until_broken(plan)
    assert failing.violations
    said: list[str] = []
    best, result = shrink(failing, plan, run_until_broken, most=25, say=said.append)
    assert rules_of(result) & rules_of(failing)
    assert result.events < failing.events and sum(result.struck.values()) < sum(failing.struck.values())
    assert said
    # The command line that is told says the same plan.
    again = _planned(best.command())
    assert run_until_broken(again).history_hash == result.history_hash


def _planned(command: str) -> Plan:
    args = build_parser().parse_args(command.split()[1:])
    return Plan(
        seed=args.seed,
        hosts=args.hosts,
        servers=args.servers,
        faults=kinds_of(args.faults.split(",")),
        conductors=args.conductors,
        schedulers=args.schedulers,
        apis=args.apis,
        span_s=args.span,
        left_out=LeftOut.parse(args.without),
    )
