"""The store: runs transaction functions, each in one transaction, in worker threads.

On SQLite there is one writer at a time. Write transactions that wait together are run one after the
other, each in its own savepoint, and committed together: one fsync for all of them. That keeps full
durability (``synchronous=FULL``) fast. Reads go to other connections and see the last commit (WAL).

On PostgreSQL and MariaDB every transaction has its own connection from a small pool, and is run again on deadlock,
serialization failure, lock time-out, or a connection lost before its commit. Writers see what others have
committed (READ COMMITTED: all races are decided by conditional writes and unique keys), readers one snapshot
(REPEATABLE READ). If the connection is lost while a commit is under way, nobody knows whether it happened: the
function is not run again, and the caller is told so.

Nothing here knows what the tables are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
import sqlalchemy as sa

from kilonova.base.log import get_logger
from kilonova.model.errors import AlreadyExists, Unavailable
from kilonova.store.tables.all import CELL, GLOBAL
from kilonova.store.transactions import Tx

T = TypeVar("T")
P = ParamSpec("P")
TxFunction = Callable[Concatenate[Tx, P], T]

log = get_logger(__name__)

MAX_GROUP = 64
"""Transactions committed together at most: bounds how long the first of them waits for the last."""

ATTEMPTS = 8
"""Runs of one transaction before a passing fault of the database is given up on: some five seconds."""

READERS, WRITERS = 4, 6
"""Threads of one process, and connections to PostgreSQL or MariaDB."""

PATIENCE_S = 20.0
"""How long a transaction may take in all on PostgreSQL or MariaDB, waiting for its turn included."""


@dataclass
class _Waiting:
    work: Callable[[Tx], Any]
    done: Future[Any]


class _Turn:
    """One transaction in a thread, and its caller, who may give up at any moment.

    A server that hangs holds its threads until it wakes: who gave up is told at once whether anything may be kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_committing = False
        self._is_given_up = False

    def may_go_on(self, *, to_commit: bool = False) -> bool:
        """Asked by the thread before each run, and before the commit."""
        with self._lock:
            self._is_committing = to_commit and not self._is_given_up
            return not self._is_given_up

    def give_up(self) -> bool:
        """Asked by the caller: whether it is sure that nothing is kept."""
        with self._lock:
            self._is_given_up = True
            return not self._is_committing


class Store:
    """A database, open. Made by `Store.open`."""

    def __init__(self, engine: sa.Engine, reading: sa.Engine, *, inline: bool, patience_s: float = PATIENCE_S) -> None:
        self._engine = engine
        self._reading = reading
        self._is_closed = False
        self._inline = inline
        self._patience_s = patience_s
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="store-read")
        self._writers: ThreadPoolExecutor | None = None
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._glances: sa.Connection | None = None
        self.commits = 0
        """Commits so far, and `transactions` the functions that they carried: their ratio is the grouping."""
        self.transactions = 0
        if inline:
            return
        if self._is_sqlite:
            self._writer = threading.Thread(target=self._write_forever, name="store-write", daemon=True)
            self._writer.start()
        else:
            self._writers = ThreadPoolExecutor(max_workers=WRITERS, thread_name_prefix="store-write")

    @classmethod
    def open(cls, url: str, *, inline: bool = False, patience_s: float | None = PATIENCE_S) -> Store:
        """Open `url` (``sqlite:///path``, ``postgresql+psycopg://…``, ``mysql+pymysql://…``).

        Args:
            inline: run every transaction in the calling thread, as under a virtual clock.
            patience_s: how long a transaction may take on a server, in seconds. None: no statement is bounded,
                for migrations.
        """
        dumps = _dump_json
        if url.startswith("sqlite"):
            in_memory = url in ("sqlite://", "sqlite:///:memory:")
            engine = sa.create_engine(
                url,
                json_serializer=dumps,
                json_deserializer=orjson.loads,
                isolation_level="AUTOCOMMIT",  # we say BEGIN ourselves, to say IMMEDIATE
                poolclass=sa.StaticPool if in_memory else sa.QueuePool,
                **({} if in_memory else {"pool_size": 8, "max_overflow": 8}),
                connect_args={"check_same_thread": False, "timeout": 30},
            )
            sa.event.listen(engine, "connect", _tune_sqlite)
            return cls(engine, engine, inline=inline or in_memory)
        writing, reading = (
            sa.create_engine(
                url,
                json_serializer=dumps,
                json_deserializer=orjson.loads,
                isolation_level=level,
                pool_size=size,
                max_overflow=0,
                pool_timeout=10,
                pool_recycle=1800,
                pool_use_lifo=True,  # what is not needed any more can grow old and go
                hide_parameters=True,  # values may be secrets, and errors are logged
                connect_args=_connect_arguments(url, patience_s),
            )
            for level, size in (("READ COMMITTED", WRITERS), ("REPEATABLE READ", READERS))
        )
        return cls(writing, reading, inline=inline, patience_s=patience_s or PATIENCE_S)

    @property
    def engine(self) -> sa.Engine:
        """For migrations only."""
        return self._engine

    def create_all(self) -> None:
        """Make every table that is missing, without migrations: for tests."""
        with self._engine.begin() as connection:
            GLOBAL.create_all(connection)
            CELL.create_all(connection)

    async def run(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(tx, *args, **kwargs)`` in a transaction that writes, and return its result once it is durable.

        Raises:
            Unavailable: the database could not take it now, after several tries. Nothing was written, unless the
                message says that this is not known.
            AlreadyExists: a row with the same key came in between.
            Whatever `fn` raises; nothing it wrote is kept.
        """
        self._must_be_open()
        work = _bound(fn, args, kwargs)
        if self._inline:
            return self._alone(work, begin="BEGIN IMMEDIATE")
        if self._writers is not None:
            return await self._patiently(self._writers, work)
        waiting = _Waiting(work, Future())
        self._queue.put(waiting)
        result: T = await asyncio.wrap_future(waiting.done)
        return result

    async def read(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(tx, *args, **kwargs)`` on one snapshot of the database. It must not write.

        Raises:
            Unavailable: the database did not answer.
        """
        self._must_be_open()
        work = _bound(fn, args, kwargs)
        if self._inline:
            return self._alone(work, reads=True)
        return await self._patiently(self._readers, work, reads=True)

    async def glance(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, for a `fn` of one statement that finds one row by its key.

        On SQLite it is done in the calling thread: it takes less time than to change threads, and no writer is ever
        waited for.

        Raises:
            Unavailable: the database did not answer.
        """
        if not self._is_sqlite or self._inline:
            return await self.read(fn, *args, **kwargs)
        self._must_be_open()
        try:
            if self._glances is None:
                self._glances = self._reading.connect()
                self._glances.exec_driver_sql("PRAGMA busy_timeout=0")
            return fn(Tx(self._glances), *args, **kwargs)
        except sa.exc.DBAPIError:  # the whole file is locked for a moment: wait for it in a thread
            self._stop_glancing()
            return await self.read(fn, *args, **kwargs)

    def _stop_glancing(self) -> None:
        if self._glances is not None:
            self._glances.invalidate()
            self._glances.close()
            self._glances = None

    async def _patiently(self, threads: ThreadPoolExecutor, work: Callable[[Tx], T], *, reads: bool = False) -> T:
        turn = _Turn()
        running = asyncio.get_running_loop().run_in_executor(
            threads, partial(self._alone, work, reads=reads, turn=turn)
        )
        done, _ = await asyncio.wait([running], timeout=self._patience_s)
        if done:
            return await running
        is_sure = turn.give_up()
        running.cancel()  # what has not begun does not; what has sees that nobody waits
        if is_sure or reads:
            raise Unavailable(f"The database has not answered for {self._patience_s:g} s. Nothing was written.")
        raise Unavailable(_UNKNOWN)

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise Unavailable("This process is ending: its database is closed.")

    def run_now(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` for callers outside an event loop: the command line and migrations."""
        return self._alone(_bound(fn, args, kwargs), begin="BEGIN IMMEDIATE")

    async def close(self) -> None:
        """Let what is queued finish, then let go of the database."""
        self._is_closed = True
        self._stop_glancing()
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._writer.join)
        if self._writers is not None:
            self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()
        self._reading.dispose()

    # ---- one transaction by itself ------------------------------------------------------------------

    def _alone(
        self, work: Callable[[Tx], T], begin: str = "BEGIN", *, reads: bool = False, turn: _Turn | None = None
    ) -> T:
        engine = self._reading if reads else self._engine
        cause = "it is busy"
        for attempt in range(ATTEMPTS):
            if turn is not None and not turn.may_go_on():
                break
            try:
                with engine.connect() as connection:
                    if self._is_sqlite:
                        with _sqlite_transaction(connection, begin):
                            return work(Tx(connection))
                    return _in_transaction(connection, work, turn)
            except sa.exc.DBAPIError as error:
                if _is_duplicate(error):
                    raise _made_by_somebody_else() from error
                if not _is_passing(error):
                    raise
                cause = _cause(error)
                log.warning("transaction is run again", attempt=attempt + 1, cause=cause)
                time.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - spreads contenders in real threads
            except sa.exc.TimeoutError:
                break
        raise Unavailable(f"The database is busy or cannot be reached: {cause}")

    # ---- the writer of SQLite -----------------------------------------------------------------------

    def _write_forever(self) -> None:
        connection: sa.Connection | None = None
        while True:
            first = self._queue.get()
            if first is None:
                break
            group = [first]
            stopping = False
            while len(group) < MAX_GROUP:
                try:
                    further = self._queue.get_nowait()
                except queue.Empty:
                    break
                if further is None:
                    stopping = True
                    break
                group.append(further)
            try:
                connection = connection or self._engine.connect()
                self._commit_group(connection, group)
            except BaseException as error:
                # The connection's state is unknown: none of the group is durable.
                log.warning("commit failed", waiting=len(group), cause=str(error))
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
                for waiting in group:
                    # Its caller may give up at this very moment.
                    with contextlib.suppress(InvalidStateError):
                        waiting.done.set_exception(Unavailable(f"The database could not commit: {error}"))
            if stopping:
                break
        if connection is not None:
            connection.close()

    def _commit_group(self, connection: sa.Connection, group: list[_Waiting]) -> None:
        results: list[tuple[_Waiting, Any, BaseException | None]] = []
        with _sqlite_transaction(connection, "BEGIN IMMEDIATE"):
            for waiting in group:
                if not waiting.done.set_running_or_notify_cancel():
                    continue
                connection.exec_driver_sql("SAVEPOINT one")
                try:
                    results.append((waiting, waiting.work(Tx(connection)), None))
                except Exception as error:
                    connection.exec_driver_sql("ROLLBACK TO one")
                    duplicate = isinstance(error, sa.exc.DBAPIError) and _is_duplicate(error)
                    results.append((waiting, None, _made_by_somebody_else() if duplicate else error))
                connection.exec_driver_sql("RELEASE one")
        self.commits += 1
        self.transactions += len(results)
        for waiting, result, raised in results:
            if raised is not None:
                waiting.done.set_exception(raised)
            else:
                waiting.done.set_result(result)


def _bound(fn: Callable[..., T], args: Any, kwargs: Any) -> Callable[[Tx], T]:
    # The caller's context (request id, service) follows the function into its thread.
    context = contextvars.copy_context()
    return lambda tx: context.run(fn, tx, *args, **kwargs)


_UNKNOWN = "The database went away while it wrote: it is not known whether that was kept. Look, then repeat."


def _in_transaction(connection: sa.Connection, work: Callable[[Tx], T], turn: _Turn | None) -> T:
    """Run `work` and commit.

    Raises:
        Unavailable: it is not known whether the commit happened; or nobody waits for it any more.
    """
    transaction = connection.begin()
    try:
        result = work(Tx(connection))
    except BaseException:
        transaction.rollback()
        raise
    if turn is not None and not turn.may_go_on(to_commit=True):
        transaction.rollback()
        raise Unavailable("The database answered too late. Nothing was written.")
    try:
        transaction.commit()
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated or _is_lost(error):
            raise Unavailable(_UNKNOWN) from None
        raise
    return result


@contextmanager
def _sqlite_transaction(connection: sa.Connection, begin: str) -> Iterator[None]:
    connection.exec_driver_sql(begin)
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _tune_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "cache_size=-16000",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


_PASSING_SQLSTATES = {"40001", "40P01", "55P03"}
"""Of PostgreSQL: serialization failure, deadlock, lock not available."""

_LOST_SQLSTATES = ("08", "57P", "53300")
"""Beginnings: connection exceptions, shutdown, too many connections."""

_PASSING_MYSQL = {1205, 1213, 1020}
"""Of MariaDB: lock wait time-out, deadlock, record has changed since last read."""

_LOST_MYSQL = {1040, 1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055}
"""Of MariaDB: too many connections, shutdown, killed, cannot connect, gone away, lost."""


def _is_duplicate(error: sa.exc.DBAPIError) -> bool:
    """Whether a row with the same key came in between: looking first does not keep others from writing."""
    if not isinstance(error, sa.exc.IntegrityError):
        return False
    original = error.orig
    if getattr(original, "sqlstate", None) == "23505" or _number(error) == 1062:
        return True
    return str(original).startswith("UNIQUE constraint failed")


def _made_by_somebody_else() -> AlreadyExists:
    return AlreadyExists(detail="Somebody else made the same at the same moment.")


def _is_passing(error: sa.exc.DBAPIError) -> bool:
    """Whether the same transaction may well work in a moment."""
    original = error.orig
    if getattr(original, "sqlstate", None) in _PASSING_SQLSTATES or _number(error) in _PASSING_MYSQL:
        return True
    if "database is locked" in str(original) or "database table is locked" in str(original):
        return True
    return error.connection_invalidated or _is_lost(error)


def _is_lost(error: sa.exc.DBAPIError) -> bool:
    """Whether there is no connection any more, or none to be had."""
    if type(error.orig).__module__.startswith("psycopg"):
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # no answer from a server: there is none
            return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        return str(state).startswith(_LOST_SQLSTATES)
    return _number(error) in _LOST_MYSQL


def _number(error: sa.exc.DBAPIError) -> Any:
    """MariaDB's error number."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def _connect_arguments(url: str, patience_s: float | None) -> dict[str, Any]:
    """What bounds each wait on a connection; None: only its making, for migrations of large tables."""
    if url.startswith("postgresql"):
        arguments: dict[str, Any] = {"connect_timeout": 5, "application_name": "kilonova"}
        if patience_s is not None:
            bound_ms = int(patience_s * 1000)
            limits = {"statement_timeout": bound_ms, "lock_timeout": bound_ms // 2}
            limits["idle_in_transaction_session_timeout"] = 3 * bound_ms
            arguments["options"] = " ".join(f"-c {name}={value}" for name, value in limits.items())
            arguments |= {"tcp_user_timeout": bound_ms, "keepalives_idle": 10, "keepalives_interval": 5}
        return arguments
    arguments = {"connect_timeout": 5, "charset": "utf8mb4"}
    if patience_s is not None:
        whole_s = max(1, int(patience_s))
        arguments |= {"read_timeout": whole_s, "write_timeout": whole_s}
        arguments["init_command"] = f"SET SESSION innodb_lock_wait_timeout = {max(1, whole_s // 2)}"
    return arguments


def _cause(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).splitlines()[0][:200]
