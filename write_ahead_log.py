"""SQLite's write-ahead log, moved to its place beside the writers.

Left to itself SQLite does that in the commit that makes the log too long, and everybody waits for the disk meanwhile.
Most of it needs no lock. What has come until then is little; it is moved while nobody writes, as only a log of which
everything has been moved begins anew, and else it would grow for ever. SQLite waits for the disk only when it has moved
everything, which is then; so the disk is given most of the pages before.
"""

from __future__ import annotations

import fcntl
import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flask import Flask

import database
from extensions import db

_PAUSE_SECONDS = 2
"""Long enough that most pages are written several times meanwhile, and moved once."""
LONG = 20_000
"""Pages of a log that shall begin anew."""


def keep_short(app: Flask) -> None:
    """Have a thread of this process look after the log once no other process does; with PostgreSQL there is none."""
    with app.app_context():
        if not database.is_sqlite() or not db.engine.url.database:
            return
    threading.Thread(target=_look_after, args=(app,), name="write-ahead-log", daemon=True).start()


def _look_after(app: Flask) -> None:
    with app.app_context(), alone(f"{db.engine.url.database}.log-lock"):
        while True:
            time.sleep(_PAUSE_SECONDS)
            with suppress(*database.OUTAGES, OSError):  # what could not be moved now can be next time
                move()


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Wait until every other process that has come so far is gone: two would move the same pages one after the other.

    The disk is what both would wait for, and with them the writers whose commits it is to keep.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def move(long: int = LONG) -> None:
    """Move what can be moved; where the log is long all of it, and let no writer in meanwhile."""
    if _move() > long:
        _write_out()
        _move()  # what came meanwhile, so that very little is left for which writers have to wait
        _write_out()
        with database.writers_turn():
            _move()


def _write_out() -> None:
    """Have the disk take what has been moved so far."""
    path = db.engine.url.database
    if path:
        os.fdatasync(_opened(path))


@functools.cache
def _opened(path: str) -> int:
    """The books' file, never closed: when a process closes a file, it loses its locks on it, SQLite's among them.

    https://www.sqlite.org/howtocorrupt.html, section 2.2.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _move() -> int:
    """How many pages the log has. It moves nothing where another process is about it."""
    borrowed = db.engine.raw_connection()
    try:
        is_busy, pages, _ = borrowed.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        borrowed.close()
    return 0 if is_busy else int(pages)
