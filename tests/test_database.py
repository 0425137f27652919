"""Transactions: writing apart from reading, conflicts tried again, and the turns that writers take."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc
from flask import Flask
from sqlalchemy import Connection, delete, insert, text, update

import database as databases
from errors import AccountNotFound, DatabaseBusy
from extensions import db
from models.account import Account
from models.operation import Lease
from services import accounts, tokens
from settings import ROOT
from tests.servers import environment
from tests.waiting import soon

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"])


@pytest.fixture
def account(app: Flask) -> Iterator[str]:
    """An account, and an app context to work in."""
    with app.app_context():
        yield accounts.create_by_operator("acme", "Acme", None)[0].id


def rename(conn: Connection, account_id: str, name: str) -> None:
    conn.execute(text("UPDATE accounts SET name = :name WHERE id = :id"), {"name": name, "id": account_id})


def name_of(account_id: str) -> str:
    """As it is committed."""
    with databases.snapshot() as conn:
        return str(conn.execute(text("SELECT name FROM accounts WHERE id = :id"), {"id": account_id}).scalar_one())


def in_thread(app: Flask, work: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        with app.app_context():
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


# Writing and reading


def test_a_transaction_commits_at_its_end(account: str) -> None:
    with databases.transaction() as session:
        session.get_one(Account, account).name = "New"
        assert name_of(account) == "Acme"
    assert name_of(account) == "New"


def test_an_error_takes_everything_back_and_is_raised_as_it_is(account: str) -> None:

    def fail() -> None:
        with databases.transaction() as session:
            session.get_one(Account, account).name = "New"
            session.flush()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert name_of(account) == "Acme"
    with databases.connection() as conn:
        rename(conn, account, "Next")
    assert name_of(account) == "Next"


def test_the_reading_session_refuses_to_write(account: str) -> None:
    found = db.session.get_one(Account, account)
    found.name = "New"
    with pytest.raises(RuntimeError, match=r"db\.session only reads"):
        db.session.flush()
    db.session.rollback()
    db.session.add(Lease(name="x", holder="y"))
    with pytest.raises(RuntimeError, match=r"db\.session only reads"):
        db.session.commit()
    db.session.rollback()
    for statement in (update(Account).values(name="New"), delete(Lease), insert(Lease).values(name="x")):
        with pytest.raises(RuntimeError, match=r"db\.session only reads"):
            db.session.execute(statement)
    assert name_of(account) == "Acme"


def test_what_was_read_before_a_write_is_read_anew_after_it(account: str) -> None:
    found = db.session.get_one(Account, account)
    assert found.name == "Acme"
    with databases.connection() as conn:
        rename(conn, account, "New")
    assert db.session.get_one(Account, account).name == "New"


def test_what_was_read_during_a_write_is_read_anew_after_it(account: str) -> None:
    """An attribute that is loaded late reads through `db.session` amid the transaction."""
    seen = db.session.get_one(Account, account)
    with databases.transaction() as session:
        session.execute(update(Account).values(name=f"not {seen.name}"))
    assert accounts.get(account).name == "not Acme"


def test_a_write_transaction_inside_another_is_an_error_and_not_a_wait(app: Flask, account: str) -> None:
    """On SQLite it would wait for itself for ever; on PostgreSQL for the first row that both touch."""
    with databases.connection() as conn:
        rename(conn, account, "Outer")
        with (
            pytest.raises(RuntimeError, match="a write transaction inside a write transaction"),
            databases.connection() as inner,
        ):
            rename(inner, account, "Inner")
    assert name_of(account) == "Outer"
    done: list[str] = []

    def write() -> None:
        with databases.connection() as conn:
            rename(conn, account, "Later")
        done.append("Later")

    in_thread(app, write).join(120)
    assert done == ["Later"], "the lock was left taken"


def test_a_snapshot_sees_one_moment(account: str) -> None:
    with databases.snapshot() as conn:
        query = text("SELECT name FROM accounts WHERE id = :id")
        assert conn.execute(query, {"id": account}).scalar_one() == "Acme"
        with databases.connection() as writer:
            rename(writer, account, "New")
        assert conn.execute(query, {"id": account}).scalar_one() == "Acme"
    assert name_of(account) == "New"


def test_nothing_written_in_a_snapshot_stays(account: str) -> None:
    with databases.snapshot() as conn:
        rename(conn, account, "New")
    assert name_of(account) == "Acme"


def test_a_value_that_must_be_unique_and_is_taken_is_told_apart(account: str) -> None:
    insert = text("INSERT INTO leases (name, holder, expires_at) SELECT 'x', 'y', created_at FROM accounts")

    def twice() -> None:
        with databases.connection() as conn:
            conn.execute(insert)
            conn.execute(insert)

    def copy() -> None:
        with databases.transaction() as session:
            found = session.get_one(Account, account)
            session.add(Account(**{**columns(found), "id": "acc_other"}))

    with pytest.raises(databases.Duplicate):
        twice()
    with databases.snapshot() as conn:
        assert conn.execute(text("SELECT count(*) FROM leases")).scalar_one() == 0
    with pytest.raises(databases.Duplicate):
        copy()
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="debt"), databases.connection() as conn:
        conn.execute(text("UPDATE accounts SET debt = -1"))


def columns(row: Any) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def test_two_who_create_the_same_account_at_once_get_the_same_one(app: Flask) -> None:
    together = threading.Barrier(4)
    made: list[tuple[str, bool]] = []

    def create() -> None:
        together.wait(120)
        found, new = accounts.create_by_operator("acme", "Acme", None)
        made.append((found.id, new))

    threads = [in_thread(app, create) for _ in range(4)]
    for thread in threads:
        thread.join(120)
    assert len(made) == 4
    assert len({account_id for account_id, _ in made}) == 1
    assert sorted(new for _, new in made) == [False, False, False, True]


# Trying again

Meet = Callable[[Connection], None]


@pytest.fixture
def meet_conflict(account: str) -> Iterator[Meet]:
    """Makes the transaction it is given meet a lock that another connection holds, or the other way round."""
    other = accounts.create_by_operator("other", "Other", None)[0].id
    raw = db.engine.raw_connection()
    cursor = raw.cursor()

    def on_sqlite(_conn: Connection) -> None:
        cursor.execute("PRAGMA busy_timeout = 0")
        cursor.execute("BEGIN IMMEDIATE")

    def on_postgresql(conn: Connection) -> None:
        cursor.execute("SELECT id FROM accounts WHERE id = %s FOR UPDATE", [other])
        conn.execute(text("SELECT id FROM accounts WHERE id = :id FOR UPDATE NOWAIT"), {"id": other})

    yield on_sqlite if db.engine.dialect.name == "sqlite" else on_postgresql
    raw.invalidate()


def test_a_conflict_is_tried_again_and_the_caller_sees_nothing_of_it(account: str, meet_conflict: Meet) -> None:
    tries = []

    @databases.retrying
    def work() -> str:
        with databases.connection() as conn:
            tries.append(1)
            rename(conn, account, f"try {len(tries)}")
            if len(tries) < 4:
                meet_conflict(conn)
        return "done"

    assert work() == "done"
    assert (len(tries), name_of(account)) == (4, "try 4")


def test_a_conflict_that_never_ends_is_given_up_soon(account: str, meet_conflict: Meet) -> None:
    tries = []

    @databases.retrying
    def work() -> None:
        with databases.connection() as conn:
            tries.append(1)
            rename(conn, account, "New")
            meet_conflict(conn)

    def give_up() -> None:
        tries.clear()
        with pytest.raises(DatabaseBusy) as refusal:
            work()
        assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "database_busy", 1)
        assert 2 <= len(tries) <= 10

    soon(give_up, 10)
    assert name_of(account) == "Acme"


@pytest.mark.parametrize("error", [ValueError("wrong"), databases.Duplicate()])
def test_what_another_try_would_not_cure_is_raised_at_once(account: str, error: Exception) -> None:
    tries = []

    @databases.retrying
    def work() -> None:
        with databases.connection():
            tries.append(1)
            raise error

    with pytest.raises(type(error)):
        work()
    assert len(tries) == 1


@ON_POSTGRESQL
def test_a_deadlock_of_two_transactions_is_resolved_unseen(app: Flask, account: str) -> None:
    other = accounts.create_by_operator("other", "Other", None)[0].id
    both_hold_one = threading.Barrier(2)
    tries: dict[str, int] = {"first": 0, "second": 0}
    failures: list[BaseException] = []

    @databases.retrying
    def cross(name: str, one: str, two: str) -> None:
        tries[name] += 1
        with databases.connection() as conn:
            rename(conn, one, f"{name_in(conn, one)}+{name}")
            if tries[name] == 1:
                both_hold_one.wait(120)
            rename(conn, two, f"{name_in(conn, two)}+{name}")

    def name_in(conn: Connection, account_id: str) -> str:
        query = text("SELECT name FROM accounts WHERE id = :id FOR UPDATE")
        return str(conn.execute(query, {"id": account_id}).scalar_one())

    def work(name: str, one: str, two: str) -> None:
        try:
            cross(name, one, two)
        except BaseException as error:
            failures.append(error)

    threads = [
        in_thread(app, lambda: work("first", account, other)),
        in_thread(app, lambda: work("second", other, account)),
    ]
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert max(tries.values()) > 1, "one of the two, if not both, was rolled back and did it again"
    for account_id, start in ((account, "Acme"), (other, "Other")):
        assert sorted(name_of(account_id).split("+")) == sorted([start, "first", "second"]), "each counted once"


@ON_POSTGRESQL
def test_a_connection_lost_before_the_commit_is_replaced_unseen(account: str) -> None:
    tries = []

    @databases.retrying
    def work() -> None:
        with databases.connection() as conn:
            tries.append(1)
            rename(conn, account, f"try {len(tries)}")
            if len(tries) == 1:
                terminate(conn)
                rename(conn, account, "never")

    work()
    assert (len(tries), name_of(account)) == (2, "try 2")


@ON_POSTGRESQL
def test_a_connection_lost_at_the_commit_is_never_tried_again(account: str) -> None:
    """Whether it was committed can not be known: a second try could count twice."""
    tries = []

    @databases.retrying
    def work() -> None:
        with databases.connection() as conn:
            tries.append(1)
            rename(conn, account, f"try {len(tries)}")
            terminate(conn)

    with pytest.raises(databases.OUTAGES):
        work()
    assert (len(tries), name_of(account)) == (1, "Acme")
    with databases.connection() as conn:
        rename(conn, account, "Next")
    assert name_of(account) == "Next"


def terminate(conn: Connection) -> None:
    """End the connection's backend from outside, and wait until it is gone."""
    pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with db.engine.connect() as other:
        assert other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid}).scalar_one()


# Writers of SQLite take turns

COUNT = """
import sys, time
from sqlalchemy import text
import database
from app import create_app

account, mine, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
def count():
    with database.connection() as conn:
        n = conn.execute(text("SELECT unfunded FROM accounts WHERE id = :id"), {"id": account}).scalar_one()
        conn.execute(text("UPDATE accounts SET unfunded = :n WHERE id = :id"), {"id": account, "n": n + 1})
        conn.execute(text("UPDATE leases SET expires_at = expires_at + 1 WHERE name = :me"), {"me": mine})

def progress():
    with database.snapshot() as conn:
        return conn.execute(text("SELECT expires_at FROM leases ORDER BY expires_at")).scalars().all()

with create_app().app_context():
    print("ready", flush=True)
    sys.stdin.readline()
    count()
    while not progress()[0]:
        time.sleep(0.001)
    for _ in range(times - 1):
        count()
    print(*progress(), flush=True)
"""
"""A process that adds one to a number many times, once all have begun, and then tells how far each process is."""

HOLD = """
import sys
from sqlalchemy import text
import database
from app import create_app

with create_app().app_context(), database.connection() as conn:
    conn.execute(text("UPDATE accounts SET name = 'Unfinished'"))
    print("ready", flush=True)
    sys.stdin.readline()
"""
"""A process that stops in the middle of a transaction."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(app: Flask, tmp_path: Path) -> Iterator[Start]:
    """Starts a script on the test's database and returns once it says that it is ready."""
    running: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            env=environment(tmp_path, app.config["SETTINGS"].database_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@ON_SQLITE
def test_processes_that_read_and_then_write_take_turns_and_lose_nothing(account: str, start: Start) -> None:
    times, names = 60, ["a", "b"]
    with databases.connection() as conn:
        for name in names:
            conn.execute(text("INSERT INTO leases (name, holder, expires_at) VALUES (:name, '', 0)"), {"name": name})
    processes = [start(COUNT, account, name, str(times)) for name in names]
    for process in processes:
        go(process)
    progress = [[int(count) for count in process.communicate(timeout=60)[0].split()] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with databases.snapshot() as conn:
        assert conn.execute(text("SELECT unfunded FROM accounts")).scalar_one() == times * len(names)
    assert max(progress) == [times, times]
    behind = min(progress)[0]
    assert behind >= times // 10, "one process had the lock to itself while the other waited"


@ON_SQLITE
def test_threads_that_read_and_then_write_take_turns_and_lose_nothing(app: Flask, account: str) -> None:
    def count() -> None:
        for _ in range(25):
            with databases.transaction() as session:
                session.get_one(Account, account).unfunded += 1

    threads = [in_thread(app, count) for _ in range(4)]
    for thread in threads:
        thread.join(120)
    with databases.snapshot() as conn:
        assert conn.execute(text("SELECT unfunded FROM accounts")).scalar_one() == 100


@ON_SQLITE
def test_however_many_wait_for_their_turn_the_one_who_has_it_gets_a_connection(app: Flask, account: str) -> None:
    many = 40
    started = threading.Barrier(many + 1)

    def write() -> None:
        started.wait()
        with databases.connection() as conn:
            conn.execute(text("UPDATE accounts SET name = name || '.'"))

    with databases.writers_turn():
        threads = [in_thread(app, write) for _ in range(many)]
        started.wait()
        time.sleep(0.3)  # so that they do wait
        with databases.connection() as conn:
            rename(conn, account, "First")
    for thread in threads:
        thread.join(60)
    assert name_of(account) == "First" + "." * many


@ON_SQLITE
def test_a_process_that_dies_in_a_transaction_lets_go_and_leaves_nothing(
    app: Flask, account: str, start: Start
) -> None:
    process = start(HOLD)
    with Path(f"{db.engine.url.database}.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    names: list[str] = []

    def write() -> None:
        with databases.connection() as conn:
            names.append(str(conn.execute(text("SELECT name FROM accounts")).scalar_one()))
            rename(conn, account, "Mine")

    waiting = in_thread(app, write)
    waiting.join(0.3)
    assert waiting.is_alive(), "two writers at once"
    assert name_of(account) == "Acme", "readers wait for no writer"
    process.kill()
    waiting.join(120)
    assert (names, name_of(account)) == (["Acme"], "Mine")


@ON_SQLITE
def test_every_connection_is_durable_and_keeps_its_references(account: str) -> None:
    with db.engine.connect() as reader, databases.connection() as writer:
        for conn in (reader, writer):
            told = [
                conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            assert told == ["wal", 2, 1]
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="FOREIGN KEY"), databases.connection() as conn:
        conn.execute(text("DELETE FROM accounts WHERE id = :id"), {"id": account})


# What a process remembers


def test_the_memory_of_a_process_is_emptied_before_it_grows_without_end(sqlite_app: Flask) -> None:
    with sqlite_app.app_context():
        facts = databases.memory("accounts")
        facts.update(dict.fromkeys(range(100_001), "x"))
        assert databases.memory("tokens") == {}
        assert databases.memory("accounts") == {}
        made, _ = accounts.create_by_operator("acme", "Acme", None)
        assert accounts.resolve("acme") == made.id
        assert databases.memory("accounts") == {"acme": made.id}


def test_an_absence_is_never_remembered(sqlite_app: Flask) -> None:
    with sqlite_app.app_context():
        assert tokens.identity("tok_none") is None
        with pytest.raises(AccountNotFound):
            accounts.resolve("acme")
        accounts.create_by_operator("acme", "Acme", None)
        assert accounts.resolve("acme").startswith("acc_")
