"""The store: which catalog is in force, across edits, broken files, processes and threads."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import delete, event, select

import clock
import database
import settings
from amounts import MICRO
from extensions import db
from models.catalog import CatalogState, CatalogVersion
from services import catalog
from services.catalog import source, store

ONE = '[product]\n"rate:page" = "per_unit=1"\n'
TWO = '[product]\n"rate:page" = "per_unit=2"\n'
BROKEN = "[product]\ncredit_name = \n"


@pytest.fixture
def file(app: Flask, tmp_path: Path) -> Iterator[Path]:
    """A catalog file of this test alone, and a database that never saw a catalog."""
    path = tmp_path / "catalog.toml"
    with app.app_context():
        before = settings.current()
        app.config["SETTINGS"] = dataclasses.replace(before, catalog_file=path)
        forget(app)
        with database.transaction() as session:
            session.execute(delete(CatalogVersion))
            session.execute(delete(CatalogState))
        yield path
        app.config["SETTINGS"] = before
        forget(app)


def forget(app: Flask) -> None:
    """As another process would see it: nothing remembered."""
    app.extensions.pop("catalog", None)


def unit_price() -> Decimal | None:
    rate = catalog.current().rate("page")
    return rate.per_unit if rate else None


def versions() -> list[int]:
    with db.engine.connect() as connection:
        return list(connection.scalars(select(CatalogVersion.id).order_by(CatalogVersion.id)))


def state() -> catalog.State:
    """Read in a session of its own, as each request has one."""
    db.session.remove()
    return catalog.state()


def change_settings(app: Flask, **changes: object) -> None:
    app.config["SETTINGS"] = dataclasses.replace(settings.current(), **changes)  # type: ignore[arg-type]


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement != "BEGIN":
            asked.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


class TestFirstUse:
    def test_writes_the_default_and_puts_it_in_force(self, file: Path) -> None:
        current = catalog.current()
        assert file.read_bytes() == source.DEFAULT.read_bytes()
        assert [current.version] == versions()
        assert current.plan("team", "year") is not None
        assert state().error is None

    def test_reads_the_file_that_is_there(self, file: Path) -> None:
        file.write_text(ONE)
        assert unit_price() == 1
        assert file.read_text() == ONE

    def test_broken_from_the_start_leaves_the_plan_free(self, file: Path) -> None:
        file.write_text(BROKEN)
        current = catalog.current()
        assert (current.version, current.plans, dict(current.rates)) == (0, (), {})
        assert current.plan("free") is not None
        assert "line 2" in (state().error or "")

    def test_a_folder_that_can_not_be_made_is_an_error_not_a_crash(self, app: Flask, file: Path) -> None:
        file.write_text("")
        change_settings(app, catalog_file=file / "sub" / "catalog.toml")
        assert catalog.current().version == 0
        assert "can not be created" in (state().error or "")

    @pytest.mark.usefixtures("file")
    def test_many_threads_at_once_store_one_version(self, app: Flask) -> None:
        seen: list[int] = []

        def use() -> None:
            with app.app_context():
                forget(app)
                seen.append(catalog.current().version)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert versions() == [seen[0]]
        assert set(seen) == {seen[0]}
        assert len(seen) == len(threads)


class TestSync:
    def test_an_edit_is_a_new_version_and_in_force_at_once(self, file: Path) -> None:
        file.write_text(ONE)
        first = catalog.sync()
        assert (first.changed, first.error, first.findings, unit_price()) == (True, None, (), 1)
        assert catalog.sync() == dataclasses.replace(first, changed=False)
        file.write_text(TWO)
        second = catalog.sync()
        assert (second.changed, unit_price()) == (True, 2)
        assert versions() == [first.version, second.version]

    def test_comments_and_order_are_no_change(self, file: Path) -> None:
        file.write_text(ONE + 'credit_name = "SPU"\n')
        catalog.sync()
        file.write_text('# new comment\n[product]\ncredit_name = "SPU"\n"rate:page" = "per_unit=1"\n')
        assert not catalog.sync().changed

    def test_going_back_to_an_old_content_is_a_new_version(self, file: Path) -> None:
        for text in (ONE, TWO, ONE):
            file.write_text(text)
            assert catalog.sync().changed
        assert len(versions()) == 3
        assert unit_price() == 1

    def test_mistakes_are_left_out_and_answered(self, file: Path) -> None:
        file.write_text(ONE + '"rate:chat" = "per_unit=x"\n[[prices]]\nid = "p"\nprice_type = "base"\n')
        result = catalog.sync()
        assert result.error is None
        assert {finding.object_id for finding in result.findings} == {"[product]", "p"}
        assert unit_price() == 1
        assert catalog.current().plans == ()

    def test_a_broken_file_changes_nothing_and_is_remembered_since_when(
        self, app: Flask, file: Path, tmp_path: Path
    ) -> None:
        hand = tmp_path / "now"
        hand.write_text("2026-11-21T10:00:00Z")
        before = settings.current().clock_file
        clock.configure(hand)
        try:
            file.write_text(ONE)
            good = catalog.sync()
            synced = state().synced_at
            file.write_text(BROKEN)
            hand.write_text("2026-11-21T11:00:00Z")
            bad = catalog.sync()
            hand.write_text("2026-11-21T12:00:00Z")
            catalog.sync()
            now = state()
            assert (bad.version, bad.changed, unit_price()) == (good.version, False, 1)
            assert bad.error is not None
            assert "line 2" in bad.error
            assert (now.error, now.synced_at) == (bad.error, synced)
            assert synced is not None
            assert now.error_since == synced + timedelta(hours=1)
            forget(app)
            assert unit_price() == 1
            file.write_text(TWO)
            assert catalog.sync().changed
            assert (state().error, state().error_since, unit_price()) == (None, None, 2)
        finally:
            clock.configure(before)

    def test_a_real_catalog_is_never_replaced_by_the_default(self, file: Path) -> None:
        file.write_text(ONE)
        catalog.sync()
        file.unlink()
        result = catalog.sync()
        assert result.error is not None
        assert "No such file" in result.error
        assert not file.exists()
        assert unit_price() == 1

    def test_the_default_is_written_again_where_it_is_in_force(self, file: Path) -> None:
        catalog.sync()
        file.unlink()
        result = catalog.sync()
        assert (result.error, result.changed, file.exists()) == (None, False, True)

    def test_two_at_once_store_a_content_once(self, app: Flask, file: Path) -> None:
        file.write_text(ONE)
        results: list[catalog.SyncResult] = []

        def run() -> None:
            with app.app_context():
                results.append(catalog.sync())

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(versions()) == 1
        assert sorted(result.changed for result in results) == [False] * 5 + [True]


class TestCurrent:
    def test_another_process_is_noticed_after_the_recheck(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_text(ONE)
        assert unit_price() == 1
        content = source.loads(TWO)
        catalog.keep("file", content)  # does not touch this process's memory
        assert unit_price() == 1
        monkeypatch.setattr(store, "RECHECK_SECONDS", 0.0)
        assert unit_price() == 2

    def test_a_fresh_one_asks_the_database_nothing(self, file: Path) -> None:
        file.write_text(ONE)
        first = catalog.current()
        with statements() as asked:
            assert catalog.current() is first
        assert asked == []

    def test_a_stale_one_asks_one_question(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file.write_text(ONE)
        first = catalog.current()
        monkeypatch.setattr(store, "RECHECK_SECONDS", 0.0)
        with statements() as asked:
            assert catalog.current() is first
        assert len(asked) == 1

    def test_while_one_thread_asks_the_others_go_on(
        self, app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file.write_text(ONE)
        first = catalog.current()
        monkeypatch.setattr(store, "RECHECK_SECONDS", 0.0)
        with app.extensions["catalog"].lock:  # somebody is asking
            assert catalog.current() is first


class TestPrecedence:
    def test_the_environment_where_the_file_is_silent(self, app: Flask, file: Path) -> None:
        change_settings(
            app,
            signup_credits=Decimal("12.5"),
            free_monthly_credits=Decimal(3),
            grace_days=2,
            credit_name="SPU",
        )
        file.write_text("")
        current = catalog.current()
        assert (current.signup_credits, current.free_monthly_credits) == (12_500_000, 3 * MICRO)
        assert (current.grace_days, current.credit_name) == (2, "SPU")

    def test_the_file_where_it_speaks(self, app: Flask, file: Path) -> None:
        change_settings(app, signup_credits=Decimal(12), alert_thresholds=(10,), suspend_days=99)
        file.write_text('[product]\nsignup_credits = 7\nalert_thresholds = "50"\nsuspend_days = 20\n')
        current = catalog.current()
        assert (current.signup_credits, current.alert_thresholds, current.suspend_days) == (
            7 * MICRO,
            (50,),
            20,
        )

    @pytest.mark.usefixtures("file")
    def test_an_untouched_default_leaves_the_environment_its_word(self, app: Flask) -> None:
        change_settings(app, signup_credits=Decimal(55), free_monthly_credits=Decimal(5))
        current = catalog.current()
        assert (current.signup_credits, current.free.included_credits) == (55 * MICRO, 5 * MICRO)


class TestLint:
    @pytest.mark.usefixtures("file")
    def test_clean(self) -> None:
        assert catalog.lint_file() == []

    def test_findings_of_the_file_itself_and_of_what_is_in_it(self, file: Path) -> None:
        file.write_text('plans = 1\n[product]\nsignup_credits = "x"\n[[prices]]\nid = "p1"\nprice_type = "base"\n')
        found = [finding.object_id for finding in catalog.lint_file()]
        assert found == ["catalog file", "[product]", "p1"]
        assert versions() == []

    def test_a_broken_file_is_the_only_finding(self, file: Path) -> None:
        file.write_text(BROKEN)
        (finding,) = catalog.lint_file()
        assert "line 2" in finding.message
