"""Steps of a long command, as they are shown where nobody watches live."""

import io

import pytest
from rich.console import Console

from kilonova.cli.progress import Progress


class Watch:
    """A clock that is set by hand; only `monotonic` is asked for."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def test_steps_are_timed_and_listed() -> None:
    watch, output = Watch(), io.StringIO()
    progress = Progress(watch, Console(file=output, width=100))  # type: ignore[arg-type] # no other time is needed
    with progress.step("boil water") as step:
        watch.seconds += 2
        step.say("warm")
        watch.seconds += 4
        step.say("hot")
        step.say("boils [really]")
    lines = [line.strip() for line in output.getvalue().splitlines()]
    assert lines == ["... boil water", "boil water: hot", "done    6.0 s  boil water: boils [really]"]
    [done] = progress.done
    assert (done.name, done.seconds, done.detail) == ("boil water", 6.0, "boils [really]")
    progress.console.print(progress.table("Tea"))
    assert "boils [really]" in output.getvalue().partition("Tea")[2]


def test_a_step_that_fails_says_how_far_it_came_and_is_not_listed() -> None:
    output = io.StringIO()
    progress = Progress(Watch(), Console(file=output))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="burnt"), progress.step("toast") as step:
        step.say("in the toaster")
        raise ValueError("burnt")
    assert "failed toast: in the toaster" in output.getvalue()
    assert progress.done == []
