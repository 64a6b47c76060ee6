"""The database of a simulation: the real store on SQLite in memory, as each service sees it from a distance.

A transaction is begun some moments after it was asked for, and its answer takes some moments more; a service
may be killed or give up in between. The database is not part of any service: what reached it happens.
"""

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from kilonova.model.errors import Unavailable
from kilonova.sim.faults import Faults
from kilonova.sim.history import History
from kilonova.sim.loop import Life, SimulatedLoop
from kilonova.sim.outages import Outage
from kilonova.store.engine import Store, TxFunction
from kilonova.store.transactions import Tx

HELD_S = 60.0
"""The longest that a transaction is on its way: by then its task is in other hands."""

AWAY_S = (1.0, 30.0)
"""How long a database is away that is started again."""

INSISTS_S = (1.5, 5.0)
"""How long the store tries again by itself before it gives up."""

Change = tuple[str, str, str | None, Any]
"""A server's id, vm_state and task_state now, and when it was deleted."""

_NOTE = "note_change(new.id, new.vm_state, new.task_state, new.deleted_at)"

Note = tuple[Any, ...]
"""A name of `_NOTES`, and what is told of the row."""

_NOTES = {
    "ended": (
        "UPDATE OF outcome ON tasks WHEN old.outcome IS NULL AND new.outcome IS NOT NULL",
        "new.id, new.kind, new.subject, new.outcome, new.epoch, old.payload",
    ),
    "removed": (
        "INSERT ON task_steps WHEN new.result <> 'retry'"
        " AND (new.step = 'destroy' OR new.step = 'spawn' AND new.undoing)",
        "(SELECT subject FROM tasks WHERE id = new.task_id), new.host, new.result",
    ),
    "report": ("UPDATE OF report ON hosts", "new.name"),
    "host": (
        "UPDATE OF is_up ON services WHEN new.service = 'compute' AND new.is_up <> old.is_up",
        "new.host, new.is_up",
    ),
}
"""A task ended; a guest was removed by a step or an undo, or that was given up; a host reported; it went down or
came up."""

T = TypeVar("T")
P = ParamSpec("P")


class SimulatedDatabase:
    """The one database of a run."""

    def __init__(self, loop: SimulatedLoop, faults: Faults, history: History) -> None:
        self.store = Store.open("sqlite://", inline=True)
        self.store.create_all()
        self.loop = loop
        self.faults = faults
        self.history = history
        self.outage = Outage("database", loop, history)
        self.doom: Callable[[Life, float], None] = _nothing
        """Kills a life in so many seconds."""
        self.after_commit: list[Callable[[str], None]] = []
        """Called after each transaction that wrote, with the name of its function."""
        self.changes: list[Change] = []
        """What became of servers' states in the transaction that was committed last."""
        self.noted: list[Note] = []
        """What else of interest it wrote."""
        with self.store.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.create_function("note_change", 4, lambda *change: self.changes.append(change))
            for event in ("INSERT", "UPDATE OF vm_state, task_state, deleted_at"):
                name = f"note_{event.partition(' ')[0].lower()}"
                raw.execute(f"CREATE TEMP TRIGGER {name} AFTER {event} ON servers BEGIN SELECT {_NOTE}; END")
            raw.create_function("note", -1, lambda *told: self.noted.append(told))
            for name, (event, what) in _NOTES.items():
                raw.execute(f"CREATE TEMP TRIGGER note_{name} AFTER {event} BEGIN SELECT note('{name}', {what}); END")

    def connect(self, life: Life) -> "SimulatedStore":
        """The store as `life` has it."""
        return SimulatedStore(self, life)

    def close(self) -> None:
        """Forget everything."""
        self.store.engine.dispose()


def _nothing(life: Life, seconds: float) -> None:
    """Nobody is killed."""


class SimulatedStore(Store):
    """One service's way to the database."""

    def __init__(self, database: SimulatedDatabase, life: Life) -> None:
        engine = database.store.engine
        super().__init__(engine, engine, inline=True)
        self._database = database
        self._life = life

    async def run(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        faults = self._database.faults
        await self._reach()
        result: T = await self._ask(fn, args, kwargs, reads=False)
        if faults.strikes("database.unknown"):
            await asyncio.sleep(faults.between(0.01, 10))
            raise Unavailable(_UNKNOWN)
        return result

    async def read(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._reach()
        result: T = await self._ask(fn, args, kwargs, reads=True)
        return result

    async def _reach(self) -> None:
        faults, outage = self._database.faults, self._database.outage
        if faults.strikes("database.refuse"):
            await asyncio.sleep(faults.between(0.01, 10))
            raise Unavailable("The database is busy or cannot be reached: it was made so.")
        if faults.strikes("database.away"):
            outage.begin(faults.between(*AWAY_S))
        if outage.is_on:
            await asyncio.sleep(faults.between(*INSISTS_S))
            if outage.is_on:
                raise Unavailable(_AWAY)

    async def _ask(self, fn: Callable[..., Any], args: Any, kwargs: Any, *, reads: bool) -> Any:
        loop, faults = self._database.loop, self._database.faults
        context = contextvars.copy_context()
        answer: asyncio.Future[Any] = loop.create_future()
        way = faults.between(0.5, 8) if faults.strikes("database.slow") else faults.latency()
        if not reads and faults.strikes("database.held"):
            way = faults.between(8, HELD_S)

        if not reads and faults.strikes("kill.at_write"):
            # Before the transaction, after it and before its answer, or soon after that.
            self._database.doom(self._life, faults.between(0, 3 * way))

        def work(tx: Tx) -> Any:
            return context.run(fn, tx, *args, **kwargs)

        loop.later(way, self._begin, work, _name(fn), answer, reads)
        return await answer

    def _begin(self, work: Callable[[Tx], Any], name: str, answer: "asyncio.Future[Any]", reads: bool) -> None:
        database = self._database
        # Whoever asked is gone: its connection may break before the database hears of it, or after.
        if (self._life.is_over or answer.done()) and (reads or not database.faults.strikes("database.late")):
            return
        error: Exception | None = Unavailable(_AWAY) if database.outage.is_on else None
        result, outages = None, database.outage.number
        database.changes.clear()
        database.noted.clear()
        if error is None:
            attempt = partial(_in_vain, work) if database.faults.strikes("database.again") else work
            try:
                result = self._alone(attempt, begin="BEGIN" if reads else "BEGIN IMMEDIATE")
            except _RolledBack:
                if database.faults.one_of(2):
                    database.history.add("rolled back, and run again", name, "for", self._life.name)
                    pause = database.faults.between(0.005, 0.5)
                    database.loop.later(pause, self._begin, work, name, answer, reads)
                    return
                error = Unavailable("The database is busy or cannot be reached: it rolled back at COMMIT.")
            except Exception as raised:
                error = raised
        if not reads:
            database.history.add("commit" if error is None else "rollback", name, "for", self._life.name)
            if error is None:
                for hook in database.after_commit:
                    hook(name)
        database.loop.later(database.faults.latency(), self._answer, answer, result, error, outages)

    def _answer(self, answer: "asyncio.Future[Any]", result: Any, error: Exception | None, outages: int) -> None:
        if answer.done():
            return
        if error is None and outages != self._database.outage.number:
            error = Unavailable(_UNKNOWN)
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)


_AWAY = "The database is busy or cannot be reached: it is being started again."

_UNKNOWN = "The database went away while it wrote: it is not known whether that was kept."


class _RolledBack(Exception):
    """All was done, and nothing is kept."""


def _in_vain(work: Callable[[Tx], Any], tx: Tx) -> Any:
    work(tx)
    raise _RolledBack


def _name(fn: Callable[..., Any]) -> str:
    inner = getattr(fn, "func", fn)
    return str(getattr(inner, "__qualname__", type(inner).__name__))
