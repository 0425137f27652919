"""Fixtures: real databases of both kinds under real migrations, the app on them, a movable clock, a fixed cast."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

import clock
from app import create_app
from extensions import db
from sandbox.server import Running
from services import passwords
from settings import Settings
from tests import databases, factories, run_folder, shared_work, stripe_world
from tests.moments import At
from tests.stripe_world import StripeWorld

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


shared_work.install()
# How long an example takes says how busy the machine is, not whether the answer is right.
hypothesis.settings.register_profile(
    "here", deadline=None, database=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    run_folder.make()


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches out to the network fails instead."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
            raise RuntimeError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def real_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Password hashes as slow as the product's; elsewhere in this process they are cheap."""
    monkeypatch.setattr(passwords, "_hasher", shared_work.REAL_HASHER)


@pytest.fixture(scope="session")
def sqlite_databases() -> databases.Sqlite:
    return databases.Sqlite(run_folder.mine() / "sqlite")


@pytest.fixture(scope="session")
def postgresql_databases() -> Iterator[databases.Postgresql]:
    root = databases.postgresql_root(run_folder.shared())
    server = databases.Postgresql(run_folder.mine() / "postgresql", root)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on: each, one after the other."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database: str) -> Iterator[str]:
    """The address of a migrated database that is this test's alone."""
    maker = request.getfixturevalue(f"{database}_databases")
    with maker.copy() as url:
        yield url


@pytest.fixture
def whole_window() -> None:
    """For tests that try until it is too often: tries are counted anew from each quarter of an hour on."""
    left = 900 - time.time() % 900
    if left < 30:
        time.sleep(left + 0.1)


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    """A CLOCK_FILE that the `at` fixture moves; it begins at a fixed moment."""
    path = tmp_path / "clock"
    path.write_text("2026-11-21T10:00:00Z")
    return path


@pytest.fixture
def at(clock_file: Path) -> Iterator[At]:
    """Moves the business clock: `at("2026-12-01T00:00:00Z")`, `at.forward(days=1)`. Without it time is real."""
    clock.configure(clock_file)
    yield At(clock_file)
    clock.configure(None)


@pytest.fixture
def sandbox(clock_file: Path, at: At) -> Iterator[Running]:
    """A stand-in for Stripe under the test's clock; the app of the test has its key and its address."""
    with stripe_world.serve(clock_file) as running:
        yield running


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Settings:
    """The app's settings; a test changes them with `@pytest.mark.settings(grace_days=3)`."""
    return _settings(request, tmp_path, database_url)


def _settings(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Settings:
    moved = "at" in request.fixturenames
    changes: dict[str, Any] = {"clock_file": request.getfixturevalue("clock_file") if moved else None}
    if "sandbox" in request.fixturenames:
        changes["stripe_secret_key"] = stripe_world.SECRET_KEY
        changes["stripe_webhook_secret"] = stripe_world.WEBHOOK_SECRET
        changes["stripe_publishable_key"] = "pk_test_of_no_value"
        changes["stripe_api_base"] = request.getfixturevalue("sandbox").url
    for marker in reversed(list(request.node.iter_markers("settings"))):
        changes.update(marker.kwargs)
    return databases.make_settings(tmp_path / "instance", database_url, **changes)


@contextmanager
def _running(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    app.testing = True
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
    if settings.clock_file is None:
        clock.configure(None)


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The app on both databases, one after the other."""
    with _running(settings) as app:
        yield app


@pytest.fixture
def sqlite_app(request: pytest.FixtureRequest, tmp_path: Path, sqlite_databases: databases.Sqlite) -> Iterator[Flask]:
    """The app on SQLite alone, for what has nothing to do with the database."""
    with sqlite_databases.copy() as url, _running(_settings(request, tmp_path, url)) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    """Runs `flask …` commands in this process."""
    return app.test_cli_runner()


@pytest.fixture
def operator(app: Flask) -> factories.Api:
    """The API as a service token with every scope sees it."""
    return factories.Api(app, factories.service_token(app))


@pytest.fixture
def stripe(app: Flask, sandbox: Running) -> StripeWorld:
    """The app with Stripe's stand-in beside it, on both databases. Nothing is on sale before `seed`."""
    return StripeWorld(app, sandbox)


@pytest.fixture
def cast(app: Flask) -> factories.Cast:
    """Alice owns an account, Bob is a member of it, Charlie owns another one and is the outsider."""
    return factories.cast(app)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded now stays to the end: it need not be walked through each time that garbage is looked for."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is slow comes last, the slowest of it first: most is known early, and no worker is left with a long one.

    Without a Chromium the browser tests are left out, said aloud; where BROWSER_TESTS=required they fail.
    """
    items.sort(key=_when)
    if os.environ.get("BROWSER_TESTS") == "required" or any(map(shutil.which, BROWSERS)):
        return
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        warning = pytest.PytestWarning("No Chromium: the browser tests were left out (apt-get install chromium).")
        config.issue_config_time_warning(warning, stacklevel=2)


def _when(item: pytest.Item) -> float:
    slow = item.get_closest_marker("slow")
    return 0 if slow is None else 1 / slow.kwargs.get("seconds", 10)
