"""One engine, two ways in: `db.session` reads, `transaction()` writes.

On SQLite writers take a fair lock (one thread of the process, then one process by `flock`) around BEGIN IMMEDIATE,
because SQLite's own busy handler sleeps and polls, and because a transaction that reads before it writes can fail in
a way no busy timeout cures. On PostgreSQL rows are locked by the services, always in the order of their ids.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg
import sqlalchemy.exc
from flask import Flask, current_app
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import ORMExecuteState, Session

from amounts import EXACT
from errors import DatabaseBusy
from extensions import db

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 8
_CONFLICTS = ("40001", "40P01", "55P03")
"""PostgreSQL: serialization failure, deadlock, lock not available."""

OUTAGES = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    sqlite3.OperationalError,
)
"""What the drivers raise when the database can not answer; rendered as 503."""


UNREADABLE = (*OUTAGES, sqlalchemy.exc.ProgrammingError)
"""The same, and a schema that is not there."""


def comes_from_one(error: BaseException) -> bool:
    """Whether one of several items may have caused it: an outage is everybody's, and so is the end of the process."""
    return isinstance(error, Exception) and not isinstance(error, (DatabaseBusy, *OUTAGES))


class Duplicate(Exception):
    """A row with the same unique value was committed by somebody else meanwhile."""


class _Conflict(Exception):
    """The transaction was rolled back for a reason that a second try may not meet."""


def is_sqlite() -> bool:
    return db.engine.dialect.name == "sqlite"


_MEMORY_LIMIT = 100_000


def memory(name: str) -> dict[Any, Any]:
    """This process's memory of facts of this database that never change; emptied when it grows too large."""
    facts: dict[Any, Any] = current_app.extensions["memory"][name]
    if len(facts) > _MEMORY_LIMIT:
        facts.clear()
    return facts


def engine_options(url: str, threads: int) -> dict[str, Any]:
    """A pool as large as the threads that use it: a request may hold a reading and a writing connection."""
    options: dict[str, Any] = {"pool_size": 2 * threads + 4, "max_overflow": 8, "pool_timeout": 20}
    options["hide_parameters"] = True  # what people sent must not come out in an error's text
    options["pool_use_lifo"] = True  # the connection used last knows the statements and, on SQLite, the pages
    if url.startswith("sqlite"):
        options["connect_args"] = {"check_same_thread": False, "timeout": 10}
        # Writers that wait for their turn hold their connections; the one who has it must never wait for one of those.
        options["max_overflow"] = -1
    else:
        # Our arrays are of any length: left to itself the server plans such a statement anew each time, which takes
        # several times as long as running it.
        options["connect_args"] = {
            "connect_timeout": 5,
            "application_name": "spillway",
            "options": "-c timezone=UTC -c plan_cache_mode=force_generic_plan",
        }
    return options


def configure(app: Flask) -> None:
    """Prepare the engine's connections. Called once per app, after `db.init_app`."""
    with app.app_context():
        engine = db.engine
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            path = engine.url.database
            app.extensions["writer_lock"] = _FileLock(Path(f"{path}.lock")) if path else _NoLock()
        else:
            app.extensions["writer_lock"] = _NoLock()
        app.extensions["memory"] = defaultdict(dict)
        app.extensions["write_engine"] = engine.execution_options(spillway_write=True)
        isolation = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        app.extensions["snapshot_engine"] = engine.execution_options(**isolation)
    event.listen(db.session, "before_flush", _refuse_flush)
    event.listen(db.session, "do_orm_execute", _refuse_statement)


_SIZES = "wal_autocheckpoint=100000", "cache_size=-2000", "temp_store=MEMORY"
"""Pages of a log that nobody looks after (`write_ahead_log`) until a commit does; kilobytes for each connection, of
which a process may have dozens: the system remembers the pages too; and where a statement of many rows keeps what it
changes until it is over. In files, that was two fifths of all that was written."""


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000", *_SIZES):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.create_aggregate("decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]
    connection.create_function("decimal_add", 2, _decimal_add, deterministic=True)


def _decimal_add(one: str, other: str) -> str:
    """The sum of two of ExactDecimal's texts."""
    return str(EXACT.add(Decimal(one), Decimal(other)))


class _DecimalSum:
    """SQLite's aggregate over ExactDecimal's text, so that costs are summed without floats."""

    def __init__(self) -> None:
        self.total = Decimal(0)

    def step(self, value: str | None) -> None:
        if value is not None:
            self.total = EXACT.add(self.total, Decimal(value))

    def finalize(self) -> str:
        return str(self.total)


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("spillway_write")
    raw: Any = connection.connection.driver_connection  # SQLAlchemy's own way takes as long as a short transaction
    raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")


_ONLY_READS = "db.session only reads: write through database.transaction()"


def _refuse_flush(_session: Session, _context: object, _instances: object) -> None:
    raise RuntimeError(_ONLY_READS)


def _refuse_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError(_ONLY_READS)


class _FileLock:
    """Exclusive between threads and processes; a thread that has it can take it again. A process that dies lets go.

    `flock` on one descriptor excludes no other thread that uses it, hence the lock before it; a forked child must
    open its own descriptor, hence the process id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.RLock()
        self._times = 0
        self._descriptor: int | None = None
        self._pid = 0

    def is_taken(self) -> bool:
        """Whether another thread or process has it now."""
        if not self._threads.acquire(blocking=False):
            return True
        try:
            if not self._times:
                fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._open(), fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        finally:
            self._threads.release()
        return False

    def _open(self) -> int:
        if self._descriptor is None or self._pid != os.getpid():
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._pid = os.getpid()
        return self._descriptor

    def __enter__(self) -> None:
        self._threads.acquire()
        self._times += 1
        if self._times > 1:
            return
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX)
        except BaseException:
            self._times = 0
            self._threads.release()
            raise

    def __exit__(self, *_exception: object) -> None:
        assert self._descriptor is not None
        self._times -= 1
        if not self._times:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()


class _NoLock(nullcontext[None]):
    """PostgreSQL's: there, writers wait for each other's rows only."""

    def is_taken(self) -> bool:
        return False


class _OneAtATime(threading.local):
    """Refuses a write transaction inside another of the same thread: they could wait for each other for ever."""

    _writes = False

    @property
    def writes(self) -> bool:
        return self._writes

    def __enter__(self) -> None:
        if self._writes:
            raise RuntimeError("a write transaction inside a write transaction")
        self._writes = True

    def __exit__(self, *_exception: object) -> None:
        self._writes = False


_one_at_a_time = _OneAtATime()


def is_writing() -> bool:
    """Whether this thread is in a write transaction, with which others may be waiting."""
    return _one_at_a_time.writes


def writers_turn() -> _FileLock | _NoLock:
    """On SQLite the lock of all writers, on PostgreSQL nothing. `connection` takes it, also from within it."""
    turn: _FileLock | _NoLock = current_app.extensions["writer_lock"]
    return turn


@contextmanager
def connection() -> Iterator[Connection]:
    """One write transaction on a bare connection: committed at the end, rolled back on any error.

    Raises RuntimeError inside another one of this thread. What `db.session` has read so far, or reads meanwhile, is
    forgotten: it would be older than what is written here.
    """
    forget_reads()
    engine: Engine = current_app.extensions["write_engine"]
    with _one_at_a_time, engine.connect() as conn, writers_turn():
        conn.begin()
        try:
            yield conn
        except BaseException as error:
            _give_up(conn, error)
            raise
        conn.commit()
    forget_reads()


def forget_reads() -> None:
    """End what `db.session` reads: who waits for others must not keep a connection from them."""
    if db.session.registry.has():
        db.session.rollback()


def _give_up(conn: Connection, error: BaseException) -> None:
    """Roll back; raise _Conflict where nothing was committed and another try may succeed."""
    broken = getattr(conn.connection.driver_connection, "broken", False) if not conn.invalidated else True
    if broken:
        # The server went away before COMMIT was sent: the pool's other connections are as dead as this one.
        conn.invalidate()
        conn.engine.dispose()
        raise _Conflict from error
    conn.rollback()
    cause = getattr(error, "orig", error)
    if getattr(cause, "sqlstate", None) in _CONFLICTS:
        raise _Conflict from error
    if isinstance(cause, psycopg.errors.UniqueViolation) or _is_sqlite_duplicate(cause):
        raise Duplicate from error
    if isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause):
        raise _Conflict from error


def _is_sqlite_duplicate(cause: BaseException) -> bool:
    return isinstance(cause, sqlite3.IntegrityError) and "UNIQUE constraint failed" in str(cause)


@contextmanager
def snapshot() -> Iterator[Connection]:
    """A connection whose reads all see one moment; nothing can be written through it."""
    with current_app.extensions["snapshot_engine"].connect() as conn:
        conn.begin()
        yield conn


@contextmanager
def transaction() -> Iterator[Session]:
    """One write transaction with the ORM. Keep it short: no network, no mail, no hashing inside.

    Raises whatever the work raises, after a rollback. Functions that open one carry `@retrying`.
    """
    with connection() as conn, Session(bind=conn, autoflush=False, expire_on_commit=False) as session:
        yield session
        session.flush()


def retrying(function: Callable[P, T]) -> Callable[P, T]:
    """Run the function again, a bounded number of times, after a deadlock or a lost connection.

    Only for functions whose every effect is in their one transaction. Raises DatabaseBusy when the tries are used up.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return function(*args, **kwargs)
            except _Conflict:
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise DatabaseBusy()

    return run
