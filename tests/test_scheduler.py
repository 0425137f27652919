"""The scheduler: one process of the fleet runs the jobs, another takes over, and no job's error stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, text, update

import database as databases
from extensions import db
from jobs import registry
from jobs.scheduler import LEASE, Scheduler
from models.operation import JobRun, Lease
from settings import ROOT
from tests.servers import environment
from tests.waiting import until

PROCESS = """
import os, sys
from datetime import timedelta
from app import create_app
from jobs import registry, scheduler

def tick(_by_hand):
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
    return 1

def broken(_by_hand):
    raise RuntimeError("this job always fails")

registry.JOBS.clear()
registry.JOBS["broken"] = registry.Job("broken", 0.1, broken)
registry.JOBS["tick"] = registry.Job("tick", 0.1, tick)
here = scheduler.Scheduler(create_app(), ttl=timedelta(minutes=5), heartbeat=timedelta(seconds=0.2))
print("ready", flush=True)
here.run()
"""
"""A process of the fleet with two quick jobs: one notes its process, one fails. No busy machine outlasts its lease."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(app: Flask, tmp_path: Path) -> Iterator[Start]:
    """Starts a process on the test's database; whatever still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        with (tmp_path / f"log-{len(running)}").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment(tmp_path, app.config["SETTINGS"].database_url),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def lease(app: Flask) -> Lease | None:
    with app.app_context():
        return db.session.get(Lease, LEASE)


def job_run(app: Flask, name: str) -> JobRun | None:
    with app.app_context():
        return db.session.get(JobRun, name)


def test_one_process_runs_the_jobs_and_another_takes_over_when_it_is_killed(
    app: Flask, start: Start, tmp_path: Path
) -> None:
    ticks = tmp_path / "ticks"

    def who() -> list[int]:
        return [int(line) for line in ticks.read_text().splitlines()] if ticks.exists() else []

    first, second = (start("-c", PROCESS, str(ticks)) for _ in range(2))
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    count = len(who())
    until(lambda: len(who()) >= count + 5)
    leader, heir = (first, second) if who()[0] == first.pid else (second, first)
    assert set(who()) == {leader.pid}, "both run jobs"

    leader.kill()
    killed_at = datetime.now(UTC)
    held = lease(app)
    assert held is not None
    assert f":{leader.pid}:" in held.holder
    time.sleep(1)
    was_early = heir.pid in who()
    assert not was_early or datetime.now(UTC) >= held.expires_at, "the heir did not wait for the lease to run out"
    with app.app_context(), databases.transaction() as session:
        session.execute(update(Lease).values(expires_at=killed_at))
    until(lambda: who()[-1] == heir.pid)
    assert who() == sorted(who(), key=[leader.pid, heir.pid].index), "the dead came back"

    failure = job_run(app, "broken")
    assert failure is not None
    assert (failure.outcome, failure.detail) == ("error", "RuntimeError")
    count = len(who())
    until(lambda: len(who()) >= count + 3)
    success = job_run(app, "tick")
    assert success is not None
    assert (success.outcome, success.detail) == ("ok", "1")
    assert success.finished_at is not None
    assert killed_at < success.started_at <= success.finished_at

    heir.terminate()
    assert heir.wait(60) == 0
    assert lease(app) is None, "a clean end lets go of the lease"
    logs = [json.loads(line) for path in tmp_path.glob("log-*") for line in path.read_text().splitlines()]
    assert any(line["event"] == "job broken failed" and "this job always fails" in line["exception"] for line in logs)


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_scheduler_alone_takes_the_lease_and_ends_cleanly_when_told(
    app: Flask, start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("-m", "flask", "--app", "app", "scheduler", "run")
    held = until(lambda: lease(app))
    assert f":{process.pid}:" in held.holder
    process.send_signal(number)
    assert process.wait(60) == 0
    assert lease(app) is None
    assert "Traceback" not in (tmp_path / "log-0").read_text()


def test_making_an_app_starts_no_scheduler(sqlite_app: Flask) -> None:
    assert lease(sqlite_app) is None
    assert not any("APScheduler" in thread.name for thread in threading.enumerate())


# One job


@pytest.mark.parametrize("name", registry.JOBS)
def test_each_job_runs_on_an_empty_installation_and_is_remembered(app: Flask, name: str) -> None:
    before = datetime.now(UTC)
    result = registry.run(app, name)
    assert (result.outcome, result.name) == ("ok", name)
    assert result.detail is not None
    assert result.detail.isdigit()
    with app.app_context():
        remembered = registry.last_runs()
    assert list(remembered) == [name]
    assert remembered[name].outcome == "ok"
    assert before <= remembered[name].started_at <= remembered[name].finished_at


def sql(app: Flask, statement: str) -> None:
    with app.app_context(), databases.connection() as conn:
        conn.execute(text(statement))


def test_a_failed_run_is_kept_and_logged_and_the_next_one_replaces_it(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    sql(app, "ALTER TABLE lots RENAME TO hidden")
    result = registry.run(app, "expire-lots")
    assert result.outcome == "error"
    assert result.detail in ("OperationalError", "ProgrammingError")
    (line,) = [record for record in caplog.records if record.getMessage() == "job expire-lots failed"]
    assert line.levelname == "ERROR"
    assert line.exc_info is not None
    sql(app, "ALTER TABLE hidden RENAME TO lots")
    assert registry.run(app, "expire-lots").outcome == "ok"
    with app.app_context():
        rows = db.session.scalars(select(JobRun)).all()
    assert [(row.name, row.outcome) for row in rows] == [("expire-lots", "ok")]


def test_an_unknown_job_is_no_job(sqlite_app: Flask) -> None:
    with pytest.raises(KeyError):
        registry.run(sqlite_app, "make-coffee")


# One process of the fleet


def test_a_scheduler_without_its_database_does_not_lead_and_recovers(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    here = Scheduler(app)
    sql(app, "ALTER TABLE leases RENAME TO hidden")
    here.beat()
    assert "the scheduler's lease can not be read" in caplog.text
    assert "holds the lease" not in caplog.text
    sql(app, "ALTER TABLE hidden RENAME TO leases")
    here.beat()
    assert "scheduler holds the lease" in caplog.text
    held = lease(app)
    assert held is not None
    assert f":{os.getpid()}:" in held.holder
    here.stop()
    assert lease(app) is None


def test_of_two_schedulers_in_one_process_one_leads(sqlite_app: Flask) -> None:
    one, two = Scheduler(sqlite_app), Scheduler(sqlite_app)
    one.beat()
    first = lease(sqlite_app)
    two.beat()
    second = lease(sqlite_app)
    assert first is not None
    assert second is not None
    assert first.holder == second.holder
    one.stop()
    two.beat()
    third = lease(sqlite_app)
    assert third is not None
    assert third.holder != first.holder
    one.stop()
    assert lease(sqlite_app) is not None, "stopping again let go of another's lease"
    two.stop()
