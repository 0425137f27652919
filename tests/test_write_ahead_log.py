"""SQLite's log is emptied beside the writers, and never grows for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.engine import make_url

import database as databases
import write_ahead_log
from extensions import db
from settings import ROOT
from tests import factories

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
_LONG = 100
"""Pages."""


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def account(app: Flask) -> str:
    return factories.account(app)


def log_of(app: Flask) -> int:
    """The size of the log's file, which is how long the log has been at most: in pages, roughly."""
    path = Path(f"{make_url(app.config['SQLALCHEMY_DATABASE_URI']).database}-wal")
    return path.stat().st_size // 4096


def write(account: str, pages: int) -> None:
    """Change one row again and again: each commit adds its page to the log."""
    for number in range(pages):
        with databases.connection() as conn:
            conn.execute(text("UPDATE accounts SET name = :name WHERE id = :id"), {"name": f"{number}", "id": account})


def name_of(account: str) -> str:
    with databases.snapshot() as conn:
        return str(conn.execute(text("SELECT name FROM accounts WHERE id = :id"), {"id": account}).scalar_one())


@ON_SQLITE
def test_a_long_log_begins_anew(app: Flask, account: str) -> None:
    before = log_of(app)
    for _ in range(6):
        write(account, 2 * _LONG)
        write_ahead_log.move(_LONG)
    assert log_of(app) < before + 3 * _LONG
    write(account, 3 * _LONG)
    write(account, 3 * _LONG)
    assert log_of(app) > before + 5 * _LONG, "nobody else shortens it so soon"
    assert name_of(account) == str(3 * _LONG - 1)


@ON_SQLITE
def test_it_is_kept_short_while_others_write_all_the_time(app: Flask, account: str) -> None:
    over = threading.Event()

    def writing() -> int:
        with app.app_context():
            rounds = 0
            while not over.is_set():
                write(account, 20)
                rounds += 20
            return rounds

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(writing) for _ in range(2)]
        try:
            for _ in range(40):
                time.sleep(0.05)
                write_ahead_log.move(_LONG)
        finally:
            over.set()
        written = sum(writer.result() for writer in writers)
    assert log_of(app) < max(written / 2, 6 * _LONG)


@ON_SQLITE
def test_who_reads_an_older_moment_is_not_disturbed_and_delays_it_only(app: Flask, account: str) -> None:
    write(account, 5)
    with databases.snapshot() as reader:
        seen = text("SELECT name FROM accounts")
        assert reader.execute(seen).scalar_one() == "4"
        write(account, 2 * _LONG)
        write_ahead_log.move(_LONG)
        assert reader.execute(seen).scalar_one() == "4"
    write_ahead_log.move(_LONG)
    size = log_of(app)
    write(account, _LONG)
    assert log_of(app) == size, "it has begun anew"


@ON_SQLITE
def test_while_the_disk_takes_it_others_write(app: Flask, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may take long, for the pages lie far apart."""
    disk, written = os.fdatasync, []

    def in_context() -> None:
        with app.app_context():
            write(account, 10)

    def slow_disk(descriptor: int) -> None:
        writer = threading.Thread(target=in_context)
        writer.start()
        writer.join(60)
        written.append(name_of(account))
        disk(descriptor)

    write(account, 2 * _LONG)
    monkeypatch.setattr(os, "fdatasync", slow_disk)
    write_ahead_log.move(_LONG)
    assert written == ["9", "9"]


@ON_SQLITE
def test_while_somebody_else_moves_it_nobody_waits(app: Flask, account: str) -> None:
    write(account, 2 * _LONG)
    other = db.engine.raw_connection()
    try:
        other.cursor().execute("BEGIN IMMEDIATE")
        write_ahead_log.move(10 * _LONG)
    finally:
        other.cursor().execute("ROLLBACK")
        other.close()
    assert name_of(account) == str(2 * _LONG - 1)


def test_one_process_looks_after_it_and_another_when_that_one_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "books.db.log-lock")
    holds = "import sys, time, write_ahead_log as log\nwith log.alone(sys.argv[1]): print(flush=True); time.sleep(600)"
    turn = threading.Event()

    def wait() -> None:
        with write_ahead_log.alone(path):
            turn.set()

    with subprocess.Popen([sys.executable, "-c", holds, path], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not turn.wait(0.5)
        other.kill()
    assert turn.wait(60)
    waiting.join()


@pytest.mark.parametrize("database", ["postgresql"])
def test_postgresql_has_its_own(app: Flask) -> None:
    write_ahead_log.keep_short(app)
    assert "write-ahead-log" not in {thread.name for thread in threading.enumerate()}
