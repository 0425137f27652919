"""`make bench`: that it measures what it says. How fast anything is, is never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from rich.console import Console
from sqlalchemy import func, select

from benchmarks import __main__ as program
from benchmarks import fill, plan, stores
from benchmarks.figures import BenchmarkError
from benchmarks.rows import NAMES, ROWS
from benchmarks.targets import TARGETS
from extensions import db
from models.account import Account
from models.usage import UsageRecord
from services import people, verify
from settings import ROOT
from tests import factories


@pytest.mark.parametrize("kind", stores.KINDS)
def test_a_whole_round_measures_every_target_beside_what_it_is_divided_by(kind: str) -> None:
    names = [row.name for row in plan.one_round(kind, None, quick=False, full=True)]
    assert set(names) == {name for of, name in ROWS if of == kind}
    for target in TARGETS:
        if target.base and kind in target.kinds:
            assert {target.row, target.base} <= set(names)
        if target.row.startswith("full-"):
            assert names[names.index(target.row) - 1] == target.base


def test_chosen_rows_bring_what_they_are_divided_by() -> None:
    names = {row.name for row in plan.one_round("sqlite", ["batch-100"], quick=False, full=True)}
    assert names == {"bare", "batch-100", "raw-batch"}


@pytest.mark.parametrize(
    ("arguments", "records"),
    [
        ([], 5_000_000),
        (["--full", "0"], 0),
        (["--full", "100000"], 100_000),
        (["--quick"], 0),
        (["--quick", "--full", "200000"], 200_000),
    ],
)
def test_plain_runs_have_full_books_and_quick_ones_have_not(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], records: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert program._pace(program._arguments()).full == records


@pytest.mark.parametrize("arguments", [["--full", "99999"], ["--rows", "singel"], ["--rounds", "-1"]])
def test_wrong_use_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit, match="2"):
        program._arguments()


def test_books_are_filled_only_for_rows_that_are_on_them() -> None:
    few = {"sqlite": plan.one_round("sqlite", ["balance"], quick=False, full=True)}
    many = {"sqlite": plan.one_round("sqlite", ["full-balance"], quick=False, full=True)}
    assert not plan.has_full(few)
    assert plan.has_full(many)
    assert plan.needs(few, rounds=1, each=1, full=5_000_000).filling == 0
    assert plan.needs(many, rounds=1, each=1, full=5_000_000).gigabytes > 3
    soaked = plan.needs(few, rounds=1, each=1, full=0, soak=60)
    assert soaked.minutes > 60 and soaked.gigabytes > 3


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    plans = {"sqlite": plan.one_round("sqlite", None, quick=False, full=True)}
    pace = replace(program._WHOLE, full=10**12)
    with pytest.raises(BenchmarkError, match="too full"):
        program._announce(plans, pace, tmp_path, Console(stderr=True))


def test_old_records_are_books_that_add_up(sqlite_app: Flask) -> None:
    operator = factories.Api(sqlite_app, factories.service_token(sqlite_app))
    factories.account(sqlite_app, "fresh")
    assert operator.post("/accounts/fresh/grants", {"credits": 1000, "reason": "test"}).status == 201
    event = {"operation": "chat", "llm_model": "m", "source": "s", "subject": "u", "credits": 2}
    assert operator.post("/usage", {"account": "fresh", **event}).status == 201
    with sqlite_app.app_context():
        people.sign_up("person@example.com", factories.PASSWORD, "Person", "127.0.0.1")
        path = db.engine.url.database
        db.session.remove()
        db.engine.dispose()
        said: list[str] = []
        names = fill.fill(stores.sqlite_store(Path(str(path))), "fresh", "person@example.com", 7, 90, said.append)
        assert names == [f"old-{number:05d}" for number in range(1, 8)]
        assert said[0] == "0 of 630 old records"
        report = verify.verify()
        assert report.differences == []
        assert report.records >= 7 * 90
        assert people.log_in(fill.email(names[6]), factories.PASSWORD, "127.0.0.1") is not None
        _lie_in_three_periods(names[6])
    left = operator.get(f"/balance?account={names[6]}").json
    assert left["available"] == operator.get("/balance?account=fresh").json["available"] - 90 * 2


def _lie_in_three_periods(name: str) -> None:
    account = db.session.execute(select(Account).where(Account.external_id == name)).scalar_one()
    periods = Counter(
        db.session.execute(select(UsageRecord.period_start).where(UsageRecord.account_id == account.id)).scalars()
    )
    assert len(periods) == 3
    assert min(periods.values()) >= 20
    assert max(periods) == account.period_start
    strays = select(func.count()).where(UsageRecord.occurred_at < UsageRecord.period_start)
    assert db.session.execute(strays).scalar() == 0


@pytest.mark.slow
def test_a_short_run_measures_and_proves_its_books(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    asked = [
        "--quick",
        "--database",
        "sqlite",
        "--rounds",
        "1",
        "--seconds",
        "0.5",
        "--rows",
        "single-many,statement,page",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *asked, "--folder", str(tmp_path), "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GB free" in done.stderr
    assert "every balance exact, ledger verified" in done.stdout
    [sqlite] = json.loads(figures.read_text())["databases"]
    rows = {row["name"]: row["median"] for row in sqlite["rows"]}
    assert set(rows) == {"bare", "bare-sync", "single-many", "raw-single", "statement", "page"}
    assert rows["single-many"]["group"] >= 1
    assert "group" not in rows["page"]
    assert list(tmp_path.iterdir()) == [figures]
    assert rows.keys() <= set(NAMES)
