"""`flask backup FILE`: a copy that stands on its own, taken while the database is in use."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask

from app import create_app
from extensions import db
from services import backup, verify
from tests.databases import make_settings
from tests.factories import Api, service_token


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def opened(database: Path, instance: Path) -> Iterator[Flask]:
    """The app on that file."""
    app = create_app(make_settings(instance, f"sqlite:///{quote(str(database))}"))
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def run(app: Flask, target: Path) -> tuple[int, str]:
    """The command's exit code and everything it printed."""
    result = app.test_cli_runner().invoke(args=["backup", str(target)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def account(app: Flask) -> Api:
    operator = Api(app, service_token(app))
    assert operator.post("/accounts", {"external_id": "acme", "name": "Acme"}).status == 201
    return operator


def test_the_copy_is_one_file_that_has_everything(sqlite_app: Flask, tmp_path: Path) -> None:
    account(sqlite_app)
    target = tmp_path / "copy.db"
    assert run(sqlite_app, target) == (0, f"Backed up to {target}.\n")
    assert rows(target, "SELECT external_id FROM accounts") == [("acme",)]
    assert rows(target, "PRAGMA integrity_check") == [("ok",)]
    assert rows(target, "PRAGMA journal_mode") == [("delete",)]
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]


def test_the_copy_runs_in_place_of_the_original(sqlite_app: Flask, tmp_path: Path) -> None:
    operator = account(sqlite_app)
    target = tmp_path / "copy.db"
    assert run(sqlite_app, target)[0] == 0
    with opened(target, tmp_path / "restored") as restored:
        token = Api(restored, operator.token)
        assert token.get("/balance?account=acme").json["available"] == 100
        assert token.post("/usage", {"account": "acme", "credits": 1}).status == 201
        with restored.app_context():
            assert verify.verify().differences == []
    assert operator.get("/balance?account=acme").json["available"] == 100


def test_a_copy_taken_amid_writes_has_books_in_order(sqlite_app: Flask, tmp_path: Path) -> None:
    operator = account(sqlite_app)
    done = threading.Event()
    statuses: list[int] = []

    def spend() -> None:
        while not done.is_set():
            body = {"account": "acme", "credits": "0.01", "idempotency_key": f"key-{len(statuses)}"}
            statuses.append(operator.post("/usage", body).status)

    writer = threading.Thread(target=spend)
    writer.start()
    try:
        copies = []
        for number in range(3):
            before = len(statuses)
            copies.append((tmp_path / f"copy-{number}.db", before))
            assert run(sqlite_app, copies[-1][0])[0] == 0
    finally:
        done.set()
        writer.join(120)
    assert set(statuses) == {201}
    for path, before in copies:
        ((records,),) = rows(path, "SELECT count(*) FROM usage_records")
        assert before <= records <= len(statuses), "an answered request is missing from the copy"
        with opened(path, tmp_path / path.stem) as restored:
            with restored.app_context():
                report = verify.verify()
            assert (report.records, report.differences) == (records, [])


def test_an_existing_file_is_never_overwritten(sqlite_app: Flask, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    assert run(sqlite_app, target) == (2, f"error: {target} exists already\n")
    assert target.read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(sqlite_app: Flask, tmp_path: Path) -> None:
    target = tmp_path / "no" / "copy.db"
    assert run(sqlite_app, target) == (2, f"error: there is no folder {target.parent}\n")


def test_a_place_that_can_not_be_written_is_an_error_in_one_line_and_leaves_nothing(
    sqlite_app: Flask, tmp_path: Path
) -> None:
    """The name leaves no room for that of SQLite's journal beside it."""
    target = tmp_path / ("x" * 250)
    code, output = run(sqlite_app, target)
    assert code == 2
    assert output.startswith(f"error: {target} can not be written")
    assert output.count("\n") == 1
    assert list(tmp_path.glob("xxx*")) == []


def test_a_database_in_a_folder_with_an_odd_name_is_copied(sqlite_app: Flask, tmp_path: Path) -> None:
    """`#`, `?` and `%` have a meaning in addresses."""
    folder = tmp_path / "50%41 #1"
    folder.mkdir()
    with sqlite_app.app_context():
        db.engine.dispose()
        shutil.copyfile(str(db.engine.url.database), folder / "spillway.db")
    with opened(folder / "spillway.db", tmp_path / "odd") as app:
        account(app)
        target = folder / "copy #2.db"
        assert run(app, target) == (0, f"Backed up to {target}.\n")
        assert rows(target, "SELECT external_id FROM accounts") == [("acme",)]


@pytest.mark.parametrize("database", ["postgresql"])
def test_postgresql_is_sent_to_its_own_tool(app: Flask, tmp_path: Path) -> None:
    code, output = run(app, tmp_path / "copy.db")
    assert code == 2
    assert "pg_dump" in output
    with app.app_context(), pytest.raises(ValueError, match="pg_dump"):
        backup.copy_to(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
