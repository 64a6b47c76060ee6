"""Limits of steps from the configuration."""

import pytest

from kilonova.conductor.tasks import KINDS
from kilonova.tasks.limits import LimitError, with_limits


def limits_of(texts: list[str]) -> dict[str, tuple[float, int]]:
    return {
        f"{kind.name}.{step.name}": (step.deadline_s, step.tries)
        for kind in with_limits(KINDS, texts)
        for step in kind.steps
    }


def test_a_step_has_the_time_and_the_tries_that_it_is_given() -> None:
    usual = limits_of([])
    given = limits_of(["server.boot.spawn=1800/6", "server.delete.destroy = 7.5".replace(" ", "")])
    assert given["server.boot.spawn"] == (1800.0, 6)
    assert given["server.delete.destroy"] == (7.5, usual["server.delete.destroy"][1])
    changed = {name for name in usual if usual[name] != given[name]}
    assert changed == {"server.boot.spawn", "server.delete.destroy"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("spawn", "not of the form"),
        ("server.boot.spwan=5", "nearest is 'server.boot.spawn'"),
        ("server.boot.spawn=0", "no time"),
        ("server.boot.spawn=5/0", "no try"),
        ("server.boot.spawn=-5", "not of the form"),
    ],
)
def test_what_is_no_limit_is_said(text: str, told: str) -> None:
    with pytest.raises(LimitError, match=told):
        with_limits(KINDS, [text])


def test_every_step_has_an_end() -> None:
    for kind in KINDS:
        for step in kind.steps:
            assert 0 < step.deadline_s < 3600 and 0 < step.tries < 50, f"{kind.name}.{step.name}"
