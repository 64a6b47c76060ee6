"""The store: runs transaction functions, each in one transaction, in worker threads.

On SQLite there is one writer at a time. Write transactions that wait together are run one after the
other, each in its own savepoint, and committed together: one fsync for all of them. That keeps full
durability (``synchronous=FULL``) fast. Reads go to other connections and see the last commit (WAL).

On PostgreSQL and MariaDB every transaction has its own connection from a small pool, and is run
again on deadlock, serialization failure, lock time-out or a lost connection.

Nothing here knows what the tables are for.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
import sqlalchemy as sa

from kilonova.base.log import get_logger
from kilonova.model.errors import Unavailable
from kilonova.store.tables.all import CELL, GLOBAL
from kilonova.store.transactions import Tx

T = TypeVar("T")
P = ParamSpec("P")
TxFunction = Callable[Concatenate[Tx, P], T]

log = get_logger(__name__)

MAX_GROUP = 64
"""Transactions committed together at most: bounds how long the first of them waits for the last."""

ATTEMPTS = 8
"""Runs of one transaction before a passing fault of the database is given up on."""


@dataclass
class _Waiting:
    work: Callable[[Tx], Any]
    done: Future[Any]


class Store:
    """A database, open. Made by `Store.open`."""

    def __init__(self, engine: sa.Engine, *, inline: bool) -> None:
        self._engine = engine
        self._inline = inline
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="store-read")
        self._writers: ThreadPoolExecutor | None = None
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self.commits = 0
        """Commits so far, and `transactions` the functions that they carried: their ratio is the grouping."""
        self.transactions = 0
        if inline:
            return
        if self._is_sqlite:
            self._writer = threading.Thread(target=self._write_forever, name="store-write", daemon=True)
            self._writer.start()
        else:
            self._writers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="store-write")

    @classmethod
    def open(cls, url: str, *, inline: bool = False) -> Store:
        """Open `url` (``sqlite:///path``, ``postgresql+psycopg://…``, ``mysql+pymysql://…``).

        Args:
            inline: run every transaction in the calling thread, as under a virtual clock.
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
            return cls(engine, inline=inline or in_memory)
        engine = sa.create_engine(
            url,
            json_serializer=dumps,
            json_deserializer=orjson.loads,
            pool_size=8,
            max_overflow=4,
            pool_pre_ping=True,
            pool_timeout=10,
        )
        return cls(engine, inline=inline)

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
            Unavailable: the database could not take it now, after several tries. Nothing was written.
            Whatever `fn` raises; nothing it wrote is kept.
        """
        work = _bound(fn, args, kwargs)
        if self._inline:
            return self._alone(work, begin="BEGIN IMMEDIATE")
        if self._writers is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._writers, self._alone, work)
        waiting = _Waiting(work, Future())
        self._queue.put(waiting)
        result: T = await asyncio.wrap_future(waiting.done)
        return result

    async def read(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(tx, *args, **kwargs)`` on one snapshot of the database. It must not write."""
        work = _bound(fn, args, kwargs)
        if self._inline:
            return self._alone(work)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._alone, work)

    def run_now(self, fn: TxFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` for callers outside an event loop: the command line and migrations."""
        return self._alone(_bound(fn, args, kwargs), begin="BEGIN IMMEDIATE")

    async def close(self) -> None:
        """Let what is queued finish, then let go of the database."""
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._writer.join)
        if self._writers is not None:
            self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()

    # ---- one transaction by itself ------------------------------------------------------------------

    def _alone(self, work: Callable[[Tx], T], begin: str = "BEGIN") -> T:
        for attempt in range(ATTEMPTS):
            try:
                with self._engine.connect() as connection:
                    if self._is_sqlite:
                        with _sqlite_transaction(connection, begin):
                            return work(Tx(connection))
                    with connection.begin():
                        return work(Tx(connection))
            except sa.exc.DBAPIError as error:
                if not _is_passing(error):
                    raise
                log.warning("transaction is run again", attempt=attempt + 1, cause=_cause(error))
                time.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311 - spreads contenders in real threads
            except sa.exc.TimeoutError:
                break
        raise Unavailable("The database is busy or cannot be reached.")

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
                    if not waiting.done.done():
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
                    results.append((waiting, None, error))
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


_PASSING_SQLSTATES = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "08000", "08003", "08006"}
_PASSING_MYSQL = {1205, 1213, 2006, 2013, 1020}


def _is_passing(error: sa.exc.DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    original = error.orig
    if getattr(original, "sqlstate", None) in _PASSING_SQLSTATES:
        return True
    args = getattr(original, "args", ())
    if args and args[0] in _PASSING_MYSQL:
        return True
    return "database is locked" in str(original) or "database table is locked" in str(original)


def _cause(error: sa.exc.DBAPIError) -> str:
    return str(error.orig)[:200]
