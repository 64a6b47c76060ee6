"""What a long command shows while it works: steps with their times, live on a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from kilonova.base.clock import Clock


@dataclass(frozen=True)
class Done:
    """One step that has ended."""

    name: str
    seconds: float
    detail: str


class Step:
    """The step under way. Tell it what is going on; the last word stays as its result."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self.name = name
        self.detail = ""
        self._progress = progress

    def say(self, detail: str) -> None:
        """What is going on now."""
        if detail != self.detail:
            self.detail = detail
            self._progress.show(self)


class Progress:
    """Shows steps, and remembers them for the table at the end."""

    def __init__(self, clock: Clock, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, 120)  # a log file has no edge
        self.done: list[Done] = []
        self._clock = clock
        self._status: Status | None = None
        self._said_at = 0.0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step: shown from its beginning, timed, and kept when it ends well."""
        step = Step(self, name)
        started = self._said_at = self._clock.monotonic()
        try:
            with self.console.status(escape(name)) as status:
                self._status = status
                if not self.console.is_terminal:
                    self.console.print(f"  ... {name}", markup=False)
                yield step
        except BaseException:
            self.console.print(f"[red]failed[/] {escape(name)}: {escape(step.detail)}")
            raise
        finally:
            self._status = None
        seconds = self._clock.monotonic() - started
        self.done.append(Done(name, seconds, step.detail))
        self.console.print(f"[green]done[/] {seconds:6.1f} s  {escape(name)}: {escape(step.detail)}")

    def show(self, step: Step) -> None:
        """Bring what the step last said before the reader's eyes; in a log not more than every five seconds."""
        text = f"{escape(step.name)}: {escape(step.detail)}"
        if self._status is not None and self.console.is_terminal:
            self._status.update(text)
        elif self._clock.monotonic() - self._said_at >= 5:
            self._said_at = self._clock.monotonic()
            self.console.print(f"      {text}")

    def table(self, title: str) -> Table:
        """All steps that were done, with their times."""
        table = Table(title=title, title_justify="left")
        table.add_column("step", no_wrap=True)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("result", overflow="fold")
        for done in self.done:
            table.add_row(escape(done.name), f"{done.seconds:.1f}", escape(done.detail))
        table.add_section()
        table.add_row("all", f"{sum(done.seconds for done in self.done):.1f}", "")
        return table
